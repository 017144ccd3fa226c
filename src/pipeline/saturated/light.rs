//! What the light of a saturated source says: its sums, that beside its full pixels, and how far its halo reaches.

use std::ops::Range;

use super::patches::{is_missing, place};
use crate::frame::Frame;
use crate::geometry::Point;
use crate::pipeline::measure::Trail;

/// Beside the patch, nothing has spilled: so many PSF widths, and pixels of this part of the brightest there.
pub(super) const FLANK_SIGMAS: f64 = 2.0;
const FLANK_SHARE: f64 = 0.1;

/// Beside a point the light of so many PSF widths to either side along the column tells what is not its own.
const BASE_SIGMAS: f64 = 8.0;

/// A point's halo ends where the lower quartile of a ring, which few neighbours move, lies less than so many times the
/// noise above that of the sky, and reaches no further than this. A ring has so many pixels at least.
const HALO_NOISE: f64 = 0.4;
const QUARTILE_NOISE: f64 = 0.6745;
const MOST_HALO_PX: f64 = 64.0;
const LEAST_RING: usize = 16;

/// Some light on a line: its sum, middle and spread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Light {
    pub(super) sum: f64,
    pub(super) mean: f64,
    pub(super) variance: f64,
}

impl Light {
    pub(super) fn of(parts: impl Iterator<Item = (f64, f64)>) -> Self {
        let [sum, first, second] = parts.fold([0.0; 3], |[sum, first, second], (place, v)| {
            [sum + v, first + v * place, second + v * place * place]
        });
        let mean = first / sum;
        Self { sum, mean, variance: second / sum - mean * mean }
    }

    /// Of one value a place, around the largest as far as they have a part of it.
    fn of_peak(values: &[f64]) -> Self {
        let (peak, most) =
            values.iter().copied().enumerate().fold((0, 0.0), |best, (i, v)| if v > best.1 { (i, v) } else { best });
        let is_lit = |i: &usize| values[*i] > FLANK_SHARE * most;
        let around = (peak..values.len()).take_while(is_lit).chain((0..peak).rev().take_while(is_lit));
        Self::of(around.map(|i| (i as f64, values[i])))
    }
}

/// The light left and right of the full pixels, where no charge has spilled: that of both ends.
pub(super) struct Flanks {
    /// How far above the trail that they are compared with it lies.
    pub(super) shift_px: f64,
    /// By so much more than the trail's the sides' middles are apart along the column.
    pub(super) off_px: f64,
    /// Variances along the column, both sides together.
    pub(super) seen_px2: f64,
    pub(super) model_px2: f64,
}

impl Flanks {
    pub(super) fn of(
        lit: impl Iterator<Item = (Point, f64)>,
        [left, right]: [f64; 2],
        trail: &Trail,
        height: usize,
    ) -> Self {
        let sigma_px = trail.sigma_eff_px;
        let side_of = |x: f64| {
            let out = (left - x).max(x - right);
            (out > 0.0 && out < FLANK_SIGMAS * sigma_px + 1.0).then_some(usize::from(x > right))
        };
        let mut rows = [vec![0.0; height], vec![0.0; height]];
        for (p, v) in lit {
            if let Some(side) = side_of(p.x) {
                rows[side][p.y as usize] += v;
            }
        }
        if trail.segment.length_px() == 0.0 {
            rows.iter_mut().for_each(|rows| take_off_base(rows, (BASE_SIGMAS * sigma_px).ceil() as usize));
        }
        let seen = rows.map(|rows| Light::of_peak(&rows));
        let model = [0, 1].map(|side| Light::of_peak(&model_rows(trail, height, |x| side_of(x) == Some(side))));
        let shifts = [0, 1].map(|side| seen[side].mean - model[side].mean);
        Self {
            shift_px: 0.5 * (shifts[0] + shifts[1]),
            off_px: (shifts[1] - shifts[0]).abs(),
            seen_px2: seen[0].variance + seen[1].variance,
            model_px2: model[0].variance + model[1].variance,
        }
    }
}

