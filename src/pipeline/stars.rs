//! The field's compact sources: how wide the PSF is, and which pixels to weigh out.
//!
//! Method: docs/algorithm.md, "Weigh".

use crate::Result;
use crate::backend::{Backend, TileSource, WALK_DIRECTIONS};
use crate::geometry::Segment;
use crate::pipeline::background::{Mesh, TileStatistics};
use crate::pipeline::judge::{KnownTrail, lies_along};
use crate::pipeline::last_fits::Measured;
use crate::pipeline::measure::{FitRequest, FitSettings, Shape, Trail, UNCLIPPED_SIGMAS};
use crate::pipeline::psf::{PsfKernel, effective_sigma, optical_sigma};
use crate::pipeline::spikes::BrightStar;
use crate::pipeline::threshold::Scatter;
use crate::pipeline::weigh::{CompactSource, Field, Footprint, SourceClass, WeighConfig, is_crowded};
use crate::report::PsfSource;

/// PSF width where nothing is known and no star can be measured, px: FWHM 3.5 px, usual for a ground telescope.
pub(crate) const ASSUMED_SIGMA_PX: f64 = 1.5;

/// What is known of the field's sources.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StarField {
    pub(crate) psf_sigma_px: f64,
    pub(crate) psf_source: PsfSource,
    /// Most of its brightest sources are longer than wide, in one direction: the PSF was measured across them, or short cores
    /// were left to the search.
    pub(crate) seem_to_trail: bool,
    /// Of the filtered frame, before anything was weighed out.
    pub(crate) scatter: Scatter,
    /// Half of the rows of the filtered image's tiles, before anything was weighed out.
    pub(crate) filtered: Vec<TileStatistics>,
    pub(crate) footprints: Vec<Footprint>,
    /// Those along columns of spilled charge.
    pub(crate) spilled: Vec<Footprint>,
    /// Compact sources among them.
    pub(crate) n_sources: usize,
    /// Sources that are longer than wide, and left to the search.
    pub(crate) elongated: Vec<Elongated>,
    /// Spilled charge along columns, with the S/N of a point source of its peak: weighed out, and named in the report.
    pub(crate) bleeds: Vec<(Segment, f64)>,
    /// Stars bright enough for spikes and bleeding.
    pub(crate) bright: Vec<BrightStar>,
}

/// A source that is longer than wide: part of a streak, or a blend of stars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Elongated {
    /// What it spoils if it is no streak.
    pub(crate) footprint: Footprint,
    /// S/N of a point source of its peak.
    pub(crate) snr: f64,
    /// Along its core, as long as it is, to the nearest of the directions that are looked in.
    pub(crate) core: Segment,
}

