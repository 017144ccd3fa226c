//! White noise without sky, stars or digitisation: the cheap scene of statistical tests.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use super::unit_stamp;
use crate::Segment;

/// The generator of one ingredient of a scene, one row or one draw of it: independent of all others.
pub(super) fn generator(seed: u64, ingredient: u32, row: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(ingredient) << 32 | row as u64);
    rng
}

/// Gaussian noise of rms `sigma_n` around zero, `[height, width]` in row-major order.
///
/// Rows have generators of their own: threads do not change the result, and one seed gives one frame.
///
/// ```
/// use skystreak::simulate::gaussian_frame;
///
/// let pixels = gaussian_frame(64, 48, 7, 2.0);
/// assert_eq!(pixels.len(), 64 * 48);
/// assert_eq!(pixels, gaussian_frame(64, 48, 7, 2.0));
/// ```
#[must_use]
pub fn gaussian_frame(width: usize, height: usize, seed: u64, sigma_n: f32) -> Vec<f32> {
    let mut pixels = vec![0.0; width * height];
    pixels.par_chunks_mut(width.max(1)).enumerate().for_each(|(y, row)| {
        let mut rng = generator(seed, 0, y);
        for pixel in row {
            let deviate: f32 = rng.sample(StandardNormal);
            *pixel = sigma_n * deviate;
        }
    });
    pixels
}

/// Adds the light of a streak, or of a point where the segment has no length, to rows of `width` pixels.
///
/// The flux has the unit of the pixels; `flux = snr · sigma_n / unit_stamp(..).norm()` gives a wanted S/N.
///
/// # Panics
///
/// When the pixels are not whole rows.
///
/// ```
/// use skystreak::{Segment, simulate::add_streak};
///
/// let mut pixels = vec![0.0; 64 * 48];
/// add_streak(&mut pixels, 64, &Segment::from_coordinates(20.0, 20.0, 40.0, 30.0), 1.4, 500.0);
/// assert!((pixels.iter().sum::<f32>() - 500.0).abs() < 0.01);
/// ```
pub fn add_streak(pixels: &mut [f32], width: usize, segment: &Segment, psf_sigma_px: f64, flux: f64) {
    assert!(width > 0 && pixels.len().is_multiple_of(width), "{} pixels in rows of {width}", pixels.len());
    let stamp = unit_stamp(segment, psf_sigma_px, width, pixels.len() / width);
    for (x, y, share) in stamp.pixels() {
        pixels[y * width + x] += (flux * share) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_moments_asked_for() {
        // 10^6 pixels: mean and rms scatter by 0.001 and 0.0007 of the rms; seven times that is 1 in 10^11.
        let pixels = gaussian_frame(1000, 1000, 20, 3.0);
        let mean = pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / 1e6;
        let rms = (pixels.iter().map(|&p| f64::from(p).powi(2)).sum::<f64>() / 1e6).sqrt();
        assert!(mean.abs() < 0.021 && (rms - 3.0).abs() < 0.015, "{mean} {rms}");
        assert_ne!(pixels[..1000], gaussian_frame(1000, 1, 21, 3.0)[..], "another seed");
        assert_ne!(pixels[..1000], pixels[1000..2000], "another row");
    }
}
