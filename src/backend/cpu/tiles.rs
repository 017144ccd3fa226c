//! Robust statistics of tiles. GPU twin: shaders/background.wgsl.
//!
//! Medians need order, but only around the middle: no more than that is sorted. Everything else is counted and summed.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use crate::pipeline::background::{CLIP_SIGMAS, MAX_CLIP_ROUNDS, Mesh, TileStatistics};

/// Robust statistics of the usable pixels (weight > 0) of every tile.
pub(super) fn tile_statistics(values: &[f32], weights: &[f32], mesh: Mesh) -> Vec<TileStatistics> {
    (0..mesh.len())
        .into_par_iter()
        .map_init(Vec::new, |usable, i| {
            usable.clear();
            for y in mesh.rows(i / mesh.nx) {
                let columns = mesh.columns(i % mesh.nx);
                let row = y * mesh.width;
                let pixels = &values[row + columns.start..row + columns.end];
                let weights = &weights[row + columns.start..row + columns.end];
                if weights.iter().fold(true, |all, w| all & (*w > 0.0)) {
                    usable.extend_from_slice(pixels);
                } else {
                    usable.extend(pixels.iter().zip(weights).filter(|(_, w)| **w > 0.0).map(|(v, _)| *v));
                }
            }
            clipped_statistics(usable)
        })
        .collect()
}

/// Clips at ±3 standard deviations around the median until nothing more is clipped.
fn clipped_statistics(values: &mut [f32]) -> TileStatistics {
    if values.is_empty() {
        return TileStatistics::default();
    }
    let mut ranked = Ranked::new(values);
    let n_usable = ranked.values.len();
    // Sums relative to the first median keep single precision exact on integer frames.
    let pivot = ranked.at((n_usable - 1) / 2);
    let (mut low, mut high) = first_clip(&mut ranked);
    let mut statistics = TileStatistics::default();
    for _ in 0..MAX_CLIP_ROUNDS {
        let sums = Arch::new().dispatch(ClippedSums { values: ranked.values, low, high, pivot });
        if sums.n == 0 {
            break;
        }
        let n = sums.n as f64;
        let mean = sums.sum / n;
        let sd = (sums.squares / n - mean * mean).max(0.0).sqrt();
        let settled = statistics.n_clipped == sums.n as u32;
        statistics = TileStatistics {
            n_usable: n_usable as u32,
            n_clipped: sums.n as u32,
            mean: (f64::from(pivot) + mean) as f32,
            median: grouped_median(&mut ranked, sums.below..sums.below + sums.n, low, high),
            sd: sd as f32,
        };
        if settled {
            break;
        }
        low = statistics.median - CLIP_SIGMAS * statistics.sd;
        high = statistics.median + CLIP_SIGMAS * statistics.sd;
    }
    statistics
}

/// Values whose middle is sorted: what lies before it is not larger, what lies behind it not smaller.
struct Ranked<'a> {
    values: &'a mut [f32],
    sorted: Range<usize>,
}

impl<'a> Ranked<'a> {
    fn new(values: &'a mut [f32]) -> Self {
        let n = values.len();
        let sorted = n / 2 - n / 16..(n / 2 + n / 16 + 1).min(n);
        values.select_nth_unstable_by(sorted.start, f32::total_cmp);
        if sorted.end < n {
            values[sorted.start..].select_nth_unstable_by(sorted.len(), f32::total_cmp);
        }
        values[sorted.clone()].sort_unstable_by(f32::total_cmp);
        Self { values, sorted }
    }

    /// The value of a rank.
    fn at(&mut self, rank: usize) -> f32 {
        if !self.sorted.contains(&rank) {
            self.values.sort_unstable_by(f32::total_cmp);
            self.sorted = 0..self.values.len();
        }
        self.values[rank]
    }

    /// The value of a rank far below the middle.
    fn at_low(&mut self, rank: usize) -> f32 {
        if rank < self.sorted.start {
            *self.values[..self.sorted.start].select_nth_unstable_by(rank, f32::total_cmp).1
        } else {
            self.at(rank)
        }
    }
}

