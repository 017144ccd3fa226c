//! The false-alarm law: from false alarms per frame to a S/N threshold per length octave.
//!
//! White noise has no length of its own: what a search for streaks of length `L` finds in it depends on `L / σ_eff` and
//! on how many areas of `σ_eff²` there are. Counted on the refined statistic (docs/algorithm.md, "Threshold"), the
//! expected number of false alarms above `t` in an octave of lengths is
//!
//! `rate(t) = c(L / σ_eff) · g(L / side) · pixels / (335 σ_eff)² · (t / 5)⁵ · exp((25 − t²) / 2)`,
//!
//! where `g` is the share of such streaks for which a frame has room.

use crate::pipeline::background::{CLIPPED_SD, Mesh, TileStatistics};
use crate::pipeline::psf::{PsfKernel, effective_sigma};

/// `c` at lengths of 2.6, 5.2, 10.5, … 335 PSF widths, one octave apart; the last holds for all above. Counted in frames of
/// 256² to 2048² pixels at PSF sigmas from 0.6 to 3 px (docs/accuracy.md, "False alarms").
const RATE_AT_5: [f64; 8] = [0.02, 0.19, 0.40, 0.66, 0.93, 1.15, 1.33, 1.50];

/// Length of the first of them, in PSF widths (σ_eff).
const FIRST_LENGTH_WIDTHS: f64 = 2.62;

/// Shortest length of the first octave, px.
const FIRST_OCTAVE_PX: f64 = 8.0;

/// S/N a streak of each length needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Thresholds {
    /// One per octave, from [`FIRST_OCTAVE_PX`].
    per_octave: Vec<f64>,
    /// Scatter of the filtered frame over that of white noise; the thresholds have been multiplied by it.
    pub(crate) noise_excess: f64,
}

impl Thresholds {
    /// Thresholds with an equal share of `false_alarms` in each octave of lengths that the frame has room for; the
    /// last one begins at a quarter to a half of the frame's side.
    ///
    /// `noise_excess` (1 for white noise) multiplies them: the measured scatter of the filtered image over the
    /// expected one.
    pub(crate) fn new(false_alarms: f64, width: usize, height: usize, psf_sigma_px: f64, noise_excess: f64) -> Self {
        let pixels = (width * height) as f64;
        let (side_px, width_px) = (pixels.sqrt(), effective_sigma(psf_sigma_px));
        let octaves = (side_px / FIRST_OCTAVE_PX).log2().floor().max(1.0) as usize;
        let share = false_alarms / octaves as f64;
        let cells = pixels / (335.0 * width_px).powi(2);
        let threshold = |octave: usize| {
            let first_px = FIRST_OCTAVE_PX * 2_f64.powi(octave as i32);
            let last_px = if octave + 1 < octaves { 2.0 * first_px } else { side_px.max(2.0 * first_px) };
            solve(cells * rate_between(first_px, last_px, side_px, width_px), share) * noise_excess
        };
        Self { per_octave: (0..octaves).map(threshold).collect(), noise_excess }
    }

    /// The same where these are no lower than `least_snr`, and that elsewhere.
    pub(crate) fn at_least(mut self, least_snr: f64) -> Self {
        self.per_octave.iter_mut().for_each(|t| *t = t.max(least_snr));
        self
    }

    /// The threshold for a streak of this length.
    pub(crate) fn for_length(&self, length_px: f64) -> f64 {
        let octave = (length_px / FIRST_OCTAVE_PX).log2().floor().clamp(0.0, self.per_octave.len() as f64 - 1.0);
        self.per_octave[octave as usize]
    }