/// Takes off the median of the values this near to the largest: a star's trail that passes a point lies on all of them.
fn take_off_base(values: &mut [f64], reach: usize) {
    let Some((peak, _)) = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)) else { return };
    let mut near = values[peak.saturating_sub(reach)..(peak + reach + 1).min(values.len())].to_vec();
    let middle = near.len() / 2;
    let (_, base, _) = near.select_nth_unstable_by(middle, f64::total_cmp);
    let base = *base;
    values.iter_mut().for_each(|v| *v -= base);
}

/// What of a trail's light lies in some columns, row by row.
fn model_rows(trail: &Trail, height: usize, holds: impl Fn(f64) -> bool) -> Vec<f64> {
    const N_STEPS: usize = 256;
    let sigma_px = trail.sigma_eff_px;
    let reach_px = 8.0 * sigma_px;
    let around = |centre: f64| (centre - reach_px).floor() as i64..=(centre + reach_px).ceil() as i64;
    let gauss = |off_px: f64| (-0.5 * (off_px / sigma_px).powi(2)).exp();
    let mut rows = vec![0.0; height];
    for k in 0..N_STEPS {
        let p = trail.segment.at((k as f64 + 0.5) / N_STEPS as f64);
        let share: f64 = around(p.x).map(|x| x as f64).filter(|x| holds(*x)).map(|x| gauss(x - p.x)).sum();
        for y in around(p.y) {
            if let Some(row) = usize::try_from(y).ok().and_then(|y| rows.get_mut(y)) {
                *row += share * gauss(y as f64 - p.y);
            }
        }
    }
    rows
}

/// How far from a place, from some radius on, light is seen above a sky of this level and noise, px.
pub(super) fn halo_px(frame: &Frame<'_>, place: Point, first_px: f64, step_px: f64, [level, noise]: [f64; 2]) -> f64 {
    let mut radius_px = first_px;
    while radius_px < MOST_HALO_PX {
        let mut ring = ring(place, radius_px..radius_px + step_px, frame);
        if ring.len() < LEAST_RING {
            break;
        }
        let quarter = ring.len() / 4;
        let (_, quartile, _) = ring.select_nth_unstable_by(quarter, f32::total_cmp);
        if f64::from(*quartile) - level < (HALO_NOISE - QUARTILE_NOISE) * noise {
            break;
        }
        radius_px += step_px;
    }
    radius_px
}

/// The values of the pixels this far from a place.
fn ring(centre: Point, radii_px: Range<f64>, frame: &Frame<'_>) -> Vec<f32> {
    let range = |c: f64, size: usize| {
        let [first, last] = [c - radii_px.end, c + radii_px.end].map(|edge| edge.clamp(0.0, size as f64) as usize);
        first..(last + 1).min(size)
    };
    let columns = range(centre.x, frame.width());
    let pixels = range(centre.y, frame.height()).flat_map(|y| columns.clone().map(move |x| y * frame.width() + x));
    let is_in = |&i: &usize| radii_px.contains(&place(i, frame).distance(centre)) && !is_missing(frame, i);
    pixels.filter(is_in).map(|i| frame.pixels().value(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate;

    #[test]
    fn a_halo_reaches_as_far_as_rings_are_lit() {
        let (width, height, centre) = (160, 120, Point::new(70.3, 58.8));
        let halo = |radius_px: f64, neighbour: bool| {
            let mut pixels = simulate::gaussian_frame(width, height, 3, 5.0);
            for (i, v) in pixels.iter_mut().enumerate() {
                let off_px = Point::new((i % width) as f64, (i / width) as f64).distance(centre);
                *v += 500.0 + if off_px < radius_px { 20.0 } else { 0.0 };
                // A quarter of every ring.
                if neighbour && (i / width) as f64 > centre.y + std::f64::consts::FRAC_1_SQRT_2 * off_px {
                    *v += 1000.0;
                }
            }
            let frame = Frame::new(pixels, width, height).unwrap();
            halo_px(&frame, centre, 6.0, 2.0, [500.0, 5.0])
        };
        for neighbour in [false, true] {
            assert_eq!(halo(0.0, neighbour), 6.0);
            assert!((halo(21.0, neighbour) - 21.0).abs() <= 1.5, "{}", halo(21.0, neighbour));
        }
        assert!((MOST_HALO_PX..MOST_HALO_PX + 2.0).contains(&halo(1000.0, false)));
    }
}
