//! Values by rank: what medians of tiles are taken from.
//!
//! A rank needs order only where it lies. The values are counted into narrow bins, and those of a bin are fetched when it
//! is looked into; few ever are.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};

use super::picked::{Picked, ROW};

/// Values that a bin holds on average.
const PER_BIN: usize = 4;
const MOST_BINS: usize = 1024;

/// Values that are looked at to see where the bins should lie.
const SAMPLE: usize = 16;

/// The bins reach so many times the half-width of the sample's central two thirds to either side of its median: the
/// ranks that are asked for lie within.
const REACH: f32 = 2.5;

/// Memory of one thread, kept from tile to tile.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Where each value goes.
    bin_of: Vec<u16>,
    /// The ranks at which the bins begin, and the number of values.
    begins: Vec<u32>,
    /// The bins that were looked into, and where their values lie in `fetched`: one where all are equal.
    looked_into: Vec<(usize, Range<usize>)>,
    fetched: Vec<f32>,
}

/// Some values in ascending order, so far as anybody has asked.
#[derive(Debug)]
pub(super) struct Ranked<'a> {
    values: &'a [f32],
    scale: Scale,
    memory: &'a mut Memory,
}

impl<'a> Ranked<'a> {
    pub(super) fn new(values: &'a [f32], memory: &'a mut Memory) -> Self {
        let n_bins = (values.len() / PER_BIN).clamp(1, MOST_BINS);
        let scale = Scale::of(values, n_bins);
        let Memory { bin_of, begins, looked_into, fetched } = memory;
        looked_into.clear();
        fetched.clear();
        bin_of.resize(values.len(), 0);
        Arch::new().dispatch(FindBins { values, scale, bin_of });
        // Neighbours are counted apart, so that equal ones do not wait for each other.
        let mut counts = [[0_u32; MOST_BINS]; 2];
        let [even, odd] = &mut counts;
        let (pairs, rest) = bin_of.as_chunks::<2>();
        for [a, b] in pairs {
            even[usize::from(*a) % MOST_BINS] += 1;
            odd[usize::from(*b) % MOST_BINS] += 1;
        }
        for a in rest {
            even[usize::from(*a) % MOST_BINS] += 1;
        }
        begins.clear();
        begins.push(0);
        let mut end = 0;
        begins.extend(even[..n_bins].iter().zip(odd).map(|(even, odd)| {
            end += *even + *odd;
            end
        }));
        Self { values, scale, memory }
    }

    /// The value of a rank.
    pub(super) fn at(&mut self, rank: usize) -> f32 {
        let bin = self.memory.begins.partition_point(|begin| *begin as usize <= rank) - 1;
        let (ranks, values) = self.of_bin(bin);
        let place = (rank - ranks.start).min(values.len() - 1);
        *values.select_nth_unstable_by(place, f32::total_cmp).1
    }

    /// How many values are less than this one.
    pub(super) fn count_below(&mut self, value: f32) -> usize {
        self.count(value, |v| v < value)
    }

    /// How many are no more than this one.
    pub(super) fn count_up_to(&mut self, value: f32) -> usize {
        self.count(value, |v| v <= value)
    }

    /// How many come before what is no longer `before`, which lies in the bin of `value`.
    fn count(&mut self, value: f32, before: impl Fn(f32) -> bool) -> usize {
        let (ranks, values) = self.of_bin(self.scale.place(value).into());
        let n = values.iter().filter(|v| before(**v)).count();
        if n == values.len() { ranks.end } else { ranks.start + n }
    }

    /// The ranks of a bin, and its values in no order; one where all are equal.
    fn of_bin(&mut self, bin: usize) -> (Range<usize>, &mut [f32]) {
        let Memory { bin_of, begins, looked_into, fetched } = &mut *self.memory;
        let known = looked_into.iter().find(|(b, _)| *b == bin).map(|(_, range)| range.clone());
        let range = known.unwrap_or_else(|| {
            let first = fetched.len();
            Arch::new().dispatch(Fetch { values: self.values, bin_of, bin: bin as u16, fetched });
            looked_into.push((bin, first..fetched.len()));
            first..fetched.len()
        });
        (begins[bin] as usize..begins[bin + 1] as usize, &mut fetched[range])
    }
}

/// Where the bins lie: a value's bin grows with the value, and the outermost ones take all that is beyond.
#[derive(Debug, Clone, Copy, Default)]
struct Scale {
    low: f32,
    per_unit: f32,
    last: f32,
}

/// Adding this to a float that is not negative leaves it rounded to an integer, in its last bits and with nothing above.
const ROUNDER: f32 = 8_388_608.0;

impl Scale {
    fn of(values: &[f32], n_bins: usize) -> Self {
        let mut sample = [0.0; SAMPLE];
        // An odd step goes through all columns of a tile.
        let of_all = values.iter().step_by(values.len().div_ceil(SAMPLE) | 1);
        let n = sample.iter_mut().zip(of_all).map(|(sample, value)| *sample = *value).count();
        let sample = &mut sample[..n];
        sample.sort_unstable_by(f32::total_cmp);
        let quantile = |of_six: usize| sample.get(sample.len() * of_six / 6).copied().unwrap_or(0.0);
        let reach = REACH * 0.5 * (quantile(5) - quantile(1));
        // Where most values are equal, one bin holds them all.
        let per_unit = if reach > 0.0 { n_bins as f32 / (2.0 * reach) } else { 0.0 };
        Self { low: quantile(3) - reach, per_unit, last: (n_bins - 1) as f32 }
    }

