//! Full pixels that touch, as patches, and what lies around them.

use rayon::prelude::*;

use crate::frame::Frame;
use crate::geometry::Point;
use crate::pipeline::background::BackgroundMap;

/// Beside a full pixel one is full too from this part of the light on that fills one: the noise of the readout scatters
/// them.
const NEARLY_FULL: f64 = 0.97;

/// Full pixels that touch, and the pixels around them.
pub(super) struct Patch {
    /// Those up to `n_full` are full.
    pub(super) pixels: Vec<usize>,
    pub(super) n_full: usize,
}

/// The patches of a frame, each with the pixels around it that are nearest to it.
pub(super) fn patches(frame: &Frame<'_>, sky: &BackgroundMap, around_px: usize) -> Vec<Patch> {
    let Some(full) = frame.saturates_at() else { return Vec::new() };
    let (width, height) = (frame.width(), frame.height());
    let is_from = |i: usize, level: f64| f64::from(frame.pixels().value(i)) >= level && !is_missing(frame, i);
    let mut taken = vec![false; width * height];
    let mut patches = Vec::new();
    let seeds: Vec<usize> = (0..width * height).into_par_iter().filter(|&i| is_from(i, full)).collect();
    for i in seeds {
        if taken[i] {
            continue;
        }
        taken[i] = true;
        let level = f64::from(sky.at(i % width, i / width).0);
        let nearly_full = level + NEARLY_FULL * (full - level).max(0.0);
        let mut pixels = vec![i];
        let mut next = 0;
        while let Some(&pixel) = pixels.get(next) {
            next += 1;
            for n in neighbours(pixel, width, height) {
                if !taken[n] && is_from(n, nearly_full) {
                    taken[n] = true;
                    pixels.push(n);
                }
            }
        }
        patches.push(Patch { n_full: pixels.len(), pixels });
    }
    // All of them grow in step, so that each takes what is nearest to it.
    let mut rims: Vec<usize> = vec![0; patches.len()];
    for _ in 0..around_px {
        for (patch, rim) in patches.iter_mut().zip(&mut rims) {
            for k in std::mem::replace(rim, patch.pixels.len())..patch.pixels.len() {
                for n in neighbours(patch.pixels[k], width, height) {
                    if !taken[n] {
                        taken[n] = true;
                        patch.pixels.push(n);
                    }
                }
            }
        }
    }
    patches
}

/// Where a pixel lies.
pub(super) fn place(i: usize, frame: &Frame<'_>) -> Point {
    Point::new((i % frame.width()) as f64, (i / frame.width()) as f64)
}

/// The pixels that touch one.
fn neighbours(pixel: usize, width: usize, height: usize) -> impl Iterator<Item = usize> {
    let (x, y) = (pixel % width, pixel / width);
    let rows = y.saturating_sub(1)..(y + 2).min(height);
    rows.flat_map(move |row| (x.saturating_sub(1)..(x + 2).min(width)).map(move |column| row * width + column))
        .filter(move |n| *n != pixel)
}

pub(super) fn is_missing(frame: &Frame<'_>, i: usize) -> bool {
    !frame.pixels().value(i).is_finite()
        || frame.mask().is_some_and(|mask| mask[i])
        || frame.blank().is_some_and(|blank| frame.is_blank(i, blank))
}

/// A pixel's value, or where it is missing its neighbours'.
pub(super) fn filled_value(frame: &Frame<'_>, i: usize) -> f32 {
    if !is_missing(frame, i) {
        return frame.pixels().value(i);
    }
    let seen = neighbours(i, frame.width(), frame.height()).filter(|&n| !is_missing(frame, n));
    let (sum, count) = seen.fold((0.0, 0.0_f32), |(sum, count), n| (sum + frame.pixels().value(n), count + 1.0));
    sum / count.max(1.0)
}
