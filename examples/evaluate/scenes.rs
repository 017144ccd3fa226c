//! Frames for the benchmark: sky, noise, defects and streaks with exact truth.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use skystreak::simulate::{
    Bounds, Brightness, SceneConfig, StreakSpec, Unknowns, add_streak, cramer_rao, cramer_rao_with, gaussian_frame,
    simulate, unit_stamp,
};
use skystreak::{Frame, Point, Segment};

use crate::AnyResult;

/// What frames look like, but for the streaks.
#[derive(Debug, Clone)]
pub(crate) struct Conditions {
    /// Side of the square frames, px.
    pub(crate) size: usize,
    pub(crate) psf_sigma_px: f64,
    /// Level of the sky in units of the noise.
    pub(crate) sky: f64,
    /// Change of the sky across the frame, in units of the noise.
    pub(crate) gradient: f64,
    /// Noise at the right border over the noise at the left one, which is 1.
    pub(crate) noise_ratio: f64,
    /// Share of the pixels under round masks.
    pub(crate) masked: f64,
    /// Masked columns.
    pub(crate) bad_columns: usize,
    /// Columns of a masked band.
    pub(crate) column_band: usize,
    /// Rms of the logarithm of a streak's width over the PSF's.
    pub(crate) width_spread: f64,
    /// Photon noise of sky and streaks instead of white noise.
    pub(crate) photons: Option<Photons>,
    /// Stars of S/N 3 and more on a million pixels, where photons are counted.
    pub(crate) stars_per_mpix: f64,
}

/// A sensor that counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Photons {
    pub(crate) gain_e_per_adu: f64,
    pub(crate) sky_e: f64,
    pub(crate) read_noise_e: f64,
}

impl Conditions {
    /// White noise of unit rms on a sloping sky.
    pub(crate) fn white(size: usize, psf_sigma_px: f64) -> Self {
        Self {
            size,
            psf_sigma_px,
            sky: 500.0,
            gradient: 10.0,
            noise_ratio: 1.0,
            masked: 0.0,
            bad_columns: 0,
            column_band: 0,
            width_spread: 0.0,
            photons: None,
            stars_per_mpix: 0.0,
        }
    }

    fn noise_at(&self, x: usize) -> f64 {
        1.0 + (self.noise_ratio - 1.0) * x as f64 / (self.size - 1).max(1) as f64
    }

    fn sky_at(&self, x: usize, y: usize) -> f64 {
        let side = self.size as f64;
        self.sky + self.gradient * (0.8 * x as f64 + 0.6 * y as f64) / (1.4 * side)
    }
}

/// A streak as it really is: the part inside the frame.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    pub(crate) segment: Segment,
    /// Exact matched-filter S/N of the pixel-integrated light against the noise of the background.
    pub(crate) snr: f64,
    /// Light inside the frame, in the unit the detector reports.
    pub(crate) flux: f64,
    /// Width of its PSF, px.
    pub(crate) sigma_px: f64,
    /// Noise per pixel in the same unit.
    noise: f64,
    own_photons: bool,
}

impl Truth {
    /// Cramér-Rao bounds of this very streak: its width and background known, and where they are found with it as the
    /// detector does (docs/algorithm.md, "Measure").
    pub(crate) fn bounds(&self) -> AnyResult<[Bounds; 2]> {
        let Self { segment, flux, noise, own_photons, sigma_px, .. } = self;
        let known = cramer_rao(segment, *flux, *sigma_px, *noise, *own_photons)?;
        Ok([known, self.bounds_with_width_known_to(0.15)?])
    }

    /// Bound of the PSF width where nothing is known of it beforehand, px.
    pub(crate) fn own_width_bound_px(&self) -> AnyResult<f64> {
        Ok(self.bounds_with_width_known_to(f64::INFINITY)?.sigma_px)
    }

    fn bounds_with_width_known_to(&self, share: f64) -> AnyResult<Bounds> {
        let Self { segment, flux, noise, own_photons, sigma_px, .. } = self;
        let sigma_eff_px = (sigma_px * sigma_px + 1.0 / 12.0).sqrt();
        let unknowns = Unknowns { reach_px: 6.0 * sigma_eff_px + 3.0, width_spread_px: share * sigma_eff_px };
        Ok(cramer_rao_with(segment, *flux, *sigma_px, *noise, *own_photons, unknowns)?)
    }
}

