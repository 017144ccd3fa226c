//! The point spread function: a Gaussian, pixel integration included as an effective width.

/// Variance of a pixel's own box, px²: `sigma_eff² = sigma² + 1/12` stands for pixel integration.
///
/// The S/N lost by it is below 1e-4 at sigma 0.5 px and less above (docs/algorithm.md, "Pixel integration").
const PIXEL_VARIANCE_PX2: f64 = 1.0 / 12.0;

/// Width of the Gaussian that, sampled at pixel centres, stands for a Gaussian of `sigma_px` integrated over pixels.
pub(crate) fn effective_sigma(sigma_px: f64) -> f64 {
    (sigma_px * sigma_px + PIXEL_VARIANCE_PX2).sqrt()
}

/// The inverse of [`effective_sigma`]; 0 where the width is all pixel.
pub(crate) fn optical_sigma(sigma_eff_px: f64) -> f64 {
    (sigma_eff_px * sigma_eff_px - PIXEL_VARIANCE_PX2).max(0.0).sqrt()
}

/// One axis of the separable PSF filter: `2·radius + 1` taps, which sum to one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PsfKernel {
    pub(crate) taps: Vec<f32>,
    pub(crate) sigma_eff_px: f64,
}

impl PsfKernel {
    /// Taps of a PSF of `sigma_px`, cut off at four widths.
    pub(crate) fn new(sigma_px: f64) -> Self {
        let sigma = effective_sigma(sigma_px);
        let radius = (4.0 * sigma).ceil() as i32;
        let raw: Vec<f64> = (-radius..=radius).map(|i| (-0.5 * (f64::from(i) / sigma).powi(2)).exp()).collect();
        let sum: f64 = raw.iter().sum();
        Self { taps: raw.iter().map(|t| (t / sum) as f32).collect(), sigma_eff_px: sigma }
    }

    #[cfg(any(test, feature = "gpu"))]
    pub(crate) fn radius(&self) -> usize {
        self.taps.len() / 2
    }

    /// Autocorrelation of one axis at lags 0, 1, ... 2·radius.
    pub(crate) fn autocorrelation(&self) -> Vec<f64> {
        let taps: Vec<f64> = self.taps.iter().map(|&t| f64::from(t)).collect();
        (0..taps.len()).map(|lag| taps.iter().zip(&taps[lag..]).map(|(a, b)| a * b).sum()).collect()
    }

    /// Standard deviation of the filtered image where the input is white with unit variance.
    pub(crate) fn white_noise_sd(&self) -> f64 {
        self.autocorrelation()[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_noise_matches_the_continuous_limit() {
        let kernel = PsfKernel::new(1.5);
        let continuous = 1.0 / (2.0 * std::f64::consts::PI.sqrt() * kernel.sigma_eff_px);
        assert!((kernel.white_noise_sd() / continuous - 1.0).abs() < 1e-3);
        assert!((kernel.taps.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn widths_go_there_and_back() {
        assert!((optical_sigma(effective_sigma(0.7)) - 0.7).abs() < 1e-12);
    }
}