/// Finds the compact sources of the normalised frame, and measures the PSF on them where it is not given: across those that
/// trail, where they may.
pub(crate) fn survey(
    backend: &mut dyn Backend,
    mesh: Mesh,
    given: Option<f64>,
    may_trail: bool,
    config: &WeighConfig,
) -> Result<StarField> {
    let first_guess = given.unwrap_or(ASSUMED_SIGMA_PX);
    let kernel = PsfKernel::new(first_guess);
    // Of an unknown PSF the sharpest is assumed: none of its stars may be taken for hot pixels.
    backend.weigh_out_hot(HOT_SNR, lone_pixel_ratio(given.unwrap_or(SHARPEST_SIGMA_PX)))?;
    backend.filter(&kernel, UNCLIPPED, true)?;
    let looked_at = mesh.with_half_of_rows();
    let filtered = backend.tile_statistics(looked_at, TileSource::Filtered)?;
    let scatter = Scatter::of(&filtered, looked_at, &kernel);
    // Where the noise has tails (hot pixels), what stands out of it counts, not every pixel of the tail.
    let config = &WeighConfig {
        source_snr: config.source_snr * scatter.excess,
        wing_sigmas: config.wing_sigmas * scatter.excess,
    };
    let mut seem_to_trail = false;
    let measured = if given.is_none() {
        let stars = find_filtered(backend, &kernel, PSF_STAR_SNR.max(config.source_snr), config)?;
        let bright = brightest(&stars, first_guess);
        let direction = common_direction(&bright, effective_sigma(first_guess), mesh).filter(|_| may_trail);
        seem_to_trail = direction.is_some();
        measure_psf(backend, bright, first_guess, direction)?
    } else {
        None
    };
    let (sigma, origin, sources) = if let Some((sigma, count)) = measured {
        backend.weigh_out_hot(HOT_SNR, lone_pixel_ratio(sigma))?;
        (sigma, PsfSource::Stars { count }, find_sources(backend, sigma, config.source_snr, config)?)
    } else {
        let origin = if given.is_some() { PsfSource::Given } else { PsfSource::Assumed };
        (first_guess, origin, find_filtered(backend, &kernel, config.source_snr, config)?)
    };
    let classes_in = |field: Field| -> Vec<SourceClass> {
        sources.iter().map(|s| s.classify_in(mesh.width, mesh.height, effective_sigma(sigma), field)).collect()
    };
    let crowded = is_crowded(sources.len(), mesh.width * mesh.height);
    let mut classes = classes_in(if crowded { Field::Crowded } else { Field::Sparse });
    let n_elongated = classes.iter().filter(|class| **class == SourceClass::Elongated).count();
    let n_compact = classes.iter().filter(|class| is_compact(**class)).count();
    let is_told = !may_trail || may_be_trails(n_elongated, n_compact);
    if !is_told && common_direction(&brightest(&sources, sigma), effective_sigma(sigma), mesh).is_some() {
        seem_to_trail = true;
        // Where short trails are the rule, a short core is no blend.
        classes = classes_in(Field::Trailed);
    }
    let classified: Vec<(CompactSource, SourceClass)> = sources.into_iter().zip(classes).collect();
    let compact = || classified.iter().filter(|(_, class)| is_compact(*class));
    let bleeds = || classified.iter().filter(|(_, class)| *class == SourceClass::Bleed).map(|(source, _)| source);
    let white_noise_sd = PsfKernel::new(sigma).white_noise_sd();
    let bright_peak = (BRIGHT_SNR * white_noise_sd) as f32;
    let bright = compact().filter(|(s, class)| *class != SourceClass::Hot && (s.saturated || s.peak > bright_peak));
    let spilled = classified
        .iter()
        .filter(|(s, class)| {
            s.saturated && matches!(class, SourceClass::Bleed | SourceClass::Elongated | SourceClass::Cut)
        })
        .map(|(source, _)| source);
    let footprint =
        |(s, class): &(CompactSource, SourceClass)| s.footprint(*class, effective_sigma(sigma), config.wing_sigmas);
    // Below the spilled charge there is a star.
    let star_footprint = |s: &CompactSource| s.footprint(SourceClass::Star, effective_sigma(sigma), config.wing_sigmas);
    let spilled_footprints: Vec<Footprint> =
        bleeds().flat_map(|s| s.bleed_footprints(effective_sigma(sigma))).collect();
    Ok(StarField {
        psf_sigma_px: sigma,
        psf_source: origin,
        seem_to_trail,
        filtered,
        scatter,
        elongated: classified
            .iter()
            .filter(|(_, class)| *class == SourceClass::Elongated)
            .map(|source| Elongated {
                footprint: footprint(source),
                snr: f64::from(source.0.peak) / white_noise_sd,
                core: source.0.core(),
            })
            .collect(),
        footprints: compact()
            .map(footprint)
            .chain(spilled_footprints.iter().copied())
            .chain(bleeds().map(star_footprint))
            .collect(),
        spilled: spilled_footprints,
        n_sources: compact().count(),
        bleeds: bleeds().map(|s| (s.bleed(), f64::from(s.peak) / white_noise_sd)).collect(),
        bright: bright
            .map(|(s, class)| BrightStar {
                position: s.position(),
                radius_px: f64::from(s.radius_px(*class, effective_sigma(sigma), config.wing_sigmas)),
                snr: f64::from(s.peak) / white_noise_sd,
                saturated: s.saturated,
                elongated: false,
            })
            .chain(bleeds().map(|source| BrightStar {
                position: source.position(),
                radius_px: f64::from(star_footprint(source).radius_px),
                snr: f64::from(source.peak) / white_noise_sd,
                saturated: true,
                elongated: false,
            }))
            .chain(spilled.map(|s| BrightStar {
                position: s.position(),
                radius_px: BLEED_RADIUS_PX,
                snr: f64::from(s.peak) / white_noise_sd,
                saturated: true,
                elongated: true,
            }))
            .collect(),
    })
}

