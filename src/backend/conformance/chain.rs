//! All stages one after the other on simulated frames, each backend working on its own results.

use super::*;
use crate::backend::TileSource;
use crate::pipeline::background::{BackgroundMap, Mesh};
use crate::pipeline::measure::{FitRequest, FitSettings, Shape, Trail, TrailFit};
use crate::pipeline::psf::PsfKernel;
use crate::pipeline::search::{Peak, SearchRequest, suppress};
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::weigh::{CompactSource, Field, SourceClass};
use crate::simulate::{Brightness, Scene, SceneConfig, StreakSpec, simulate};
use crate::{Detection, Detector, DetectorConfig, Device, Flags, Frame, Segment};

/// What a run through the stages gives.
struct Outcome {
    sources: Vec<CompactSource>,
    peaks: Vec<Peak>,
    fit: TrailFit,
}

const FIT: FitSettings = FitSettings {
    shape: Shape::Trail,
    free_background: true,
    free_sigma: true,
    sigma_range: (0.5, 5.0),
    sigma_prior: None,
    reach_px: 8.0,
    photon_variance: 0.0,
    clip_sigmas: 1e9,
    max_iterations: 50,
};

fn run(backend: &mut dyn Backend, frame: &Frame<'_>, track: Segment) -> Outcome {
    let (width, height) = (frame.width(), frame.height());
    backend.prepare(width, height).unwrap();
    backend.ingest(frame).unwrap();
    let mesh = Mesh::new(width, height, 64);
    let tiles = backend.tile_statistics(mesh, TileSource::Values).unwrap();
    backend.normalise(&BackgroundMap::from_tiles(mesh, &tiles).unwrap()).unwrap();
    let kernel = PsfKernel::new(1.5);
    let unit = kernel.white_noise_sd() as f32;
    backend.filter(&kernel, 1e6, true).unwrap();
    let sources = backend.find_compact(14.0 * unit, 0.5 * unit).unwrap();
    let spoilt: Vec<_> = sources
        .iter()
        .map(|s| (s, s.classify(kernel.sigma_eff_px, Field::Sparse)))
        .filter(|(_, class)| *class != SourceClass::Elongated)
        .map(|(s, class)| s.footprint(class, kernel.sigma_eff_px, 0.5))
        .collect();
    backend.weigh_out(&spoilt).unwrap();
    backend.filter(&kernel, 6.0, false).unwrap();
    let (wedges, nodes) = backend.task_size();
    let set = SegmentSet::new(width, height, kernel.clone(), wedges, nodes);
    let request = SearchRequest { threshold: 7.0, limit: 0.8, step: None, weighted: true };
    let peaks = suppress(&backend.find_peaks(&set, &request).unwrap(), kernel.sigma_eff_px, usize::MAX);
    // The refinement between search and fit is the host's affair.
    let start =
        Trail { segment: track.extended(1.5, -2.0), flux: 1.0, background: 0.0, sigma_eff_px: kernel.sigma_eff_px };
    let fit = backend.fit(&[FitRequest { start, subtracted: false }], &FIT).unwrap()[0];
    Outcome { sources, peaks, fit }
}

fn scene(width: usize, height: usize, track: Segment, seed: u64) -> Scene {
    let streaks = vec![StreakSpec { segment: track, brightness: Brightness::Snr(40.0) }];
    // Brighter stars would bleed over a good part of so small a frame.
    let sky = SceneConfig { stars_per_mpix: 300.0, star_max_flux_e: 1e5, ..SceneConfig::default() };
    simulate(&SceneConfig { width, height, seed, streaks, ..sky }).unwrap()
}

#[test]
fn simulated_frames_give_the_same_streak() {
    for (width, height, (x1, y1, x2, y2)) in
        [(256, 200, (60.0, 40.0, 180.0, 130.0)), (130, 240, (20.0, 200.0, 41.0, 90.0))]
    {
        let Some(mut pair) = Pair::new((width, height)) else { return };
        let track = Segment::from_coordinates(x1, y1, x2, y2);
        let scene = scene(width, height, track, 3);
        let (cpu, gpu) = pair.each(|b| run(b, &scene.frame, track));
        let places = |o: &Outcome| o.sources.iter().map(|s| (s.x, s.y)).collect::<Vec<_>>();
        assert!(!cpu.sources.is_empty());
        assert_eq!(places(&cpu), places(&gpu));
        assert_eq!(cpu.peaks[0].segment, gpu.peaks[0].segment);
        let errors = cpu.fit.errors(&FIT).unwrap();
        let (c, g) = (cpu.fit.trail.segment, gpu.fit.trail.segment);
        for (k, (a, b)) in [(c.start.x, g.start.x), (c.start.y, g.start.y), (c.end.x, g.end.x), (c.end.y, g.end.y)]
            .into_iter()
            .enumerate()
        {
            assert!((a - b).abs() < 0.02 * errors.covariance_px2[k][k].sqrt(), "{c:?} {g:?}");
        }
        // The right streak: how well it is measured is tested elsewhere.
        assert!(g.start.distance(track.start) < 2.0 && g.end.distance(track.end) < 2.0, "{g:?}");
        assert!(track.distance_to(gpu.peaks[0].segment.midpoint()) < 3.0);
    }
}

/// Below this S/N the fit of a faint end, or of a pair of stars, may settle in one of two places by rounding alone: of
/// these only the number is compared.
const FAINT_SNR: f64 = 10.0;

#[test]
fn detectors_report_the_same() {
    if context().is_none() {
        return;
    }
    let scene = scene(256, 200, Segment::from_coordinates(60.0, 40.0, 180.0, 130.0), 3);
    let report = |device| {
        let detector = Detector::new(DetectorConfig { device, ..DetectorConfig::default() }).unwrap();
        detector.detect(&scene.frame).unwrap()
    };
    let (cpu, gpu) = (report(Device::Cpu), report(Device::Gpu));
    assert!(!cpu.detections.is_empty());
    assert_eq!(cpu.detections.len(), gpu.detections.len());
    for (c, g) in cpu.detections.iter().zip(&gpu.detections) {
        if c.snr < FAINT_SNR {
            continue;
        }
        // A fit that creeps along a border ends by rounding a step before or after the limit.
        let flags = |d: &Detection| d.flags.without(Flags::NOT_CONVERGED);
        assert_eq!((c.kind, c.role, flags(c)), (g.kind, g.role, flags(g)));
        // Refinements follow one another, each from where the last one stopped.
        let tolerance_px = 0.05 * c.ends_along_err_px().0.min(c.ends_along_err_px().1);
        let apart = c.segment.start.distance(g.segment.start).max(c.segment.end.distance(g.segment.end));
        assert!(apart < tolerance_px, "{apart} px apart, {tolerance_px} allowed: {c:?} {g:?}");
    }
}
