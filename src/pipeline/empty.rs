//! Before the first stage: areas of a frame that hold no data, filled with one value by whoever made the frame (mosaics
//! and resampled frames with zeros around them, gaps between chips, a dead quadrant).
//!
//! They are left out as masked pixels are: neither has noise, and what borders on them is no streak.

use rayon::prelude::*;

use crate::frame::Pixels;
use crate::{Frame, Result};

/// Side of the squares of equal pixels that show such an area, px: no noise makes one.
const BLOCK: usize = 8;

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
    let found = match frame.pixels() {
        Pixels::U8(p) => areas(p, width, height, |v| f32::from(v) >= saturation),
        Pixels::U16(p) => areas(p, width, height, |v| f32::from(v) >= saturation),
        Pixels::I16(p) => areas(p, width, height, |v| f32::from(v) >= saturation),
        Pixels::I32(p) => areas(p, width, height, |v| v as f32 >= saturation),
        Pixels::F32(p) => areas(p, width, height, |v| v >= saturation),
    };
    let Some(mut empty) = found else { return Ok((whole, false)) };
    if let Some(mask) = frame.mask() {
        empty.par_iter_mut().zip(mask).for_each(|(e, masked)| *e |= masked);
    }
    Ok((whole.with_mask(empty)?, true))
}

/// True in such areas and around them; none where there are none.
fn areas<T: Copy + PartialOrd + Sync + Send>(
    pixels: &[T],
    width: usize,
    height: usize,
    is_saturated: impl Fn(T) -> bool,
) -> Option<Vec<bool>> {
    let row = |y: usize| &pixels[y * width..(y + 1) * width];
    let (wide, tall) = (width / BLOCK, height / BLOCK);
    let block = |bx: usize, by: usize| {
        (by * BLOCK..(by + 1) * BLOCK).flat_map(move |y| row(y)[bx * BLOCK..(bx + 1) * BLOCK].iter().copied())
    };
    let value_of = |bx: usize, by: usize| {
        let first = row(by * BLOCK)[bx * BLOCK];
        block(bx, by).all(|v| v == first).then_some(first)
    };
    let empty: Vec<T> =
        (0..tall).into_par_iter().flat_map_iter(|by| (0..wide).filter_map(move |bx| value_of(bx, by))).collect();
    if empty.is_empty() || empty.len() == wide * tall {
        return None;
    }
    // The largest value of all is that of pixels that are full, where the frame does not say which are.
    let mut values = most_frequent(&empty);
    values.retain(|v| !is_saturated(*v) && pixels.par_iter().any(|p| p > v));
    if values.is_empty() {
        return None;
    }
    let is_filled = |v: &T| values.contains(v);
    let holds_data =
        |bx: usize, by: usize| (block(bx, by).filter(is_filled).count() as f64) < HALF * (BLOCK * BLOCK) as f64;
    let with_data: usize = (0..tall).into_par_iter().map(|by| (0..wide).filter(|bx| holds_data(*bx, by)).count()).sum();
    if (with_data as f64) < HALF * (wide * tall - empty.len()) as f64 {
        return None;
    }
    let filled: Vec<bool> = pixels.par_iter().map(is_filled).collect();
    let core = over_squares(&filled, width, CORE, |square| square.iter().all(|f| *f));
    Some(over_squares(&core, width, CORE + RIM, |square| square.contains(&true)))
}

/// Distinct values, the most frequent first, and no more than [`MOST_VALUES`].
fn most_frequent<T: Copy + PartialEq>(all: &[T]) -> Vec<T> {
    // Areas are filled with a few values; where there are many, later ones are the rarer.
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
            let far = |d: i64| {
                let near = |dx: i64, dy: i64| {
                    let (x, y) = (x as i64 + dx, y as i64 + dy);
                    x >= 0 && y >= 0 && inside(x as usize, y as usize)
                };
                !(-d..=d).any(|dx| (-d..=d).any(|dy| near(dx, dy)))
            };
            assert!(*missing || !inside(x, y), "({x}, {y}) is empty");
            assert!(!*missing || !far(RIM as i64), "({x}, {y}) holds data");
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
        assert_eq!(left_out(&burnt, width, height), None, "full pixels, the brightest there are");
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