/// Pixels below this many times the noise are left alone: what is hot there adds little to any line.
const HOT_SNR: f32 = 5.0;

/// PSF width of the sharpest optics that are searched for, px.
const SHARPEST_SIGMA_PX: f64 = 0.6;

/// A lone pixel stands above the median of its neighbours by more than this: half as much again as a star centred on
/// it, whose neighbours lie a pixel away, or the square root of two.
fn lone_pixel_ratio(sigma_px: f64) -> f32 {
    (1.6 * (0.75 / effective_sigma(sigma_px).powi(2)).exp()) as f32
}

/// Gives weight zero to what is no light, and leaves the sources: lone pixels, spilled charge.
pub(crate) fn weigh_out_defects(backend: &mut dyn Backend, field: &StarField) -> Result<()> {
    backend.weigh_out_hot(HOT_SNR, lone_pixel_ratio(field.psf_sigma_px))?;
    backend.weigh_out(&field.spilled)
}

/// A line along the column this near to spilled charge is more of it.
const BLEED_RADIUS_PX: f64 = 12.0;

/// Stars of this S/N and more may draw diffraction spikes.
const BRIGHT_SNR: f64 = 100.0;

/// Local maxima of the frame filtered with a PSF of `sigma_px`.
pub(crate) fn find_sources(
    backend: &mut dyn Backend,
    sigma_px: f64,
    least_snr: f64,
    config: &WeighConfig,
) -> Result<Vec<CompactSource>> {
    let kernel = PsfKernel::new(sigma_px);
    backend.filter(&kernel, UNCLIPPED, true)?;
    find_filtered(backend, &kernel, least_snr, config)
}

/// The same of the frame already filtered.
fn find_filtered(
    backend: &mut dyn Backend,
    kernel: &PsfKernel,
    least_snr: f64,
    config: &WeighConfig,
) -> Result<Vec<CompactSource>> {
    backend.find_compact((least_snr * kernel.white_noise_sd()) as f32, config.wing_sigmas as f32)
}

/// Beyond any pixel's significance.
const UNCLIPPED: f32 = 1e9;

/// Stars the PSF is measured on at most: the brightest tell it to a percent.
const MAX_PSF_STARS: usize = 100;
/// With fewer the median is a matter of luck.
const MIN_PSF_STARS: usize = 3;
/// S/N of the faintest stars used: their widths are known to some 5 %.
const PSF_STAR_SNR: f64 = 15.0;

/// From this S/N on trails are asked again.
const PSF_TRAIL_SNR: f64 = 60.0;

/// Effective width of the sharpest thing that counts as a star: a lone hot pixel fits at 0.3 to 0.4 px.
const SHARPEST_STAR_PX: f64 = 0.5;

/// A few streaks have fewer sources than this in one direction, however often they are interrupted.
const MIN_TRAILED_STARS: usize = 20;

/// A band of spoiled rows has fewer in some quarter of the frame.
const MIN_TRAILED_OF_QUARTER: usize = 4;

/// Unsaturated sources that are bright enough to tell the PSF, brightest first.
fn brightest(sources: &[CompactSource], sigma_px: f64) -> Vec<&CompactSource> {
    let least = (PSF_STAR_SNR * PsfKernel::new(sigma_px).white_noise_sd()) as f32;
    let mut bright: Vec<&CompactSource> = sources.iter().filter(|s| !s.saturated && s.peak > least).collect();
    bright.sort_by(|a, b| b.peak.total_cmp(&a.peak));
    bright
}