    /// The threshold of the most favoured length.
    pub(crate) fn lowest(&self) -> f64 {
        self.per_octave.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// `c · g` integrated over the octaves between two lengths.
fn rate_between(first_px: f64, last_px: f64, side_px: f64, psf_width_px: f64) -> f64 {
    const STEPS: usize = 32;
    let octaves = (last_px / first_px).log2();
    let at_step = |k: usize| {
        let length_px = first_px * 2_f64.powf(octaves * (k as f64 + 0.5) / STEPS as f64);
        rate_per_octave(length_px / psf_width_px) * room_for(length_px / side_px)
    };
    (0..STEPS).map(at_step).sum::<f64>() * octaves / STEPS as f64
}

/// `c`, interpolated.
fn rate_per_octave(length_widths: f64) -> f64 {
    let last = RATE_AT_5.len() - 1;
    let place = (length_widths / FIRST_LENGTH_WIDTHS).log2().clamp(0.0, last as f64);
    let below = (place as usize).min(last - 1);
    let beyond = place - below as f64;
    RATE_AT_5[below] * (1.0 - beyond) + RATE_AT_5[below + 1] * beyond
}

/// `g`: the share of streaks so many sides long that a frame has room for. Counted as `c`; a little is left for those
/// along the diagonal.
fn room_for(length_sides: f64) -> f64 {
    (1.0 - length_sides * length_sides).max(0.05)
}

/// S/N that a point needs for so many false alarms in a frame.
///
/// In white noise the PSF-filtered image is a Gaussian field of correlation exp(−r²/4σ²), whose maxima above `t` number
/// `pixels · t exp(−t²/2) / (2 (2π)^1.5 σ_eff²)` (Adler 1981), the larger `t` the nearer to it.
pub(crate) fn for_points(false_alarms: f64, pixels: usize, psf_sigma_px: f64, noise_excess: f64) -> f64 {
    let per_pixel = 0.5 / (std::f64::consts::TAU.powf(1.5) * effective_sigma(psf_sigma_px).powi(2));
    let log_rate = |t: f64| (pixels as f64 * per_pixel).ln() + t.ln() - 0.5 * t * t;
    noise_excess * falls_to(log_rate, false_alarms)
}

/// What the tiles of a filtered image say of its noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scatter {
    /// Scatter over what white noise of the measured rms would give: above 1 where neighbouring pixels are correlated
    /// (resampled frames, drizzling, interference) or the noise has tails. Never less than 1.
    ///
    /// It is the frame's own null: faint sources and streaks cover too little of a tile to change its clipped scatter.
    pub(crate) excess: f64,
    /// Fraction of the pixels that are usable.
    pub(crate) usable: f64,
}

impl Scatter {
    pub(crate) fn of(filtered: &[TileStatistics], mesh: Mesh, kernel: &PsfKernel) -> Self {
        let mut scatter: Vec<f64> = filtered.iter().filter(|t| t.n_clipped > 1).map(|t| f64::from(t.sd)).collect();
        scatter.sort_unstable_by(f64::total_cmp);
        let median = scatter.get(scatter.len() / 2).copied().unwrap_or(0.0);
        let excess = median / CLIPPED_SD / kernel.white_noise_sd();
        let n_usable: u64 = filtered.iter().map(|t| u64::from(t.n_usable)).sum();
        debug_assert!(filtered.iter().enumerate().all(|(i, t)| t.n_usable as usize <= mesh.area(i)), "another mesh");
        let n_pixels: usize = (0..mesh.len()).map(|i| mesh.area(i)).sum();
        Self {
            // What chance alone does to the median of a few tiles is left alone.
            excess: if excess > 1.03 { excess } else { 1.0 },
            usable: n_usable as f64 / n_pixels as f64,
        }
    }
}

/// The `t` at which `rate_at_5 · (t / 5)⁵ · exp((25 − t²) / 2)` falls to `wanted`, not below 3.
fn solve(rate_at_5: f64, wanted: f64) -> f64 {
    falls_to(|t| rate_at_5.ln() + 5.0 * (t / 5.0).ln() + 0.5 * (25.0 - t * t), wanted)
}

/// Where a rate falls to what is wanted, not below 3. Falling from √5 on: bisection cannot fail.
fn falls_to(log_rate: impl Fn(f64) -> f64, wanted: f64) -> f64 {
    let (mut low, mut high) = (3.0, 40.0);
    for _ in 0..60 {
        let t: f64 = 0.5 * (low + high);
        if log_rate(t) > wanted.ln() { low = t } else { high = t }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_follow_from_the_constants() {
        let t = Thresholds::new(0.01, 512, 512, 1.5, 1.0);
        // Octaves from 8 px: c·g there, and the root of the law by hand.
        assert_eq!(t.per_octave.len(), 6);
        for (octave, rate) in [(0, 0.296), (2, 0.79), (3, 1.01)] {
            let threshold = t.per_octave[octave];
            let law = rate * (threshold / 5.0).powi(5) * (0.5 * (25.0 - threshold * threshold)).exp();
            assert!((law / (0.01 / 6.0) - 1.0).abs() < 0.05, "octave {octave}: {law}");
        }
        assert_eq!(t.for_length(10.0), t.per_octave[0]);
        assert_eq!(t.for_length(3000.0), t.per_octave[5]);
    }

    #[test]
    fn larger_frames_need_more() {
        let at = |n: usize| Thresholds::new(0.01, n, n, 1.5, 1.0).for_length(100.0);
        assert!(at(512) < at(1024) && at(1024) < at(4096));
        // As many widths across, and as many widths long: the same noise.
        let scaled = Thresholds::new(0.01, 1024, 1024, (4.0 * effective_sigma(1.5).powi(2) - 1.0 / 12.0).sqrt(), 1.0);
        let plain = Thresholds::new(0.01, 512, 512, 1.5, 1.0);
        assert!((scaled.for_length(100.0) - plain.for_length(50.0)).abs() < 0.03);
    }

    #[test]
    fn scatter_is_that_of_the_usable_rows() {
        let (mesh, kernel) = (Mesh::new(128, 128, 64).with_half_of_rows(), PsfKernel::new(1.5));
        let sd = (1.2 * CLIPPED_SD * kernel.white_noise_sd()) as f32;
        let tile = TileStatistics { n_usable: 1536, n_clipped: 1530, sd, ..TileStatistics::default() };
        let scatter = Scatter::of(&[tile; 4], mesh, &kernel);
        assert!((scatter.excess - 1.2).abs() < 1e-5);
        assert_eq!(scatter.usable, 0.75);
    }

    #[test]
    fn any_frame_has_a_threshold() {
        for (width, height) in [(1, 1), (8, 8), (15, 15), (16, 16), (3, 2000), (4096, 4096)] {
            let t = Thresholds::new(0.01, width, height, 1.5, 1.0);
            assert!((3.0..8.0).contains(&t.lowest()), "{width} {height}: {t:?}");
        }
    }
}
