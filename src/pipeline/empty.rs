//! Before the first stage: areas of a frame that hold no data, filled with one value by whoever made the frame (mosaics
//! and resampled frames with zeros around them, gaps between chips, a dead quadrant).
//!
//! They are left out as masked pixels are: neither has noise, and what borders on them is no streak.

use rayon::prelude::*;

use crate::frame::Pixels;
use crate::{Frame, Result};

/// Side of the squares of equal pixels that show such an area, px: no noise makes one. They are looked for every half of it.
const BLOCK: usize = 8;

/// Pixels that are looked at to tell how bright most are.
const SAMPLE: usize = 1 << 14;

/// Values that areas may be filled with, the most frequent ones.
const MOST_VALUES: usize = 8;

/// In a block that holds data less than this part of the pixels have one of these values; of the blocks that are not
/// empty at least this part hold data. Else the frame is one of hardly any noise, most of whose pixels are equal.
const HALF: f64 = 0.5;

/// A pixel is empty as part of a square of so many equal ones to either side of its centre, which noise does not make
/// where [`HALF`] holds.
const CORE: usize = 2;

/// So many pixels around an area are left out as well: resampling mixed them with what is not there.
const RIM: usize = 3;

/// The frame with such areas masked, and whether there are any.
pub(crate) fn leave_out<'f>(frame: &'f Frame<'_>) -> Result<(Frame<'f>, bool)> {
    let whole = frame.as_borrowed();
    let (width, height) = (frame.width(), frame.height());
    let saturation = frame.saturates_at().map_or(f32::INFINITY, |s| s as f32);
    let is_blank = |v: i32| frame.blank() == Some(v);
    let found = match frame.pixels() {
        Pixels::U8(p) => areas(p, width, height, |v| f32::from(v) >= saturation || is_blank(i32::from(v))),
        Pixels::U16(p) => areas(p, width, height, |v| f32::from(v) >= saturation || is_blank(i32::from(v))),
        Pixels::I16(p) => areas(p, width, height, |v| f32::from(v) >= saturation || is_blank(i32::from(v))),
        Pixels::I32(p) => areas(p, width, height, |v| v as f32 >= saturation || is_blank(v)),
        Pixels::F32(p) => areas(p, width, height, |v| v >= saturation),
    };
    let Some(mut empty) = found else { return Ok((whole, false)) };
    if let Some(mask) = frame.mask() {
        empty.par_iter_mut().zip(mask).for_each(|(e, masked)| *e |= masked);
    }
    Ok((whole.with_mask(empty)?, true))
}

/// True in such areas and around them; none where there are none. A value that is to be left alone is no filling.
fn areas<T: Copy + PartialOrd + Sync + Send>(
    pixels: &[T],
    width: usize,
    height: usize,
    leave_alone: impl Fn(T) -> bool,
) -> Option<Vec<bool>> {
    let block = |x: usize, y: usize| (y..y + BLOCK).flat_map(move |y| &pixels[y * width + x..][..BLOCK]);
    let value_of = |x: usize, y: usize| {
        let first = pixels[y * width + x];
        block(x, y).all(|v| *v == first).then_some(first)
    };
    let (right, bottom) = (width.checked_sub(BLOCK)?, height.checked_sub(BLOCK)?);
    let all = |step: usize| (0..bottom / step + 1).into_par_iter().map(move |i| i * step);
    let empty: Vec<T> =
        all(BLOCK / 2).flat_map_iter(|y| (0..=right).step_by(BLOCK / 2).filter_map(move |x| value_of(x, y))).collect();
    if empty.is_empty() {
        return None;
    }
    // Full pixels, too, have one value, but few of the others are as bright.
    let mut values = most_frequent(&empty);
    let dark = dark_part(pixels, &values)?;
    values.retain(|v| !leave_alone(*v) && *v <= dark);
    if values.is_empty() {
        return None;
    }
    let filled: Vec<bool> = pixels.par_iter().map(|p| values.contains(p)).collect();
    let part_filled = |x: usize, y: usize| {
        let n = (y..y + BLOCK).map(|y| filled[y * width + x..][..BLOCK].iter().filter(|f| **f).count()).sum::<usize>();
        n as f64 / (BLOCK * BLOCK) as f64
    };
    // Of the blocks that are not empty, those that hold data.
    let (n, with_data) = all(BLOCK)
        .flat_map_iter(|y| (0..=right).step_by(BLOCK).map(move |x| (x, y)))
        .map(|(x, y)| part_filled(x, y))
        .filter(|part| *part < 1.0)
        .map(|part| (1_usize, usize::from(part < HALF)))
        .reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    if n == 0 || (with_data as f64) < HALF * n as f64 {
        return None;
    }
    let core = over_squares(&filled, width, CORE, |square| square.iter().all(|f| *f));
    Some(over_squares(&core, width, CORE + RIM, |square| square.contains(&true)))
}

/// Of the pixels that have none of these values nine in ten are no brighter than this, by a sample; none where there are no
/// such pixels.
fn dark_part<T: Copy + PartialOrd>(pixels: &[T], values: &[T]) -> Option<T> {
    let step = (pixels.len() / SAMPLE).max(1) | 1;
    let mut others: Vec<T> = pixels.iter().step_by(step).copied().filter(|p| !values.contains(p)).collect();
    // Not a number stands anywhere, and tells nothing.
    others.retain(|p| p.partial_cmp(p).is_some());
    others.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    others.get(others.len() * 9 / 10).copied()
}