    /// The bin of a value.
    #[inline(always)]
    fn place(self, value: f32) -> u16 {
        let place = (value - self.low) * self.per_unit;
        let place = if place > 0.0 { place } else { 0.0 };
        let place = if place < self.last { place } else { self.last };
        (place + ROUNDER).to_bits() as u16
    }
}

/// Looks up the bin of every value.
struct FindBins<'a> {
    values: &'a [f32],
    scale: Scale,
    bin_of: &'a mut [u16],
}

impl NullaryFnOnce for FindBins<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (bin, value) in self.bin_of.iter_mut().zip(self.values) {
            *bin = self.scale.place(*value);
        }
    }
}

/// Fetches the values of one bin; one of them where all are equal, as in frames of integers.
struct Fetch<'a> {
    values: &'a [f32],
    bin_of: &'a [u16],
    bin: u16,
    fetched: &'a mut Vec<f32>,
}

impl NullaryFnOnce for Fetch<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { values, bin_of, bin, fetched } = self;
        let (rows, rest) = bin_of.as_chunks::<ROW>();
        let (values, last) = values.as_chunks::<ROW>();
        // Most rows hold nothing that is wanted.
        let mut begin = 0;
        while begin < rows.len() && !is_any(&rows[begin], bin) {
            begin += 1;
        }
        let (rows, values) = (&rows[begin..], &values[begin..]);
        let first = match rows.first().zip(values.first()) {
            Some((bins, values)) => first_of(bins, values, bin),
            None => first_of(rest, last, bin),
        };
        let Some(first) = first else { return };
        let mut all_equal = true;
        for (bin_of, value) in rest.iter().zip(last) {
            all_equal &= (*bin_of != bin) | (*value == first);
        }
        for (bins, values) in rows.iter().zip(values) {
            if !all_equal {
                break;
            }
            all_equal = !is_any_other(bins, values, bin, first);
        }
        if all_equal {
            fetched.push(first);
            return;
        }
        let mut picked = Picked::to(fetched);
        for (bins, values) in rows.iter().zip(values) {
            if is_any(bins, bin) {
                picked.pick(values.iter().zip(bins).map(|(v, b)| (*v, *b == bin)));
            }
        }
        picked.pick(last.iter().zip(rest).map(|(v, b)| (*v, *b == bin)));
        picked.finish();
    }
}

/// Is any value of a row in the bin?
#[inline(always)]
fn is_any(bins: &[u16; ROW], bin: u16) -> bool {
    let mut any = false;
    for b in bins {
        any |= *b == bin;
    }
    any
}

/// Is any of a row's values in the bin another one than `value`?
#[inline(always)]
fn is_any_other(bins: &[u16; ROW], values: &[f32; ROW], bin: u16, value: f32) -> bool {
    let mut any = false;
    for k in 0..ROW {
        any |= (bins[k] == bin) & (values[k] != value);
    }
    any
}

/// The first value in the bin.
#[inline(always)]
fn first_of(bins: &[u16], values: &[f32], bin: u16) -> Option<f32> {
    for (b, value) in bins.iter().zip(values) {
        if *b == bin {
            return Some(*value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f32]) {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let n = sorted.len();
        let mut memory = Memory::default();
        assert_eq!(Ranked::new(&[3.0, 1.0, 2.0, 7.0, 7.0, 7.5, 8.0, 9.0], &mut memory).at(2), 3.0);
        let mut ranked = Ranked::new(values, &mut memory);
        for rank in (0..n).step_by(n.div_ceil(57)).rev() {
            let value = sorted[rank];
            assert_eq!(ranked.at(rank), value);
            assert_eq!(ranked.count_below(value), sorted.partition_point(|v| *v < value));
            assert_eq!(ranked.count_up_to(value), sorted.partition_point(|v| *v <= value));
            assert_eq!(ranked.count_below(value + 0.01), sorted.partition_point(|v| *v < value + 0.01));
        }
        assert_eq!((ranked.count_below(f32::NEG_INFINITY), ranked.count_up_to(f32::INFINITY)), (0, n));
    }

    #[test]
    fn ranks_are_those_of_the_sorted_values() {
        let noise = crate::simulate::gaussian_frame(64, 64, 5, 1.0);
        check(&noise);
        // In ascending order: the sample is taken in strides.
        let mut ascending = noise.clone();
        ascending.sort_unstable_by(f32::total_cmp);
        check(&ascending);
        check(&noise.iter().map(|v| v.round()).collect::<Vec<f32>>());
        // Most beyond the bins, on one side and on both.
        check(&noise.iter().enumerate().map(|(i, v)| if i % 64 < 40 { *v } else { 1e6 + v }).collect::<Vec<f32>>());
        check(&noise.iter().map(|v| v.powi(9)).collect::<Vec<f32>>());
        check(&[5.0; 1000]);
        // Equal but for the last, which lies beyond the last whole stretch.
        let mut nearly_equal = [5.0; 37];
        nearly_equal[36] = 7.0;
        check(&nearly_equal);
        check(&noise[..300].iter().map(|v| v.round()).collect::<Vec<f32>>());
        check(&noise[..300]);
        check(&[2.0, 1.0]);
        check(&[-4.0]);
    }
}