/// First limits: four times the lower half-width, which stars leave alone. Where more than a third of the pixels are
/// equal that width is zero, and nothing is clipped at first.
fn first_clip(ranked: &mut Ranked<'_>) -> (f32, f32) {
    let last = ranked.values.len() - 1;
    let median = ranked.at(last / 2);
    let lower = median - ranked.at_low((last as f64 * LOWER_QUANTILE) as usize);
    if lower > 0.0 { (median - 4.0 * lower, median + 4.0 * lower) } else { (f32::NEG_INFINITY, f32::INFINITY) }
}

/// Φ(−1): one standard deviation below the median.
const LOWER_QUANTILE: f64 = 0.158_655;

/// Median of the grouped data of some ranks, which hold the values from `low` to `high`: among equal values, the
/// fraction of the group that lies below the middle counts, so that the median of integers is not bound to integers.
fn grouped_median(ranked: &mut Ranked<'_>, ranks: Range<usize>, low: f32, high: f32) -> f32 {
    let n = ranks.len();
    let middle = ranked.at(ranks.start + (n - 1) / 2);
    let group = Arch::new().dispatch(Group { values: ranked.values, low, high, middle });
    if group.equal == 1 {
        return 0.5 * (middle + ranked.at(ranks.start + n / 2));
    }
    // The group's width is the distance to its neighbours' midpoints.
    let previous = if group.below > 0 { group.previous } else { middle };
    let next = if group.below + group.equal < n { group.next } else { middle };
    let (from, to) = (0.5 * (previous + middle), 0.5 * (middle + next));
    let fraction = (0.5 * n as f32 - group.below as f32) / group.equal as f32;
    from + fraction * (to - from)
}

/// Partial results that are kept side by side.
const LANES: usize = 16;

/// The values side by side; the last lanes are filled up with NaN, which is neither above nor below anything.
#[inline(always)]
fn lanes_of(values: &[f32]) -> impl Iterator<Item = [f32; LANES]> {
    let (full, rest) = values.as_chunks::<LANES>();
    let mut last = [f32::NAN; LANES];
    last[..rest.len()].copy_from_slice(rest);
    full.iter().copied().chain((!rest.is_empty()).then_some(last))
}

/// Values after which the partial sums are folded into double precision.
const FOLD: usize = 64 * LANES;

/// Sums over the values from `low` to `high`, relative to `pivot`.
struct ClippedSums<'a> {
    values: &'a [f32],
    low: f32,
    high: f32,
    pivot: f32,
}

struct Sums {
    /// Values below `low`.
    below: usize,
    n: usize,
    sum: f64,
    squares: f64,
}

impl NullaryFnOnce for ClippedSums<'_> {
    type Output = Sums;

    #[inline(always)]
    fn call(self) -> Sums {
        let mut total = Sums { below: 0, n: 0, sum: 0.0, squares: 0.0 };
        for values in self.values.chunks(FOLD) {
            let (mut below, mut n) = ([0_u32; LANES], [0_u32; LANES]);
            let (mut sum, mut squares) = ([0.0_f32; LANES], [0.0_f32; LANES]);
            for values in lanes_of(values) {
                for (i, v) in values.into_iter().enumerate() {
                    let inside = (v >= self.low) & (v <= self.high);
                    let d = if inside { v - self.pivot } else { 0.0 };
                    below[i] += u32::from(v < self.low);
                    n[i] += u32::from(inside);
                    sum[i] += d;
                    squares[i] += d * d;
                }
            }
            total.below += below.iter().sum::<u32>() as usize;
            total.n += n.iter().sum::<u32>() as usize;
            total.sum += sum.iter().map(|v| f64::from(*v)).sum::<f64>();
            total.squares += squares.iter().map(|v| f64::from(*v)).sum::<f64>();
        }
        total
    }
}

/// The values equal to the middle, among those from `low` to `high`.
struct Group<'a> {
    values: &'a [f32],
    low: f32,
    high: f32,
    middle: f32,
}

struct Neighbours {
    below: usize,
    equal: usize,
    /// Largest of the smaller values.
    previous: f32,
    /// Smallest of the larger ones.
    next: f32,
}