/// Where elongated sources are more than this part of the compact ones, the stars may be trails.
const MANY_TRAILS: f64 = 0.25;

/// Whether so many sources are longer than wide that the stars may be trails.
pub(crate) fn may_be_trails(n_elongated: usize, n_compact: usize) -> bool {
    n_elongated as f64 > MANY_TRAILS * n_compact as f64
}

fn is_compact(class: SourceClass) -> bool {
    matches!(class, SourceClass::Star | SourceClass::Hot | SourceClass::Cut)
}

/// The direction of the walk in which most of the brightest sources are longer than wide: stars that trail, if only a little.
fn common_direction(bright: &[&CompactSource], sigma_eff_px: f64, mesh: Mesh) -> Option<usize> {
    let is_hot = |s: &CompactSource| s.classify(sigma_eff_px, Field::Trailed) == SourceClass::Hot;
    let asked: Vec<&CompactSource> = bright.iter().copied().filter(|s| !is_hot(s)).take(MAX_PSF_STARS).collect();
    let along: Vec<Vec<bool>> = (0..WALK_DIRECTIONS / 2)
        .map(|k| asked.iter().map(|source| is_long_along(source, sigma_eff_px, k)).collect())
        .collect();
    let n_along = |k: usize| along[k].iter().filter(|is_along| **is_along).count();
    let common = (0..along.len()).max_by_key(|k| n_along(*k)).unwrap_or(0);
    let are_many = |quarter: usize| {
        let is_inside = |s: &CompactSource| {
            quarter == usize::from(2 * s.x as usize > mesh.width) + 2 * usize::from(2 * s.y as usize > mesh.height)
        };
        let inside = || asked.iter().zip(&along[common]).filter(|(s, _)| is_inside(s));
        let n_trailed = inside().filter(|(_, is_along)| **is_along).count();
        n_trailed >= MIN_TRAILED_OF_QUARTER && 3 * n_trailed > inside().count()
    };
    let n_trailed = n_along(common);
    (n_trailed >= MIN_TRAILED_STARS && 2 * n_trailed > asked.len() && (0..4).all(are_many)).then_some(common)
}

/// Longer than wide, in a direction of the walk or the next to it.
fn is_long_along(source: &CompactSource, sigma_eff_px: f64, direction: usize) -> bool {
    let half_turn = WALK_DIRECTIONS / 2;
    let is_near = || (source.longest_direction() + half_turn + 1 - direction) % half_turn <= 2;
    source.classify(sigma_eff_px, Field::Trailed) == SourceClass::Elongated && is_near()
}

/// Median width of the brightest of these sources, across them where most are trails, and how many there were; none where
/// there are too few.
fn measure_psf(
    backend: &mut dyn Backend,
    mut stars: Vec<&CompactSource>,
    guess_px: f64,
    trailed: Option<usize>,
) -> Result<Option<(f64, usize)>> {
    let sigma_eff = effective_sigma(guess_px);
    stars.retain(|s| match trailed {
        Some(direction) => is_long_along(s, sigma_eff, direction),
        None => s.classify(sigma_eff, Field::Crowded) != SourceClass::Elongated,
    });
    stars.truncate(MAX_PSF_STARS);
    let start = |s: &&CompactSource| Trail {
        segment: if trailed.is_some() { s.core() } else { Segment::new(s.position(), s.position()) },
        flux: 0.0,
        background: 0.0,
        sigma_eff_px: sigma_eff,
    };
    let requests: Vec<FitRequest> = stars.iter().map(|s| FitRequest { start: start(s), subtracted: false }).collect();
    let settings = FitSettings {
        shape: if trailed.is_some() { Shape::Trail } else { Shape::Point },
        free_background: true,
        free_sigma: true,
        sigma_range: (0.25, 8.0),
        sigma_prior: None,
        reach_px: 4.0 * sigma_eff + 2.0,
        photon_variance: 0.0,
        clip_sigmas: UNCLIPPED_SIGMAS,
        max_iterations: 12,
    };
    let fits = backend.fit(&requests, &settings)?;
    let mut widths: Vec<f64> = fits
        .iter()
        .filter(|f| f.converged && f.trail.flux > 0.0)
        .map(|f| f.trail.sigma_eff_px)
        .filter(|w| (SHARPEST_STAR_PX..6.0).contains(w))
        .collect();
    widths.sort_unstable_by(f64::total_cmp);
    let enough = widths.len() >= MIN_PSF_STARS;
    Ok(enough.then(|| (optical_sigma(widths[widths.len() / 2]), widths.len())))
}

