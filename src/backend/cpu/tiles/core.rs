//! Values within limits, counted and summed, while the limits draw together around the sky.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};

use super::picked::{Picked, ROW};

/// Partial sums that are kept side by side: no fewer than any machine's vectors have lanes.
const LANES: usize = ROW;

/// Values after which these are folded into double precision.
const FOLD: usize = 64 * LANES;

/// Values within two limits, summed, and the others.
#[derive(Debug, Default)]
pub(super) struct Core {
    pub(super) low: f32,
    pub(super) high: f32,
    sum: f64,
    squares: f64,
    beyond: Vec<f32>,
    /// Of these, what lay within the last limits; how many lay below and above, and the nearest of them.
    within: Vec<f32>,
    n_below: usize,
    n_above: usize,
    next_below: f32,
    next_above: f32,
}

/// What lies within two limits: its ranks, and its sums.
pub(super) struct Within {
    pub(super) ranks: Range<usize>,
    pub(super) sum: f64,
    pub(super) squares: f64,
}

impl Core {
    /// Sums what lies within two limits, relative to `pivot`.
    pub(super) fn take(&mut self, values: &[f32], low: f32, high: f32, pivot: f32) {
        self.beyond.clear();
        let beyond = Picked::to(&mut self.beyond);
        (self.low, self.high) = (low, high);
        (self.sum, self.squares) =
            Arch::new().dispatch(Sums { values, low, high, pivot, lanes: [[0.0; LANES]; 2], beyond });
        self.begin();
    }

    /// Of `n` values those within limits that hold the core.
    pub(super) fn within(&mut self, n: usize, low: f32, high: f32, pivot: f32) -> Within {
        if low <= self.next_below || high >= self.next_above {
            // Some that were left out before are within these.
            self.begin();
        }
        let mut n_within = 0;
        for i in 0..self.within.len() {
            let v = self.within[i];
            let (is_below, is_above) = (v < low, v > high);
            self.within[n_within] = v;
            n_within += usize::from(!(is_below | is_above));
            self.n_below += usize::from(is_below);
            self.n_above += usize::from(is_above);
            self.next_below = if is_below && v > self.next_below { v } else { self.next_below };
            self.next_above = if is_above && v < self.next_above { v } else { self.next_above };
        }
        self.within.truncate(n_within);
        let (mut sum, mut squares) = (self.sum, self.squares);
        for v in &self.within {
            let d = f64::from(*v - pivot);
            (sum, squares) = (sum + d, squares + d * d);
        }
        Within { ranks: self.n_below..n - self.n_above, sum, squares }
    }

    /// All values beyond the core may be within the limits to come.
    fn begin(&mut self) {
        self.within.clone_from(&self.beyond);
        (self.n_below, self.n_above) = (0, 0);
        (self.next_below, self.next_above) = (f32::NEG_INFINITY, f32::INFINITY);
    }
}

/// Sum and sum of squares of what lies within two limits, relative to `pivot`: the same bits with any vectors. Notes the
/// others.
struct Sums<'a> {
    values: &'a [f32],
    low: f32,
    high: f32,
    pivot: f32,
    lanes: [[f32; LANES]; 2],
    beyond: Picked<'a>,
}

impl NullaryFnOnce for Sums<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn call(mut self) -> (f64, f64) {
        let (mut sum, mut squares) = (0.0, 0.0);
        for values in self.values.chunks(FOLD) {
            let (rows, rest) = values.as_chunks::<LANES>();
            self.lanes = [[0.0; LANES]; 2];
            for row in rows {
                self.add(row, LANES);
            }
            let mut last = [self.pivot; LANES];
            last[..rest.len()].copy_from_slice(rest);
            self.add(&last, rest.len());
            sum += self.lanes[0].iter().map(|v| f64::from(*v)).sum::<f64>();
            squares += self.lanes[1].iter().map(|v| f64::from(*v)).sum::<f64>();
        }
        self.beyond.finish();
        (sum, squares)
    }
}

impl Sums<'_> {
    /// Adds a row, of which so many values are there.
    #[inline(always)]
    fn add(&mut self, row: &[f32; LANES], n: usize) {
        let mut all = true;
        let [sums, squares] = &mut self.lanes;
        for ((v, sum), squares) in row.iter().zip(sums).zip(squares) {
            let within = (*v >= self.low) & (*v <= self.high);
            all &= within;
            let d = if within { *v - self.pivot } else { 0.0 };
            *sum += d;
            *squares += d * d;
        }
        if !all {
            let (low, high) = (self.low, self.high);
            self.beyond.pick(row[..n].iter().map(|v| (*v, (*v < low) | (*v > high))));
        }
    }
}
