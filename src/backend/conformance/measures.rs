//! Stages that look at single tracks: profiles, models added, fits.

use super::*;
use crate::geometry::{Point, Segment};
use crate::pipeline::measure::{FitRequest, FitSettings, N_PARAMETERS, Shape, SigmaPrior, Trail, triangle};

const TRACKS: [(f64, f64, f64, f64); 8] = [
    (60.3, 50.2, 190.7, 50.2),
    (190.7, 61.4, 60.3, 58.0),
    (128.0, 20.5, 128.0, 160.25),
    (70.1, 40.7, 170.3, 140.9),
    (140.0, 150.0, 100.0, 30.0),
    (40.2, 90.9, 52.6, 94.7),
    (-6.0, 100.0, 44.0, 112.0),
    (210.0, 170.0, 262.0, 205.0),
];

fn tracks() -> Vec<Segment> {
    TRACKS.iter().map(|&(x1, y1, x2, y2)| Segment::from_coordinates(x1, y1, x2, y2)).collect()
}

fn trail(segment: Segment, flux: f64, sigma_eff_px: f64) -> Trail {
    Trail { segment, flux, background: 0.0, sigma_eff_px }
}

#[test]
fn profiles_agree() {
    let Some(mut pair) = Pair::new((256, 200)) else { return };
    let residual: Vec<f32> = noise(pair.len(), 60).iter().map(|v| 5.0 * v).collect();
    let weights = weights_with_holes(pair.len(), 0.04, 61);
    pair.write([&residual, &weights, &residual, &weights]);
    for sigma in [0.8_f32, 2.5] {
        for list in [tracks(), Vec::new()] {
            let (cpu, gpu) = pair.each(|b| b.profiles(&list, sigma).unwrap());
            assert_eq!(cpu.len(), gpu.len());
            for (c, g) in cpu.iter().zip(&gpu) {
                assert_eq!((c.bin_px, c.first_px), (g.bin_px, g.first_px));
                // G goes down to exp(−12): its argument and the exponential itself round by some 100 parts; a row
                // holds at most 30 pixels of a weighted residual of less than one.
                let largest = 30.0 * 0.04 * 30.0 / sigma;
                check("signal", &c.signal, &g.signal, |_| 100.0 * EPS * largest);
                check("variance", &c.variance, &g.variance, |i| 200.0 * EPS * c.variance[i]);
            }
        }
    }
}

#[test]
fn models_are_added_alike() {
    let Some(mut pair) = Pair::new((256, 200)) else { return };
    let residual = noise(pair.len(), 62);
    let ones = vec![1.0; pair.len()];
    pair.write([&residual, &ones, &residual, &ones]);
    let mut trails: Vec<Trail> = tracks().into_iter().map(|s| trail(s, 5_000.0, 1.3)).collect();
    trails.push(trail(Segment::from_coordinates(200.3, 20.6, 200.3, 20.6), 900.0, 1.1));
    // Brightness of the densest model at its middle; coordinates up to 150 px from it round by as many parts of a
    // pixel, and the step function by some 60 parts.
    let peak = 900.0 / (std::f32::consts::TAU * 1.1 * 1.1);
    let bound = (60.0 + 2.0 * 150.0) * EPS * peak + 8.0 * EPS * peak;
    for factor in [1.0, -0.5] {
        pair.each(|b| b.add_trails(&trails, factor).unwrap());
        pair.check_images("trails", |_| 3.0 * bound, exact);
    }
    pair.each(|b| b.add_trails(&[], 1.0).unwrap());
    pair.check_images("no trails", |_| 3.0 * bound, exact);
}

const TRAIL_FIT: FitSettings = FitSettings {
    shape: Shape::Trail,
    free_background: true,
    free_sigma: false,
    sigma_range: (0.5, 5.0),
    sigma_prior: None,
    reach_px: 8.0,
    photon_variance: 0.0,
    clip_sigmas: 1e9,
    max_iterations: 50,
};

