//! The false-alarm law: from false alarms per frame to a S/N threshold per length octave.
//!
//! Counted on the refined statistic in white Gaussian noise (docs/algorithm.md, "Threshold"), the expected number of
//! false alarms above `t` in one octave of lengths is
//!
//! `rate(t) = c · (pixels / 512²) · (1.527 / σ_eff)² · (t / 5)⁵ · exp((25 − t²) / 2)`.

use crate::pipeline::background::{CLIPPED_SD, TileStatistics};
use crate::pipeline::psf::{PsfKernel, effective_sigma};

/// Constant of the law for a frame of 512² pixels at PSF sigma 1.5 px, by octave of the length: from 8, 16, 32, 64, 128,
/// and all from 256 px. Counted at the thresholds in use (docs/accuracy.md).
const RATE_AT_5: [f64; 6] = [0.29, 0.49, 0.79, 0.95, 0.97, 0.73];

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
    /// Thresholds with an equal share of `false_alarms` in each octave up to `longest_px`.
    ///
    /// `noise_excess` (1 for white noise) multiplies them: the measured scatter of the filtered image over the
    /// expected one.
    pub(crate) fn new(false_alarms: f64, pixels: usize, psf_sigma_px: f64, longest_px: f64, noise_excess: f64) -> Self {
        let octaves = (longest_px / FIRST_OCTAVE_PX).log2().ceil().clamp(1.0, RATE_AT_5.len() as f64) as usize;
        let cells = pixels as f64 / (512.0 * 512.0) * (effective_sigma(1.5) / effective_sigma(psf_sigma_px)).powi(2);
        let share = false_alarms / octaves as f64;
        let per_octave = RATE_AT_5[..octaves].iter().map(|c| solve(c * cells, share) * noise_excess).collect();
        Self { per_octave, noise_excess }
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

/// Scatter of the filtered image over what white noise of the measured rms would give: above 1 where neighbouring
/// pixels are correlated (resampled frames, drizzling, interference) or the noise has tails. Never less than 1.
///
/// It is the frame's own null: faint sources and streaks cover too little of a tile to change its clipped scatter.
pub(crate) fn noise_excess(filtered: &[TileStatistics], kernel: &PsfKernel) -> f64 {
    let mut scatter: Vec<f64> = filtered.iter().filter(|t| t.n_clipped > 1).map(|t| f64::from(t.sd)).collect();
    scatter.sort_unstable_by(f64::total_cmp);
    let median = scatter.get(scatter.len() / 2).copied().unwrap_or(0.0);
    let excess = median / CLIPPED_SD / kernel.white_noise_sd();
    // What chance alone does to the median of a few tiles is left alone.
    if excess > 1.03 { excess } else { 1.0 }
}

/// The `t` at which `rate_at_5 · (t / 5)⁵ · exp((25 − t²) / 2)` falls to `wanted`, not below 3.
fn solve(rate_at_5: f64, wanted: f64) -> f64 {
    // Falling from sqrt(5) on: bisection cannot fail.
    let (mut low, mut high) = (3.0, 40.0);
    for _ in 0..60 {
        let t: f64 = 0.5 * (low + high);
        let log_rate = rate_at_5.ln() + 5.0 * (t / 5.0).ln() + 0.5 * (25.0 - t * t);
        if log_rate > wanted.ln() { low = t } else { high = t }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_follow_from_the_constants() {
        let t = Thresholds::new(0.01, 512 * 512, 1.5, 700.0, 1.0);
        let expected = [6.11, 6.21, 6.3, 6.34, 6.34, 6.29];
        for (a, b) in t.per_octave.iter().zip(expected) {
            assert!((a - b).abs() < 0.02, "{a} {b}");
        }
        assert_eq!(t.for_length(10.0), t.per_octave[0]);
        assert_eq!(t.for_length(3000.0), t.per_octave[5]);
    }

    #[test]
    fn larger_frames_need_more() {
        let at = |n: usize| Thresholds::new(0.01, n * n, 1.5, n as f64, 1.0).for_length(100.0);
        assert!(at(512) < at(1024) && at(1024) < at(4096));
    }
}