/// No star told the PSF; or the stars themselves are trails, and what looked like stars was something else.
pub(crate) fn psf_is_doubtful(field: &StarField, stars_are_trails: bool) -> bool {
    let from_stars = matches!(field.psf_source, PsfSource::Stars { .. });
    field.psf_source == PsfSource::Assumed || (from_stars && stars_are_trails)
}

/// Bright trails tell the PSF where no star did: their median width, if it differs enough to search again, and how many they
/// are. What lies along a brighter one may be what that left, fitted with a PSF too narrow, and does not count. Once they have
/// told it they are asked `again` where they are so bright that no faint edge of light passes for one.
pub(crate) fn psf_from_trails(psf_sigma_px: f64, measured: &[Measured], again: bool) -> Option<(f64, usize)> {
    let least_snr = if again { PSF_TRAIL_SNR } else { PSF_STAR_SNR };
    let known: Vec<KnownTrail> = measured.iter().map(Measured::as_known).collect();
    let is_left = |m: &Measured| known.iter().any(|trail| lies_along(&m.detection.segment, m.detection.snr, trail));
    let mut widths: Vec<f64> = measured
        .iter()
        .filter(|m| m.detection.snr >= least_snr && m.sigma_eff_px > SHARPEST_STAR_PX && !is_left(m))
        .map(|m| m.detection.sigma_px)
        .collect();
    widths.sort_unstable_by(f64::total_cmp);
    let median = *widths.get(widths.len() / 2)?;
    let differs = (median / psf_sigma_px - 1.0).abs() > 0.08;
    (differs && (0.3..8.0).contains(&median)).then_some((median, widths.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: usize = 400;

    /// A star at each place of a grid, as long as wide or longer in a direction.
    fn are(n_side: u32, long_in: impl Fn(u32, u32) -> Option<usize>) -> bool {
        let half_turn = WALK_DIRECTIONS / 2;
        let star = |i: u32| {
            let step = MESH as u32 / n_side;
            let (x, y) = (step / 2 + step * (i % n_side), step / 2 + step * (i / n_side));
            let mut core_reach = [4; WALK_DIRECTIONS];
            if let Some(k) = long_in(x, y) {
                (core_reach[k], core_reach[k + half_turn]) = (7, 7);
            }
            CompactSource { x, y, peak: 100.0, centre: 200.0, saturated: false, core_reach, wing_reach: core_reach }
        };
        let stars: Vec<CompactSource> = (0..n_side * n_side).map(star).collect();
        common_direction(&brightest(&stars, 1.5), 1.5, Mesh::new(MESH, MESH, 64)).is_some()
    }

    #[test]
    fn stars_trail_where_most_are_longer_than_wide_in_one_direction_everywhere() {
        assert!(are(8, |_, _| Some(0)) && are(8, |_, _| Some(5)));
        assert!(are(8, |x, y| Some((x + y) as usize % 3)), "the directions of the walk are coarse");
        assert!(are(8, |x, _| (x % 200 > 60).then_some(2)), "some are round");
        assert!(!are(8, |_, _| None) && !are(8, |x, _| (x % 200 > 140).then_some(2)), "most are");
        assert!(!are(8, |x, y| Some((x / 50 + 3 * y / 50) as usize % 8)), "in all directions");
        assert!(!are(4, |_, _| Some(0)), "few");
        assert!(!are(10, |_, y| (y < 240).then_some(0)), "one side of the frame");
        assert!(!are(10, |x, y| (x < 200 || y < 200 || (y < 240 && x < 320)).then_some(0)), "three in one quarter");
    }
}
