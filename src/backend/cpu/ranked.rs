//! Values by rank: what medians of tiles are taken from.
//!
//! A rank needs order only where it lies. The values are counted into narrow bins, in one pass, and a bin is sorted
//! when it is looked into; few ever are.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};

/// Values that a bin holds on average.
const PER_BIN: usize = 4;
const MOST_BINS: usize = 1024;

/// Values that are looked at to see where the bins should lie.
const SAMPLE: usize = 64;

/// The bins reach so many times the half-width of the sample's central two thirds to either side of its median.
const REACH: f32 = 6.0;

/// Values in ascending order, so far as anybody has asked.
#[derive(Debug, Default)]
pub(super) struct Ranked {
    /// Bin by bin.
    values: Vec<f32>,
    /// The ranks at which the bins begin, and the number of values.
    begins: Vec<u32>,
    is_sorted: Vec<bool>,
    scale: Scale,
    /// Where each value goes.
    bin_of: Vec<u16>,
}

impl Ranked {
    /// Takes values in, in the place of those before.
    pub(super) fn take(&mut self, values: &[f32]) {
        let n_bins = (values.len() / PER_BIN).clamp(1, MOST_BINS);
        self.scale = Scale::of(values, n_bins);
        self.bin_of.resize(values.len(), 0);
        Arch::new().dispatch(Sort { values, scale: self.scale, bin_of: &mut self.bin_of });
        self.is_sorted.clear();
        self.is_sorted.resize(n_bins, false);
        self.begins.clear();
        self.begins.resize(n_bins + 1, 0);
        for bin in &self.bin_of {
            self.begins[usize::from(*bin)] += 1;
        }
        let mut end = 0;
        for begin in &mut self.begins {
            end += *begin;
            *begin = end;
        }
        // From the ends of the bins down to their beginnings.
        self.values.resize(values.len(), 0.0);
        for (value, bin) in values.iter().zip(&self.bin_of) {
            let place = &mut self.begins[usize::from(*bin)];
            *place -= 1;
            self.values[*place as usize] = *value;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The value of a rank.
    pub(super) fn at(&mut self, rank: usize) -> f32 {
        let (begin, bin) = self.sorted(self.bin_with(rank));
        bin[rank - begin]
    }

    /// How many values are less than this one.
    pub(super) fn count_below(&mut self, value: f32) -> usize {
        let (begin, bin) = self.sorted(self.scale.place(value).into());
        begin + bin.partition_point(|v| *v < value)
    }

    /// How many are no more than this one.
    pub(super) fn count_up_to(&mut self, value: f32) -> usize {
        let (begin, bin) = self.sorted(self.scale.place(value).into());
        begin + bin.partition_point(|v| *v <= value)
    }

    /// The values of some ranks; in no order, but that no value outside is between them.
    pub(super) fn among(&mut self, ranks: Range<usize>) -> &[f32] {
        for edge in [ranks.start, ranks.end] {
            if edge < self.len() {
                self.sorted(self.bin_with(edge));
            }
        }
        &self.values[ranks]
    }

    fn bin_with(&self, rank: usize) -> usize {
        self.begins.partition_point(|begin| *begin as usize <= rank) - 1
    }

    /// The rank of a bin's first value, and its values in order.
    fn sorted(&mut self, bin: usize) -> (usize, &[f32]) {
        let (begin, end) = (self.begins[bin] as usize, self.begins[bin + 1] as usize);
        let values = &mut self.values[begin..end];
        if !std::mem::replace(&mut self.is_sorted[bin], true) {
            values.sort_unstable_by(f32::total_cmp);
        }
        (begin, values)
    }
}

/// Where the bins lie: a value's bin grows with the value, and the outermost ones take all that is beyond.
#[derive(Debug, Clone, Copy, Default)]
struct Scale {
    low: f32,
    per_unit: f32,
    last: f32,
}

impl Scale {
    fn of(values: &[f32], n_bins: usize) -> Self {
        let mut sample: Vec<f32> = values.iter().step_by(values.len().div_ceil(SAMPLE).max(1)).copied().collect();
        sample.sort_unstable_by(f32::total_cmp);
        let quantile = |of_six: usize| sample.get(sample.len() * of_six / 6).copied().unwrap_or(0.0);
        let reach = REACH * 0.5 * (quantile(5) - quantile(1));
        // Where most values are equal, one bin is sorted whole.
        let per_unit = if reach > 0.0 { n_bins as f32 / (2.0 * reach) } else { 0.0 };
        Self { low: quantile(3) - reach, per_unit, last: (n_bins - 1) as f32 }
    }

    /// The bin of a value.
    #[inline(always)]
    fn place(self, value: f32) -> u16 {
        let place = (value - self.low) * self.per_unit;
        let place = if place > 0.0 { place } else { 0.0 };
        (if place < self.last { place } else { self.last }) as i32 as u16
    }
}

/// Looks up the bin of every value.
struct Sort<'a> {
    values: &'a [f32],
    scale: Scale,
    bin_of: &'a mut [u16],
}

impl NullaryFnOnce for Sort<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (bin, value) in self.bin_of.iter_mut().zip(self.values) {
            *bin = self.scale.place(*value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f32]) {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let n = sorted.len();
        let mut ranked = Ranked::default();
        ranked.take(&[3.0, 1.0, 2.0, 7.0, 7.0, 7.5, 8.0, 9.0]);
        ranked.take(values);
        assert_eq!(ranked.len(), n);
        for rank in (0..n).step_by(n.div_ceil(57)).rev() {
            let value = sorted[rank];
            assert_eq!(ranked.at(rank), value);
            assert_eq!(ranked.count_below(value), sorted.partition_point(|v| *v < value));
            assert_eq!(ranked.count_up_to(value), sorted.partition_point(|v| *v <= value));
            assert_eq!(ranked.count_below(value + 0.01), sorted.partition_point(|v| *v < value + 0.01));
        }
        assert_eq!((ranked.count_below(f32::NEG_INFINITY), ranked.count_up_to(f32::INFINITY)), (0, n));
        let (from, to) = (n / 5, n - n / 3);
        let mut among = ranked.among(from..to).to_vec();
        among.sort_unstable_by(f32::total_cmp);
        assert_eq!(among, sorted[from..to]);
        assert_eq!(ranked.among(0..n).len(), n);
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
        check(&noise[..300]);
        check(&[2.0, 1.0]);
        check(&[-4.0]);
    }
}