/// Distinct values, the most frequent first, and no more than [`MOST_VALUES`].
fn most_frequent<T: Copy + PartialEq>(all: &[T]) -> Vec<T> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for value in all {
        if let Some((_, n)) = counts.iter_mut().find(|(v, _)| v == value) {
            *n += 1;
        } else if counts.len() < 8 * MOST_VALUES {
            counts.push((*value, 1));
        }
    }
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    counts.into_iter().take(MOST_VALUES).map(|(v, _)| v).collect()
}

/// What `of` says of the line of pixels up to `reach` to either side of each, along the rows and then along the columns.
/// Lines end at the border.
fn over_squares(flags: &[bool], width: usize, reach: usize, of: impl Fn(&[bool]) -> bool + Sync) -> Vec<bool> {
    let height = flags.len() / width;
    let around = |i: usize, n: usize| i.saturating_sub(reach)..(i + reach + 1).min(n);
    let along_rows: Vec<bool> =
        flags.par_chunks(width).flat_map_iter(|row| (0..width).map(|x| of(&row[around(x, width)]))).collect();
    (0..height)
        .into_par_iter()
        .flat_map_iter(|y| {
            let mut column = Vec::with_capacity(2 * reach + 1);
            let (rows, of) = (around(y, height), &of);
            let along_rows = &along_rows;
            (0..width).map(move |x| {
                column.clear();
                column.extend(rows.clone().map(|y| along_rows[y * width + x]));
                of(&column)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::gaussian_frame;

    fn noisy(width: usize, height: usize, sd: f32) -> Vec<i16> {
        gaussian_frame(width, height, 3, sd).iter().map(|v| v.round() as i16).collect()
    }

    fn left_out(pixels: &[i16], width: usize, height: usize) -> Option<Vec<bool>> {
        let frame = Frame::new(pixels, width, height).unwrap();
        let (masked, found) = leave_out(&frame).unwrap();
        assert_eq!(found, masked.mask().is_some());
        masked.mask().map(<[bool]>::to_vec)
    }

    #[test]
    fn an_area_and_its_rim_are_left_out_and_no_noise() {
        let (width, height) = (200, 150);
        // A tenth of the noise has the value of the area.
        let mut pixels = noisy(width, height, 4.0);
        let inside = |x: usize, y: usize| x + 2 * y < 130 || (100..117).contains(&x);
        for (i, pixel) in pixels.iter_mut().enumerate() {
            if inside(i % width, i / width) {
                *pixel = 0;
            }
        }
        let missing = left_out(&pixels, width, height).unwrap();
        for (i, missing) in missing.iter().enumerate() {
            let (x, y) = (i % width, i / width);
            let near = |dx: i64, dy: i64| {
                let (x, y) = (x as i64 + dx, y as i64 + dy);
                x >= 0 && y >= 0 && inside(x as usize, y as usize)
            };
            let is_far = !(-5..=5).any(|dx| (-5..=5).any(|dy| near(dx, dy)));
            // No square has room in its tips.
            let in_tip = (y < 10 && x > 110) || (y > 55 && x < 20);
            assert!(*missing || !inside(x, y) || in_tip, "({x}, {y}) is empty");
            assert!(!*missing || !is_far, "({x}, {y}) holds data");
        }
    }

    #[test]
    fn what_has_no_such_areas_is_left_as_it_is() {
        let (width, height) = (200, 150);
        assert_eq!(left_out(&noisy(width, height, 0.5), width, height), None, "coarse steps");
        assert_eq!(left_out(&noisy(width, height, 0.15), width, height), None, "hardly any noise");
        assert_eq!(left_out(&vec![7; width * height], width, height), None, "all alike");
        let mut burnt = noisy(width, height, 4.0);
        for y in 40..70 {
            burnt[y * width + 60..y * width + 90].fill(900);
        }
        burnt[100] = 1000;
        assert_eq!(left_out(&burnt, width, height), None, "full pixels");
    }

    #[test]
    fn gaps_of_twelve_pixels_are_found_wherever_they_are() {
        let (width, height) = (120, 90);
        for first in 40..52 {
            let mut pixels = noisy(width, height, 4.0);
            (0..height).for_each(|y| pixels[y * width + first..][..12].fill(0));
            let missing = left_out(&pixels, width, height).unwrap();
            assert!(
                (0..width * height).all(|i| missing[i] == (first - 3..first + 15).contains(&(i % width))),
                "{first}"
            );
        }
    }

    #[test]
    fn the_given_mask_stays() {
        let (width, height) = (64, 64);
        let mut pixels = noisy(width, height, 4.0);
        pixels[..16 * width].fill(0);
        let mut mask = vec![false; width * height];
        mask[40 * width + 5] = true;
        let frame = Frame::new(&pixels, width, height).unwrap().with_mask(mask).unwrap();
        let (masked, found) = leave_out(&frame).unwrap();
        let missing = masked.mask().unwrap();
        assert!(found && missing[40 * width + 5] && missing[(16 + RIM) * width - 1] && !missing[(16 + RIM) * width]);
    }
}