/// Fits trails from a disturbed start, on an image which holds them, and compares the two backends.
fn check_fits(what: &str, truth: &[Trail], subtracted: bool, settings: &FitSettings) {
    let Some(mut pair) = Pair::new((256, 200)) else { return };
    let residual: Vec<f32> = noise(pair.len(), 70).iter().map(|v| 3.0 * v).collect();
    let weights = weights_with_holes(pair.len(), 1.0 / 9.0, 71);
    pair.write([&residual, &weights, &residual, &weights]);
    let starts: Vec<Trail> = truth
        .iter()
        .map(|t| {
            let (c, s) = t.segment.direction();
            let moved = |p: Point, along: f64, across: f64| {
                Point::new(p.x + along * c - across * s, p.y + along * s + across * c)
            };
            let segment = match settings.shape {
                Shape::Trail => Segment::new(moved(t.segment.start, 1.4, 0.5), moved(t.segment.end, -0.9, 0.3)),
                Shape::Point => {
                    let p = moved(t.segment.start, 0.6, -0.4);
                    Segment::new(p, p)
                }
            };
            let inside = segment.clipped_to(256, 200).unwrap();
            Trail { segment: inside, flux: 0.9 * t.flux, ..*t }
        })
        .collect();
    pair.each(|b| b.add_trails(truth, 1.0).unwrap());
    if subtracted {
        pair.each(|b| b.add_trails(&starts, -1.0).unwrap());
    }
    let requests: Vec<FitRequest> = starts.iter().map(|&start| FitRequest { start, subtracted }).collect();
    let (cpu, gpu) = pair.each(|b| b.fit(&requests, settings).unwrap());
    assert_eq!(cpu.len(), gpu.len());
    for (i, (c, g)) in cpu.iter().zip(&gpu).enumerate() {
        let what = format!("{what}, trail {i}:\n{c:?}\n{g:?}");
        assert!(c.converged && g.converged, "{what}");
        let errors = c.errors(settings).unwrap_or_else(|| panic!("{what}"));
        let on_device = g.errors(settings).unwrap_or_else(|| panic!("{what}"));
        let ends = |t: &Trail| [t.segment.start.x, t.segment.start.y, t.segment.end.x, t.segment.end.y];
        for k in 0..4 {
            let sigma = errors.covariance_px2[k][k].sqrt();
            assert!((ends(&c.trail)[k] - ends(&g.trail)[k]).abs() < 0.02 * sigma, "coordinate {k} ± {sigma}: {what}");
            let ratio = on_device.covariance_px2[k][k].sqrt() / sigma;
            // An end outside of the frame is known by the tail of its light alone: its error is whatever rounding
            // leaves of a singular matrix, and the matrices are compared below.
            let end = if k < 2 { c.trail.segment.start } else { c.trail.segment.end };
            let seen = (-0.5..255.5).contains(&end.x) && (-0.5..199.5).contains(&end.y);
            assert!(!seen || (ratio - 1.0).abs() < 5e-3, "error of coordinate {k}: {ratio}, {what}");
        }
        let free = settings.free_parameters();
        let pairs = (0..N_PARAMETERS).flat_map(|a| (a..N_PARAMETERS).map(move |b| (a, b)));
        for (a, b) in pairs.filter(|&(a, b)| free[a] && free[b]) {
            let scale = (c.information[triangle(a, a)] * c.information[triangle(b, b)]).sqrt();
            let difference = c.information[triangle(a, b)] - g.information[triangle(a, b)];
            assert!(difference.abs() <= 2e-3 * scale, "information of {a} and {b}: {what}");
        }
        assert!((c.trail.flux - g.trail.flux).abs() < 0.02 * errors.flux_err, "{what}");
        let sigma_err = if settings.free_sigma { errors.sigma_eff_err } else { 1e-5 };
        assert!((c.trail.sigma_eff_px - g.trail.sigma_eff_px).abs() < 0.02 * sigma_err, "{what}");
        assert!((c.chi2 / g.chi2 - 1.0).abs() < 1e-5 && (c.snr / g.snr - 1.0).abs() < 1e-3, "{what}");
        assert!((c.n_pixels - g.n_pixels).abs() <= 1.0, "a pixel may lie just on the stamp's edge: {what}");
        assert!((0..2).all(|e| (c.end_coverage[e] - g.end_coverage[e]).abs() < 0.02), "{what}");
    }
}

#[test]
fn fits_agree() {
    let bright: Vec<Trail> = tracks().into_iter().map(|s| trail(s, 40.0 * s.length_px(), 1.4)).collect();
    check_fits("bright", &bright, false, &TRAIL_FIT);
    check_fits("bright, width free", &bright, false, &FitSettings { free_sigma: true, ..TRAIL_FIT });
    let sigma_prior = Some(SigmaPrior { sigma_px: 1.5, spread_px: 0.1 });
    check_fits("width expected", &bright, false, &FitSettings { free_sigma: true, sigma_prior, ..TRAIL_FIT });
    check_fits("taken out before", &bright, true, &TRAIL_FIT);
    let photons = FitSettings { photon_variance: 0.5, free_background: false, ..TRAIL_FIT };
    check_fits("own photons count", &bright, false, &photons);
    let clipped = FitSettings { clip_sigmas: 6.0, free_background: false, ..TRAIL_FIT };
    check_fits("clipped", &bright, false, &clipped);
    let faint: Vec<Trail> = tracks().into_iter().take(5).map(|s| trail(s, 9.0 * s.length_px(), 1.4)).collect();
    check_fits("faint", &faint, false, &TRAIL_FIT);
    let points: Vec<Trail> =
        tracks().into_iter().take(5).map(|s| trail(Segment::new(s.start, s.start), 700.0, 1.4)).collect();
    let settings = FitSettings { shape: Shape::Point, free_sigma: true, ..TRAIL_FIT };
    check_fits("points", &points, false, &settings);
}

#[test]
fn fits_without_light_end_alike() {
    let Some(mut pair) = Pair::new((64, 64)) else { return };
    let zeros = vec![0.0; pair.len()];
    pair.write([&zeros; 4]);
    let start = trail(Segment::from_coordinates(20.0, 30.0, 40.0, 31.0), 100.0, 1.5);
    let (cpu, gpu) = pair.each(|b| b.fit(&[FitRequest { start, subtracted: false }], &TRAIL_FIT).unwrap());
    assert_eq!((cpu[0].converged, cpu[0].n_pixels, cpu[0].trail.flux), (false, 0.0, 0.0));
    assert_eq!((gpu[0].converged, gpu[0].n_pixels, gpu[0].trail.flux), (false, 0.0, 0.0));
    let (cpu, gpu) = pair.each(|b| b.fit(&[], &TRAIL_FIT).unwrap());
    assert!(cpu.is_empty() && gpu.is_empty());
}
