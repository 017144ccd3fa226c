//! Peaks of a start's nodes, and of the pairs it makes: the few shifts that may hold one are looked at closer.

use super::block::{Nodes, Pass, Start};
use super::lanes;
use super::number::Number;
use crate::pipeline::search::{MIN_COVERAGE, PARTNER_SHARE, Peak};
use crate::pipeline::segments::Node;

/// Memory for closer looks.
#[derive(Default)]
pub(super) struct Closer {
    /// Shifts of one start that may hold a peak.
    promising: Vec<usize>,
    rows: Neighbours,
    /// Where a shift's row has peaks.
    columns: Vec<usize>,
}

impl<'a, T: Number> Start<'a, T> {
    /// The two rows that the block's own columns, and one more on either side, are sums of; moved by some.
    fn own_halves<'n, N>(&self, nodes: Nodes<'n, N>, shift: usize, moved: isize) -> [&'n [N]; 2]
    where
        'a: 'n,
    {
        let Pass { job, stage, .. } = *self.pass;
        let first = (stage.left - 1).strict_add_signed(moved);
        self.halves(nodes, &(shift..shift + 1)).map(|half| &half[first..first + job.block.n_columns + 2])
    }

    /// Significances of the block's own columns, and one more on either side; with a partner those of the pairs.
    /// Returns the largest of them, or 0.
    fn significances(&self, partner: Option<&Start<'_, T>>, shift: Option<usize>, out: &mut Significances) -> f32 {
        let Pass { arch, job, stage, .. } = *self.pass;
        let Significances { values, weights } = out;
        values.resize(job.block.n_columns + 2, 0.0);
        let Some(shift) = shift.filter(|s| stage.level.shifts.contains(s)) else {
            values.fill(f32::NEG_INFINITY);
            return 0.0;
        };
        let level = stage.level;
        let (scale, n_rows) = match partner {
            None => (self.inverse_sd(shift), level.height),
            Some(_) => (self.inverse_sd_paired(shift), 2 * level.height),
        };
        let largest = self.scaled_sums(partner, shift, values, self.pass.values, scale);
        if !job.request.weighted {
            return largest;
        }
        weights.resize(values.len(), 0.0);
        self.scaled_sums(partner, shift, weights, self.pass.weights, 1.0 / n_rows as f32);
        lanes::over_root(arch, values, weights, MIN_COVERAGE)
    }

    /// Sums in the block's own columns, and one more on either side; with a partner those of the pairs. Returns the
    /// largest of them, or 0.
    fn scaled_sums<N: Number>(
        &self,
        partner: Option<&Start<'_, T>>,
        shift: usize,
        out: &mut [f32],
        nodes: Nodes<'_, N>,
        scale: f32,
    ) -> f32 {
        let (arch, own) = (self.pass.arch, self.own_halves(nodes, shift, 0));
        match partner {
            None => lanes::scaled_sums(arch, out, own, scale),
            Some(partner) => {
                let of_partner = partner.own_halves(nodes, shift, self.partner_moved(partner, shift));
                lanes::scaled_sums_of_pairs(arch, out, own, of_partner, scale)
            }
        }
    }

    /// Columns between a node and its partner, as both lie in the block's memory.
    fn partner_moved(&self, partner: &Start<'_, T>, shift: usize) -> isize {
        let wedge = self.pass.job.phase.wedge;
        let lean = wedge.lean(partner.row) - wedge.lean(self.row);
        self.pass.stage.level.partner_columns(shift).wrapping_sub(lean) as isize
    }

    /// Peaks of the start: greater than the neighbours before them in (shift, column), not less than those after.
    pub(super) fn find_peaks(&self, largest: &[f32], closer: &mut Closer, peaks: &mut Vec<Peak>) {
        let stage = self.pass.stage;
        let least = JUST_BELOW * self.pass.job.request.threshold;
        let largest = stage.reported.clone().zip(largest);
        closer.promising.clear();
        closer.promising.extend(largest.filter(|(_, largest)| **largest > least).map(|(shift, _)| shift));
        self.look_closer(None, closer, peaks);
    }

    /// Peaks among the pairs that the start makes with the next one.
    pub(super) fn find_paired_peaks(
        &self,
        partner: &Start<'_, T>,
        [of_self, of_partner]: &[Vec<f32>; 2],
        closer: &mut Closer,
        peaks: &mut Vec<Peak>,
    ) {
        let Pass { job, stage, .. } = *self.pass;
        let (least, least_each) =
            (JUST_BELOW * job.request.threshold, JUST_BELOW * PARTNER_SHARE * job.request.threshold);
        closer.promising.clear();
        for (shift, (a, b)) in stage.reported.clone().zip(of_self.iter().zip(of_partner)) {
            // Of all weights that a pair's pixels may have, equal significances win most.
            let largest = (2.0 * (a * a + b * b)).sqrt() * self.inverse_sd_paired(shift);
            if a.min(*b) > least_each && largest > least * self.inverse_sd(shift) {
                closer.promising.push(shift);
            }
        }
        self.look_closer(Some(partner), closer, peaks);
    }

    /// Peaks of the promising shifts.
    fn look_closer(&self, partner: Option<&Start<'_, T>>, closer: &mut Closer, peaks: &mut Vec<Peak>) {
        let Pass { arch, job, stage, .. } = *self.pass;
        let Closer { rows, promising, columns } = closer;
        rows.forget();
        for &shift in &*promising {
            // Most promises are not kept: neighbours are summed where they are.
            if rows.fill(Some(shift), |row| self.significances(partner, Some(shift), row)) <= job.request.threshold {
                continue;
            }
            for beside in [shift.checked_sub(1), Some(shift + 1)] {
                rows.fill(beside, |row| self.significances(partner, beside, row));
            }
            let around = [shift.checked_sub(1), Some(shift), Some(shift + 1)].map(|shift| rows.values(shift));
            columns.clear();
            lanes::find_peaks(arch, around, job.request.threshold, columns);
            for &x in &*columns {
                if partner.is_none_or(|p| self.both_count(p, shift, x)) {
                    let column = job.first_column(self.row) + x as i64 - 1;
                    let start = self.row / stage.level.start_step;
                    let node = Node { level: stage.index, start, shift, column, paired: partner.is_some() };
                    let segment = job.phase.task.segment(&node);
                    peaks.extend(segment.map(|segment| Peak { segment, snr: f64::from(around[1][x]) }));
                }
            }
        }
    }

    /// Whether a node and its partner are significant enough to count together.
    fn both_count(&self, partner: &Start<'_, T>, shift: usize, x: usize) -> bool {
        let least = PARTNER_SHARE * self.pass.job.request.threshold;
        let at = |start: &Start<'_, T>, moved: isize| {
            let plain = start.sum_at(self.pass.values, shift, moved, x) * self.inverse_sd(shift);
            if !self.pass.job.request.weighted {
                return plain;
            }
            let share = start.sum_at(self.pass.weights, shift, moved, x) * (1.0 / self.pass.stage.level.height as f32);
            if share > MIN_COVERAGE { plain / share.sqrt() } else { 0.0 }
        };
        at(self, 0) >= least && at(partner, self.partner_moved(partner, shift)) >= least
    }

    /// One of the sums of the block's own columns.
    fn sum_at<N: Number>(&self, nodes: Nodes<'_, N>, shift: usize, moved: isize, x: usize) -> f32 {
        self.own_halves(nodes, shift, moved).iter().map(|half| half[x].to_f32()).sum()
    }
}