/// A frame and what is in it.
pub(crate) struct Made {
    pub(crate) frame: Frame<'static>,
    pub(crate) truths: Vec<Truth>,
}

/// The seed of one of many frames: neighbouring seeds and frames share nothing.
pub(crate) fn frame_seed(seed: u64, frame: usize) -> u64 {
    // SplitMix64.
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(frame as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The generator of places; the noise of the same frame draws from others.
pub(crate) fn place_generator(frame_seed: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(frame_seed);
    rng.set_stream(u64::MAX);
    rng
}

/// Makes one frame with streaks of given S/N (of the part inside the frame).
pub(crate) fn make(conditions: &Conditions, streaks: &[(Segment, f64)], frame_seed: u64) -> AnyResult<Made> {
    if streaks.iter().any(|(_, snr)| snr.is_nan() || *snr <= 0.0) {
        return Err("--snr above 0, please".into());
    }
    if let Some(photons) = conditions.photons {
        return make_counted(conditions, photons, streaks, frame_seed);
    }
    let size = conditions.size;
    let mut pixels = gaussian_frame(size, size, frame_seed, 1.0);
    for (i, pixel) in pixels.iter_mut().enumerate() {
        let (x, y) = (i % size, i / size);
        *pixel = (f64::from(*pixel) * conditions.noise_at(x) + conditions.sky_at(x, y)) as f32;
    }
    let mut truths = Vec::new();
    let mut rng = ChaCha8Rng::seed_from_u64(frame_seed);
    rng.set_stream(u64::MAX - 2);
    for (segment, snr) in streaks {
        let normal: f64 = rng.sample(StandardNormal);
        let sigma_px = conditions.psf_sigma_px * (conditions.width_spread * normal).exp();
        let stamp = unit_stamp(segment, sigma_px, size, size);
        let unit_snr = stamp.unit_snr(|x, _| conditions.noise_at(x).powi(2));
        let flux = snr / unit_snr;
        add_streak(&mut pixels, size, segment, sigma_px, flux);
        let inside = segment.clipped_to(size, size).ok_or("a streak lies outside of its frame")?;
        let (flux, noise) = (flux * stamp.total(), stamp.norm() / unit_snr);
        truths.push(Truth { segment: inside.ordered(), snr: *snr, flux, sigma_px, noise, own_photons: false });
    }
    let frame = with_defects(Frame::new(pixels, size, size)?, conditions, frame_seed)?;
    Ok(Made { frame, truths })
}

fn make_counted(
    conditions: &Conditions,
    photons: Photons,
    streaks: &[(Segment, f64)],
    frame_seed: u64,
) -> AnyResult<Made> {
    let noise_e = (photons.sky_e + photons.read_noise_e.powi(2)).sqrt();
    let scene = simulate(&SceneConfig {
        width: conditions.size,
        height: conditions.size,
        seed: frame_seed,
        psf_sigma_px: conditions.psf_sigma_px,
        sky_e: photons.sky_e,
        gradient: conditions.gradient * noise_e / photons.sky_e,
        read_noise_e: photons.read_noise_e,
        gain_e_per_adu: photons.gain_e_per_adu,
        stars_per_mpix: conditions.stars_per_mpix,
        streaks: streaks
            .iter()
            .map(|(segment, snr)| StreakSpec { segment: *segment, brightness: Brightness::Snr(*snr) })
            .collect(),
        ..SceneConfig::blank()
    })?;
    let truths = scene.truth.streaks.iter().map(|t| Truth {
        segment: t.segment(),
        snr: t.snr,
        flux: t.flux_e,
        sigma_px: conditions.psf_sigma_px,
        noise: t.noise_e,
        own_photons: true,
    });
    let truths = truths.collect();
    Ok(Made { frame: with_defects(scene.frame, conditions, frame_seed)?, truths })
}

/// Masks disks such as stars leave, columns, and a band of them.
fn with_defects(frame: Frame<'static>, conditions: &Conditions, frame_seed: u64) -> AnyResult<Frame<'static>> {
    if conditions.masked <= 0.0 && conditions.bad_columns == 0 && conditions.column_band == 0 {
        return Ok(frame);
    }
    let size = conditions.size;
    let mut rng = ChaCha8Rng::seed_from_u64(frame_seed);
    rng.set_stream(u64::MAX - 1);
    let mut mask = vec![false; size * size];
    let mut n_masked = 0_usize;
    while (n_masked as f64) < conditions.masked * mask.len() as f64 {
        let (x, y) = (rng.random_range(0.0..size as f64), rng.random_range(0.0..size as f64));
        let radius: f64 = rng.random_range(3.0..12.0);
        let around = |c: f64| (c - radius).max(0.0) as usize..=((c + radius) as usize).min(size - 1);
        for (row, column) in around(y).flat_map(|row| around(x).map(move |column| (row, column))) {
            let pixel = &mut mask[row * size + column];
            if !*pixel && (column as f64 - x).hypot(row as f64 - y) <= radius {
                *pixel = true;
                n_masked += 1;
            }
        }
    }
    for _ in 0..conditions.bad_columns {
        let column = rng.random_range(0..size);
        mask[column..].iter_mut().step_by(size).for_each(|m| *m = true);
    }
    if conditions.column_band > 0 {
        let first = rng.random_range(0..=size - conditions.column_band);
        mask.chunks_mut(size).for_each(|row| row[first..first + conditions.column_band].fill(true));
    }
    Ok(frame.with_mask(mask)?)
}

/// How streaks are placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    pub(crate) length_px: f64,
    /// Streaks in a frame.
    pub(crate) n: usize,
    /// Ends may lie outside of the frame.
    pub(crate) cut: bool,
}

/// Ends keep this distance from the border, px: four and more PSF widths of what is usual.
const MARGIN_PX: f64 = 10.0;

/// The shortest part of a cut streak that is to be found, px.
const SHORTEST_CUT_PX: f64 = 8.0;

impl Placement {
    /// The given number of streaks in a frame, or as many as fit well apart.
    pub(crate) fn new(length_px: f64, n: Option<usize>, size: usize) -> Self {
        let most = (size as f64 / (length_px + guard_px(length_px))).powi(2) / 4.0;
        Self { length_px, n: n.unwrap_or((most as usize).max(1)), cut: false }
    }

    /// Draws places, every angle and sub-pixel phase alike.
    pub(crate) fn draw(&self, size: usize, rng: &mut ChaCha8Rng) -> AnyResult<Vec<Segment>> {
        if self.length_px.is_nan() || self.length_px < 0.0 {
            return Err("--length of 0 and more, please".into());
        }
        let mut places: Vec<Segment> = Vec::new();
        let side = size as f64;
        for _ in 0..self.n {
            let mut draw = || {
                let middle = Point::new(rng.random_range(0.0..side) - 0.5, rng.random_range(0.0..side) - 0.5);
                Segment::around(middle, self.length_px, rng.random_range(0.0..std::f64::consts::PI))
            };
            let place = (0..10_000).map(|_| draw()).find(|s| self.allows(s, size) && is_clear(s, &places));
            places.push(place.ok_or_else(|| format!("no room for {} streaks of {} px", self.n, self.length_px))?);
        }
        Ok(places)
    }

    fn allows(&self, segment: &Segment, size: usize) -> bool {
        if self.cut {
            return segment.clipped_to(size, size).is_some_and(|s| s.length_px() >= SHORTEST_CUT_PX);
        }
        let within = MARGIN_PX..=size as f64 - 1.0 - MARGIN_PX;
        [segment.start, segment.end].iter().all(|p| within.contains(&p.x) && within.contains(&p.y))
    }
}

/// Streaks so far apart do not disturb each other: the search looks 0.6 lengths beyond the ends.
fn guard_px(length_px: f64) -> f64 {
    (0.7 * length_px).max(40.0)
}

fn is_clear(segment: &Segment, others: &[Segment]) -> bool {
    let guard = guard_px(segment.length_px());
    // Points along it, closer than the guard, see every crossing.
    let n = (segment.length_px() / (0.5 * guard)).ceil() as usize;
    others.iter().all(|other| (0..=n).all(|k| other.distance_to(segment.at(k as f64 / n as f64)) >= guard))
}
