//! What stands still in the sky: the median of frames of one pointing, taken off a frame before it is searched.
//!
//! Method: docs/algorithm.md, "Reference".

use std::borrow::Cow;

use rayon::prelude::*;

use crate::{Error, Frame, Result};

/// The sky as it is without what moves: the middle of other frames of the same pointing, pixel by pixel.
///
/// Stars, galaxies, nebulae and the sensor's own pattern stand still; with [`Detector::detect_with`] they are taken off
/// a frame before it is searched. Frames must lie on each other to a fraction of a pixel: the detector does not move
/// them. Each of `n` frames adds noise to the difference, a factor of `√(1 + 1.6/n)` in all.
///
/// ```
/// use skystreak::{Detector, DetectorConfig, Device, Frame, Reference, Segment, simulate};
///
/// // Forty stars in a row, and in one of the frames a streak that runs along them.
/// let (width, height) = (300, 200);
/// let row = Segment::from_coordinates(40.0, 60.0, 260.0, 140.0);
/// let sky = |seed: u64| -> Vec<f32> {
///     let mut pixels = simulate::gaussian_frame(width, height, seed, 1.0);
///     for k in 0..40 {
///         let place = row.at(f64::from(k) / 39.0);
///         simulate::add_streak(&mut pixels, width, &Segment::new(place, place), 1.5, 60.0);
///     }
///     pixels
/// };
/// let others: Vec<Vec<f32>> = (1..6).map(sky).collect();
/// let frames: Vec<Frame> = others.iter().map(|p| Frame::new(p, width, height)).collect::<Result<_, _>>()?;
/// let reference = Reference::median(&frames)?;
///
/// let mut pixels = sky(6);
/// let truth = Segment::from_coordinates(60.0, 50.0, 220.0, 150.0);
/// simulate::add_streak(&mut pixels, width, &truth, 1.5, 700.0);
/// let config = DetectorConfig { device: Device::Cpu, psf_sigma_px: Some(1.5), ..DetectorConfig::default() };
/// let report = Detector::new(config)?.detect_with(&Frame::new(&pixels, width, height)?, &reference)?;
///
/// assert_eq!(report.detections.len(), 1);
/// assert!(report.detections[0].midpoint().distance(truth.midpoint()) < 3.0);
/// # Ok::<(), skystreak::Error>(())
/// ```
///
/// [`Detector::detect_with`]: crate::Detector::detect_with
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    width: usize,
    height: usize,
    /// ADU; NaN where nothing is known.
    pixels: Vec<f32>,
}

/// Pixels whose reference stands out of its sky by so many times its scatter tell how bright the frame's stars are
/// against the reference's: their noise no longer counts.
const BRIGHT_SIGMAS: f32 = 30.0;

/// With fewer such pixels the stars are taken to be as bright.
const LEAST_BRIGHT: usize = 50;

impl Reference {
    /// The lower middle of the frames' values at every pixel, after each frame's own median has been taken off. What
    /// lights a pixel in fewer than half of the frames leaves no trace; a pixel that no frame can use is missing.
    ///
    /// One frame will do, but its own streaks then show as dark ones, and its noise counts in full.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when there are no frames, or not all have the same shape.
    pub fn median(frames: &[Frame<'_>]) -> Result<Self> {
        let (width, height) = same_shape(frames)?;
        let levels: Vec<f32> = frames.iter().map(|f| middle_level(|i| f.usable_value(i), width * height)).collect();
        let middle = levels.iter().sum::<f32>() / levels.len() as f32;
        let pixels = (0..width * height).into_par_iter().map_init(Vec::new, |values, i| {
            values.clear();
            let seen = frames.iter().zip(&levels).filter_map(|(frame, level)| Some(frame.usable_value(i)? - level));
            values.extend(seen);
            values.sort_unstable_by(f32::total_cmp);
            values.get(values.len().saturating_sub(1) / 2).map_or(f32::NAN, |v| v + middle)
        });
        Ok(Self { width, height, pixels: pixels.collect() })
    }

    /// A picture of the sky from elsewhere, ADU, `[height, width]` row-major; NaN where nothing is known.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when there are not `width * height` pixels.
    pub fn from_pixels(pixels: Vec<f32>, width: usize, height: usize) -> Result<Self> {
        Frame::new(&pixels, width, height)?;
        Ok(Self { width, height, pixels })
    }

    /// The picture, ADU, `[height, width]` row-major; NaN where nothing is known.
    #[must_use]
    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    /// The frame without what stands still. What is missing in either is missing; a saturated pixel stays saturated.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when the frame has another shape.
    pub fn taken_off<'a>(&self, frame: &Frame<'a>) -> Result<Frame<'a>> {
        if (self.width, self.height) != (frame.width(), frame.height()) {
            return Err(Error::Input(format!(
                "a frame of {} x {} (width x height), the reference has {} x {}",
                frame.width(),
                frame.height(),
                self.width,
                self.height
            )));
        }
        let n = self.width * self.height;
        let level = middle_level(|i| frame.usable_value(i), n);
        let (own_level, scale) = self.scale_to(frame, level);
        let saturation = frame.saturates_at();
        let difference = (0..n).into_par_iter().map(|i| {
            let value = frame.pixels().value(i);
            match saturation {
                // Left at its level, which no difference reaches.
                Some(s) if value >= s as f32 => value,
                _ => value - scale * (self.pixels[i] - own_level),
            }
        });
        let mut without = frame.clone().with_pixels(difference.collect::<Vec<f32>>());
        if let Some(blank) = frame.blank() {
            let mask = (0..n).map(|i| frame.mask().is_some_and(|m| m[i]) || frame.is_blank(i, blank));
            without = without.with_mask(Cow::Owned(mask.collect()))?;
        }
        Ok(match saturation {
            Some(level) => without.with_saturation(level),
            None => without,
        })
    }

    /// Level of the reference's sky, and how bright the frame's stars are in units of the reference's.
    fn scale_to(&self, frame: &Frame<'_>, level: f32) -> (f32, f32) {
        let finite = |i: usize| Some(self.pixels[i]).filter(|v| v.is_finite());
        let own_level = middle_level(finite, self.pixels.len());
        let scatter = 1.48 * middle_level(|i| finite(i).map(|v| (v - own_level).abs()), self.pixels.len());
        let ratio = |i: usize| {
            let over = self.pixels[i] - own_level;
            (over > BRIGHT_SIGMAS * scatter).then(|| Some((frame.usable_value(i)? - level) / over)).flatten()
        };
        let mut ratios: Vec<f32> = (0..self.pixels.len()).into_par_iter().filter_map(ratio).collect();
        if ratios.len() < LEAST_BRIGHT {
            return (own_level, 1.0);
        }
        let middle = ratios.len() / 2;
        (own_level, ratios.select_nth_unstable_by(middle, f32::total_cmp).1.max(0.0))
    }
}

