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
        .map_init(Scratch::default, |scratch, i| {
            let usable = &mut scratch.usable;
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
            clipped_statistics(scratch)
        })
        .collect()
}

/// Memory of one thread, kept from tile to tile.
#[derive(Debug, Default)]
struct Scratch {
    usable: Vec<f32>,
    /// Values around the middle.
    middle: Vec<f32>,
    /// Values around the lower quantile.
    low: Vec<f32>,
}

/// Clips at ±3 standard deviations around the median until nothing more is clipped.
fn clipped_statistics(scratch: &mut Scratch) -> TileStatistics {
    if scratch.usable.is_empty() {
        return TileStatistics::default();
    }
    let mut ranked = Ranked::new(scratch);
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

/// Values of which the middle ones are sorted.
struct Ranked<'a> {
    values: &'a [f32],
    /// Values of the ranks from `first` on, in order.
    sorted: &'a mut Vec<f32>,
    first: usize,
    low: &'a mut Vec<f32>,
    sample: Vec<f32>,
}

/// Values that are looked at to see roughly where a rank lies.
const SAMPLE: usize = 256;

/// The sample's ranks are off by a half of the root of their number, 8; this is four times as much.
const SAMPLE_REACH: usize = 32;

impl<'a> Ranked<'a> {
    fn new(scratch: &'a mut Scratch) -> Self {
        let Scratch { usable: values, middle: sorted, low } = scratch;
        let mut sample: Vec<f32> = values.iter().step_by(values.len().div_ceil(SAMPLE)).copied().collect();
        sample.sort_unstable_by(f32::total_cmp);
        let mut ranked = Self { values, sorted, first: 0, low, sample };
        // The medians of the clipped values lie a little to either side of the first.
        let n = ranked.values.len();
        let wanted = n / 2 - n / 16..(n / 2 + n / 16 + 1).min(n);
        let below = ranked.gather(wanted.start, wanted.end - 1, false);
        match below.and_then(|below| Some((below, wanted.start.checked_sub(below)?))) {
            Some((below, from)) if below + ranked.sorted.len() >= wanted.end => {
                ranked.sorted.select_nth_unstable_by(from, f32::total_cmp);
                let behind = &mut ranked.sorted[from..];
                if wanted.len() < behind.len() {
                    behind.select_nth_unstable_by(wanted.len(), f32::total_cmp);
                }
                behind[..wanted.len()].sort_unstable_by(f32::total_cmp);
                ranked.sorted.drain(..from);
                ranked.sorted.truncate(wanted.len());
                ranked.first = wanted.start;
            }
            _ => ranked.sort_all(),
        }
        ranked
    }

    /// Gathers the values that the sample takes for those of some ranks, for the lower quantile or for the middle.
    /// Returns how many are smaller; none where there are too few values for a sample.
    fn gather(&mut self, from: usize, to: usize, for_low: bool) -> Option<usize> {
        let (n, in_sample) = (self.values.len(), self.sample.len());
        if n < 4 * SAMPLE {
            return None;
        }
        let low = (from * in_sample / n).saturating_sub(SAMPLE_REACH);
        let high = (to * in_sample / n + SAMPLE_REACH).min(in_sample - 1);
        let (low, high) = (self.sample[low], self.sample[high]);
        let out = if for_low { &mut *self.low } else { &mut *self.sorted };
        out.resize(n + 1, 0.0);
        let mut kept = 0;
        for &v in self.values {
            // No branch: half of them would be guessed wrong.
            out[kept] = v;
            kept += usize::from((v >= low) & (v <= high));
        }
        out.truncate(kept);
        Some(self.values.iter().map(|v| u32::from(*v < low)).sum::<u32>() as usize)
    }

    fn sort_all(&mut self) {
        self.first = 0;
        self.sorted.clear();
        self.sorted.extend_from_slice(self.values);
        self.sorted.sort_unstable_by(f32::total_cmp);
    }

    /// The value of a rank.
    fn at(&mut self, rank: usize) -> f32 {
        if rank < self.first || rank >= self.first + self.sorted.len() {
            self.sort_all();
        }
        self.sorted[rank - self.first]
    }

    /// The value of a rank far below the middle.
    fn at_low(&mut self, rank: usize) -> f32 {
        match self.gather(rank, rank, true) {
            Some(below) if (below..below + self.low.len()).contains(&rank) => {
                *self.low.select_nth_unstable_by(rank - below, f32::total_cmp).1
            }
            _ => self.at(rank),
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

    fn statistics_of(values: &[f32]) -> TileStatistics {
        clipped_statistics(&mut Scratch { usable: values.to_vec(), ..Scratch::default() })
    }

    #[test]
    fn clipping_leaves_stars_out() {
        // A triangle-shaped sky of 2001 values around 100, and 150 bright pixels.
        let mut values: Vec<f32> = (0..2001).map(|i| 100.0 + ((i * 37 % 2001) as f32 - 1000.0) / 250.0).collect();
        values.extend(std::iter::repeat_n(500.0, 150));
        let s = statistics_of(&values);
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
        let statistics = statistics_of(&values);
        assert!((statistics.median - 4.9).abs() < 1e-6);
    }

    #[test]
    fn empty_and_constant_tiles() {
        assert_eq!(statistics_of(&[]), TileStatistics::default());
        let s = statistics_of(&[7.0; 50]);
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
        let mut noise = crate::simulate::gaussian_frame(64, 64, 5, 1.0);
        // In ascending order as well: the sample is taken in strides.
        noise[..2048].sort_unstable_by(f32::total_cmp);
        // Without outliers, with some, and with so many on one side that the middle moves away.
        for outliers in [0, 100, 1500] {
            let mut values: Vec<f32> = noise.clone();
            values[..outliers].iter_mut().for_each(|v| *v += 50.0);
            let expected = by_sorting(&values);
            let s = statistics_of(&values);
            assert_eq!((s.n_usable, s.n_clipped, s.median), (4096, expected.n_clipped, expected.median), "{outliers}");
            assert!((s.mean - expected.mean).abs() < 1e-6 && (s.sd - expected.sd).abs() < 1e-6, "{outliers}");
        }
    }
}