/// Significances of one shift, with one column more on either side.
#[derive(Default)]
struct Significances {
    values: Vec<f32>,
    weights: Vec<f32>,
}

/// Significances of three neighbouring shifts of a start: a shift's are summed once.
#[derive(Default)]
struct Neighbours {
    rows: [Significances; 3],
    held: [Option<Held>; 3],
}

/// What a row holds.
#[derive(Clone, Copy)]
struct Held {
    /// None is before the first shift.
    shift: Option<usize>,
    /// None of its significances is larger.
    largest: f32,
}

impl Neighbours {
    fn row_of(shift: Option<usize>) -> usize {
        shift.map_or(0, |s| s + 1) % 3
    }

    fn forget(&mut self) {
        self.held = [None; 3];
    }

    /// Fills in a shift's row, if it is not; returns what none of its significances exceeds, 0 for a shift that is not
    /// there.
    fn fill(&mut self, shift: Option<usize>, sum: impl FnOnce(&mut Significances) -> f32) -> f32 {
        let row = Self::row_of(shift);
        match self.held[row] {
            Some(held) if held.shift == shift => held.largest,
            _ => {
                let largest = sum(&mut self.rows[row]);
                self.held[row] = Some(Held { shift, largest });
                largest
            }
        }
    }

    fn values(&self, shift: Option<usize>) -> &[f32] {
        &self.rows[Self::row_of(shift)].values
    }
}

/// A rounding below a threshold, which a closer look applies.
pub(super) const JUST_BELOW: f32 = 0.999_99;