impl NullaryFnOnce for Group<'_> {
    type Output = Neighbours;

    #[inline(always)]
    fn call(self) -> Neighbours {
        let (mut below, mut equal) = ([0_u32; LANES], [0_u32; LANES]);
        let (mut previous, mut next) = ([f32::NEG_INFINITY; LANES], [f32::INFINITY; LANES]);
        for values in lanes_of(self.values) {
            for (i, v) in values.into_iter().enumerate() {
                let is_below = (v >= self.low) & (v < self.middle);
                let is_above = (v <= self.high) & (v > self.middle);
                below[i] += u32::from(is_below);
                equal[i] += u32::from(v == self.middle);
                previous[i] = if is_below & (v > previous[i]) { v } else { previous[i] };
                next[i] = if is_above & (v < next[i]) { v } else { next[i] };
            }
        }
        Neighbours {
            below: below.iter().sum::<u32>() as usize,
            equal: equal.iter().sum::<u32>() as usize,
            previous: previous.into_iter().fold(f32::NEG_INFINITY, f32::max),
            next: next.into_iter().fold(f32::INFINITY, f32::min),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_leaves_stars_out() {
        // A triangle-shaped sky of 2001 values around 100, and 150 bright pixels.
        let mut values: Vec<f32> = (0..2001).map(|i| 100.0 + ((i * 37 % 2001) as f32 - 1000.0) / 250.0).collect();
        values.extend(std::iter::repeat_n(500.0, 150));
        let s = clipped_statistics(&mut values);
        assert_eq!((s.n_usable, s.n_clipped), (2151, 2001));
        assert!((s.median - 100.0).abs() < 0.01 && (s.mean - 100.0).abs() < 0.01);
    }

    #[test]
    fn the_median_of_integers_is_not_an_integer() {
        // 30 % at 4, 50 % at 5, 20 % at 6: the middle lies 40 % into the group of fives.
        let mut values = Vec::new();
        for (v, n) in [(4.0, 300), (5.0, 500), (6.0, 200)] {
            values.extend(std::iter::repeat_n(v, n));
        }
        let statistics = clipped_statistics(&mut values);
        assert!((statistics.median - 4.9).abs() < 1e-6);
    }

    #[test]
    fn empty_and_constant_tiles() {
        assert_eq!(clipped_statistics(&mut []), TileStatistics::default());
        let s = clipped_statistics(&mut [7.0; 50]);
        assert_eq!((s.n_clipped, s.mean, s.median, s.sd), (50, 7.0, 7.0, 0.0));
    }

    /// The same by sorting everything.
    fn by_sorting(values: &[f32]) -> TileStatistics {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let n = sorted.len();
        let median = sorted[(n - 1) / 2];
        let lower = median - sorted[((n - 1) as f64 * LOWER_QUANTILE) as usize];
        let (mut low, mut high) = (median - 4.0 * lower, median + 4.0 * lower);
        let mut statistics = TileStatistics::default();
        for _ in 0..MAX_CLIP_ROUNDS {
            let kept: Vec<f32> = sorted.iter().copied().filter(|v| (low..=high).contains(v)).collect();
            let n = kept.len();
            let mean = kept.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            let sd = (kept.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
            let settled = statistics.n_clipped == n as u32;
            let median = 0.5 * (kept[(n - 1) / 2] + kept[n / 2]);
            statistics = TileStatistics {
                n_usable: values.len() as u32,
                n_clipped: n as u32,
                mean: mean as f32,
                median,
                sd: sd as f32,
            };
            if settled {
                break;
            }
            (low, high) = (median - CLIP_SIGMAS * sd as f32, median + CLIP_SIGMAS * sd as f32);
        }
        statistics
    }

    #[test]
    fn sorting_the_middle_is_enough() {
        let noise = crate::simulate::gaussian_frame(64, 64, 5, 1.0);
        // Without outliers, with some, and with so many on one side that the middle moves away.
        for outliers in [0, 100, 1500] {
            let mut values: Vec<f32> = noise.clone();
            values[..outliers].iter_mut().for_each(|v| *v += 50.0);
            let expected = by_sorting(&values);
            let s = clipped_statistics(&mut values);
            assert_eq!((s.n_usable, s.n_clipped, s.median), (4096, expected.n_clipped, expected.median), "{outliers}");
            assert!((s.mean - expected.mean).abs() < 1e-6 && (s.sd - expected.sd).abs() < 1e-6, "{outliers}");
        }
    }
}
