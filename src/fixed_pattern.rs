//! What stands still on the detector: pixels, columns and rows that are off at the same place whatever is in the sky.
//!
//! Method: docs/algorithm.md, "Reference".

use rayon::prelude::*;

use crate::reference::{middle_level, same_shape};
use crate::{Error, Frame, Reference, Result};

/// The fixed pattern of a detector, as a mask: what recurs at the same place in frames of different pointing.
///
/// Hot and dead pixels are single ones; where a whole column or row is off by little it is left out as a whole.
///
/// ```
/// use skystreak::{FixedPattern, Frame, simulate};
///
/// // A column as much above its neighbours as a pixel is noisy: no single pixel shows it.
/// let (width, height) = (100, 80);
/// let frames: Vec<Vec<f32>> = (1..6)
///     .map(|seed| {
///         let mut pixels = simulate::gaussian_frame(width, height, seed, 1.0);
///         (0..height).for_each(|y| pixels[y * width + 30] += 1.0);
///         pixels[40 * width + 70] += 20.0;
///         pixels
///     })
///     .collect();
/// let frames: Vec<Frame> = frames.iter().map(|p| Frame::new(p, width, height)).collect::<Result<_, _>>()?;
/// let pattern = FixedPattern::of(&frames)?;
///
/// assert!(pattern.mask()[30] && pattern.mask()[40 * width + 70] && !pattern.mask()[50]);
/// let left = pattern.left_out_of(frames[0].clone())?;
/// assert_eq!(left.usable_value(30), None);
/// # Ok::<(), skystreak::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedPattern {
    width: usize,
    height: usize,
    mask: Vec<bool>,
}

/// With fewer frames a star may still be in the middle of them.
const LEAST_FRAMES: usize = 3;

/// A pixel, or the median of a line, is off by so many times its scatter.
const OFF_SIGMAS: f32 = 6.0;

/// A line is compared with the median of those up to this far to either side.
const HALF_WINDOW: usize = 5;

impl FixedPattern {
    /// From at least three frames of different pointing, better from five to ten: no star may lie in one place in half
    /// of them.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when there are fewer than three frames, or not all have the same shape.
    pub fn of(frames: &[Frame<'_>]) -> Result<Self> {
        let (width, height) = same_shape(frames)?;
        if frames.len() < LEAST_FRAMES {
            return Err(Error::Input(format!(
                "{} frames: a fixed pattern needs at least {LEAST_FRAMES} of different pointing",
                frames.len()
            )));
        }
        let middle = Reference::median(frames)?;
        let off = off_neighbours(middle.pixels(), width, height);
        let scatter = 1.48 * middle_level(|i| Some(off[i].abs()).filter(|v| v.is_finite()), off.len());
        // Whole lines as they are: what a column shares its neighbours above and below share as well.
        let columns = off_lines(width, height, |line, i| middle.pixels()[i * width + line]);
        let rows = off_lines(height, width, |line, i| middle.pixels()[line * width + i]);
        let mask = (0..width * height).into_par_iter().map(|i| {
            let alone = !middle.pixels()[i].is_finite() || off[i].abs() > OFF_SIGMAS * scatter;
            alone || columns[i % width] || rows[i / width]
        });
        Ok(Self { width, height, mask: mask.collect() })
    }

    /// True where the detector is not to be believed, `[height, width]` row-major.
    #[must_use]
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// The frame without these pixels, besides those its own mask leaves out.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when the frame has another shape.
    pub fn left_out_of<'a>(&self, frame: Frame<'a>) -> Result<Frame<'a>> {
        if (self.width, self.height) != (frame.width(), frame.height()) {
            return Err(Error::Input(format!(
                "a frame of {} x {} (width x height), the fixed pattern has {} x {}",
                frame.width(),
                frame.height(),
                self.width,
                self.height
            )));
        }
        let both = |(i, off): (usize, &bool)| *off || frame.mask().is_some_and(|m| m[i]);
        let mask: Vec<bool> = self.mask.iter().enumerate().map(both).collect();
        frame.with_mask(mask)
    }
}

/// Every pixel less the median of its eight neighbours.
fn off_neighbours(pixels: &[f32], width: usize, height: usize) -> Vec<f32> {
    let around = |i: usize| {
        let (x, y) = (i % width, i / width);
        let mut values: Vec<f32> = (y.saturating_sub(1)..(y + 2).min(height))
            .flat_map(|row| (x.saturating_sub(1)..(x + 2).min(width)).map(move |column| row * width + column))
            .filter(|j| *j != i && pixels[*j].is_finite())
            .map(|j| pixels[j])
            .collect();
        values.sort_unstable_by(f32::total_cmp);
        pixels[i] - values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    (0..pixels.len()).into_par_iter().map(around).collect()
}

/// Which of `n` lines differ from those beside them.
fn off_lines(n: usize, length: usize, value: impl Fn(usize, usize) -> f32 + Sync) -> Vec<bool> {
    let level = |line: usize| {
        let known = |i: usize| Some(value(line, i)).filter(|v| v.is_finite());
        middle_level(known, length)
    };
    let levels: Vec<f32> = (0..n).into_par_iter().map(level).collect();
    let beside = |line: usize| {
        let others = line.saturating_sub(HALF_WINDOW)..(line + HALF_WINDOW + 1).min(n);
        let mut values: Vec<f32> = others.filter(|l| *l != line).map(|l| levels[l]).collect();
        values.sort_unstable_by(f32::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(levels[line])
    };
    let off: Vec<f32> = (0..n).map(|line| levels[line] - beside(line)).collect();
    let scatter = 1.48 * middle_level(|line| Some(off[line].abs()), n);
    off.iter().map(|v| v.abs() > OFF_SIGMAS * scatter.max(f32::MIN_POSITIVE)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::gaussian_frame;

    #[test]
    fn stars_are_no_fixed_pattern() {
        let frames: Vec<Vec<f32>> = (0..5)
            .map(|k| {
                let mut pixels = gaussian_frame(64, 64, k, 1.0);
                pixels[64 * 30 + 10 + 4 * k as usize] += 500.0;
                (0..64).for_each(|x| pixels[64 * 20 + x] -= 1.0);
                pixels[64 * 50 + 50] = -80.0;
                pixels
            })
            .collect();
        let frames: Vec<Frame<'_>> = frames.iter().map(|p| Frame::new(p, 64, 64).unwrap()).collect();
        let pattern = FixedPattern::of(&frames).unwrap();
        let left_out: Vec<usize> = (0..64 * 64).filter(|i| pattern.mask()[*i]).collect();
        let row = 64 * 20..64 * 21;
        assert!(row.clone().all(|i| pattern.mask()[i]), "a row that is too dark by one noise");
        assert!(pattern.mask()[64 * 50 + 50], "a dead pixel");
        assert_eq!(left_out.len(), 65, "and nothing else: {left_out:?}");
    }

    #[test]
    fn two_frames_do_not_tell() {
        let frames = [Frame::new(vec![0_u8; 16], 4, 4).unwrap(), Frame::new(vec![0_u8; 16], 4, 4).unwrap()];
        assert!(FixedPattern::of(&frames).is_err());
    }
}