/// The common shape of some frames.
pub(crate) fn same_shape(frames: &[Frame<'_>]) -> Result<(usize, usize)> {
    let shape = |f: &Frame<'_>| (f.width(), f.height());
    let Some(first) = frames.first().map(shape) else {
        return Err(Error::Input("no frames to compare with".into()));
    };
    match frames.iter().map(shape).find(|other| *other != first) {
        None => Ok(first),
        Some(other) => Err(Error::Input(format!(
            "frames of {} x {} and of {} x {} (width x height): they must have one shape",
            first.0, first.1, other.0, other.1
        ))),
    }
}

/// Pixels that the level of a whole frame is taken from at most: it is then known to a hundredth of the noise.
const LEVEL_PIXELS: usize = 1 << 16;

/// Middle of the known values, of an even sample of the pixels; 0 where none is known.
pub(crate) fn middle_level(value: impl Fn(usize) -> Option<f32>, n: usize) -> f32 {
    // An odd step meets every column.
    let step = (n / LEVEL_PIXELS) | 1;
    let mut values: Vec<f32> = (0..n).step_by(step).filter_map(value).collect();
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_leaves_no_trace() {
        // A level of 100 + k, a star of 50, and something that moves on by a pixel from frame to frame.
        let frames: Vec<Vec<u16>> = (0..5)
            .map(|k| {
                (0..64).map(|i| 100 + k + if i == 7 { 50 } else { 0 } + if i == 20 + k { 30 } else { 0 }).collect()
            })
            .collect();
        let frames: Vec<Frame<'_>> = frames.iter().map(|p| Frame::new(p, 8, 8).unwrap()).collect();
        let reference = Reference::median(&frames).unwrap();
        let expected = |i: usize| if i == 7 { 152.0 } else { 102.0 };
        assert!((0..64).all(|i| (reference.pixels()[i] - expected(i)).abs() < 1e-4), "{:?}", reference.pixels());

        let left = reference.taken_off(&frames[3]).unwrap();
        let value = |i: usize| left.usable_value(i).unwrap();
        assert!((value(0) - 103.0).abs() < 1e-3 && (value(7) - 103.0).abs() < 1e-3 && (value(23) - 133.0).abs() < 1e-3);
    }

    #[test]
    fn brighter_stars_are_taken_off_brighter() {
        let noise = |i: usize| ((i * 7919) % 5) as f32;
        let star = |i: usize| if i % 8 == 3 { 1000.0 } else { 0.0 };
        let reference = Reference::from_pixels((0..1024).map(|i| noise(i) + star(i)).collect(), 32, 32).unwrap();
        let pixels: Vec<f32> = (0..1024).map(|i| 500.0 + noise(i) + 1.3 * star(i)).collect();
        let left = reference.taken_off(&Frame::new(&pixels, 32, 32).unwrap()).unwrap();
        assert!((0..1024).all(|i| (left.usable_value(i).unwrap() - 502.0).abs() < 6.0));
    }

    #[test]
    fn missing_and_saturated_pixels_stay_so() {
        let mut known = vec![10.0_f32; 16];
        known[2] = f32::NAN;
        let reference = Reference::from_pixels(known, 4, 4).unwrap();
        let mut pixels = vec![20_i16; 16];
        (pixels[5], pixels[6]) = (-1, 900);
        let frame = Frame::new(pixels, 4, 4).unwrap().with_blank(-1).with_saturation(900.0);
        let left = reference.taken_off(&frame).unwrap();
        let missing: Vec<usize> = (0..16).filter(|&i| left.usable_value(i).is_none()).collect();
        assert_eq!(missing, [2, 5, 6]);
        assert_eq!((left.saturates_at(), left.pixels().value(6)), (Some(900.0), 900.0));
    }

    #[test]
    fn shapes_have_to_agree() {
        assert!(Reference::median(&[]).is_err());
        let frames = [Frame::new(vec![0_u8; 16], 4, 4).unwrap(), Frame::new(vec![0_u8; 16], 2, 8).unwrap()];
        assert!(Reference::median(&frames).is_err());
        assert!(Reference::median(&frames[..1]).unwrap().taken_off(&frames[1]).is_err());
    }
}
