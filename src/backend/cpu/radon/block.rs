//! One block of a phase: its levels one after the other in two buffers, and the peaks of each.

use std::ops::Range;

use pulp::Arch;

use super::lanes;
use super::plan::{Block, Phase, Stage};
use crate::pipeline::search::{MIN_COVERAGE, PARTNER_SHARE, Peak, SearchRequest};
use crate::pipeline::segments::Node;

/// Where the first level of a block comes from.
pub(super) trait FirstLevel: Sync {
    /// Fills the nodes `[shift, column]` that start at a row, the first column given, and what no node of each shift
    /// exceeds; false when all of them are zero.
    fn fill(&self, row: usize, first_column: i64, stage: &Stage<'_>, nodes: &mut [f32], largest: &mut [f32]) -> bool;
}

/// Nodes of one level that the next one needs: `[start, shift, column]`.
#[derive(Debug, Default)]
struct Kept {
    values: Vec<f32>,
    weights: Vec<f32>,
    /// What no value of a row of nodes exceeds, `[start, shift]`.
    largest: Vec<f32>,
    /// Starts that have anything in the frame; the nodes of the others are not filled in.
    present: Vec<bool>,
}

/// Memory of one thread, kept from block to block.
pub(super) struct Workspace {
    arch: Arch,
    lower: Kept,
    upper: Kept,
    zeros: Vec<f32>,
    sums: Sums,
}

/// Sums of single shifts.
#[derive(Default)]
struct Sums {
    values: Vec<f32>,
    weights: Vec<f32>,
    rows: Neighbours,
    /// Where a shift's row has peaks.
    columns: Vec<usize>,
    /// Shifts of one start that may hold a peak.
    promising: Vec<usize>,
    /// No significance of each reported shift is larger: of the start before, and of this one.
    largest: [Vec<f32>; 2],
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            arch: Arch::new(),
            lower: Kept::default(),
            upper: Kept::default(),
            zeros: Vec::new(),
            sums: Sums::default(),
        }
    }
}

/// What a block is asked for.
pub(super) struct Job<'a> {
    pub(super) phase: &'a Phase<'a>,
    pub(super) block: &'a Block,
    pub(super) request: &'a SearchRequest,
}

impl Workspace {
    /// Works through all levels of one block, and returns its peaks.
    pub(super) fn transform(
        &mut self,
        job: &Job<'_>,
        values: &impl FirstLevel,
        weights: &impl FirstLevel,
    ) -> Vec<Peak> {
        let mut peaks = Vec::new();
        let stages = &job.phase.stages;
        self.fill_first(job, values, weights);
        if !self.upper.present.contains(&true) {
            return peaks;
        }
        for (index, stage) in stages.iter().enumerate().skip(1) {
            std::mem::swap(&mut self.lower, &mut self.upper);
            let keeps = index + 1 < stages.len() || job.phase.keeps_last;
            let rows = stage.rows(job.block, job.phase.task);
            let n_nodes = job.n_nodes(stage);
            let n_starts = if keeps { rows.len().div_ceil(stage.keep_step) } else { 0 };
            self.upper.make_room(n_starts, stage.shifts.len(), n_nodes, job.request);
            // Twin shifts have two rows of sums, and read a column more of zeros.
            for buffer in [&mut self.zeros, &mut self.sums.values, &mut self.sums.weights] {
                buffer.resize(buffer.len().max(2 * stage.width(job.block)), 0.0);
            }
            let pass =
                Pass { arch: self.arch, job, below: &stages[index - 1], stage, lower: &self.lower, zeros: &self.zeros };
            let mut before: Option<Start<'_>> = None;
            for row in rows.step_by(stage.level.start_step.min(stage.keep_step)) {
                let Some(start) = pass.start(row) else { continue };
                let from_first = row - job.block.rows.start;
                let is_kept = keeps && from_first.is_multiple_of(stage.keep_step);
                let partner_of = before.as_ref().filter(|b| b.has_partner_at(row));
                if is_kept {
                    start.keep(&mut self.upper, from_first / stage.keep_step, &mut self.sums);
                } else if start.is_reported() || partner_of.is_some() {
                    start.look(&mut self.sums);
                } else {
                    continue;
                }
                if start.is_reported() {
                    start.find_peaks(&mut self.sums, &mut peaks);
                }
                if let Some(before) = partner_of {
                    before.find_paired_peaks(&start, &mut self.sums, &mut peaks);
                }
                if start.is_reported() {
                    self.sums.largest.swap(0, 1);
                    before = Some(start);
                }
            }
        }
        peaks
    }

    fn fill_first(&mut self, job: &Job<'_>, values: &impl FirstLevel, weights: &impl FirstLevel) {
        let stage = &job.phase.stages[0];
        let rows = stage.rows(job.block, job.phase.task);
        let n_nodes = job.n_nodes(stage);
        let n_shifts = stage.shifts.len();
        self.upper.make_room(rows.len().div_ceil(stage.keep_step), n_shifts, n_nodes, job.request);
        let mut of_weights = vec![0.0; n_shifts];
        for (start, row) in rows.step_by(stage.keep_step).enumerate() {
            let nodes = start * n_nodes..(start + 1) * n_nodes;
            let first_column = job.first_column(row) - stage.left as i64;
            let largest = &mut self.upper.largest[start * n_shifts..(start + 1) * n_shifts];
            let present = values.fill(row, first_column, stage, &mut self.upper.values[nodes.clone()], largest);
            if present && job.request.weighted {
                weights.fill(row, first_column, stage, &mut self.upper.weights[nodes], &mut of_weights);
            }
            self.upper.present[start] = present;
        }
    }

    /// The block's own columns of a node row of the last level: values, or weights; none where all are zero.
    pub(super) fn kept(&self, job: &Job<'_>, row: usize, shift: usize, weights: bool) -> Option<&[f32]> {
        let stage = job.phase.stages.last()?;
        let start = (row - job.block.rows.start) / stage.keep_step;
        let nodes = if weights { &self.upper.weights } else { &self.upper.values };
        let width = stage.width(job.block);
        let first = (start * stage.shifts.len() + shift - stage.shifts.start) * width + stage.left;
        self.upper.present[start].then(|| &nodes[first..first + job.block.n_columns])
    }
}

impl Kept {
    fn make_room(&mut self, n_starts: usize, n_shifts: usize, n_nodes: usize, request: &SearchRequest) {
        self.present.clear();
        self.present.resize(n_starts, false);
        self.largest.resize(self.largest.len().max(n_starts * n_shifts), 0.0);
        self.values.resize(self.values.len().max(n_starts * n_nodes), 0.0);
        if request.weighted {
            self.weights.resize(self.weights.len().max(n_starts * n_nodes), 0.0);
        }
    }
}

impl Job<'_> {
    /// Nodes of one start.
    fn n_nodes(&self, stage: &Stage<'_>) -> usize {
        stage.width(self.block) * stage.shifts.len()
    }

    /// First of the block's own columns at a row.
    fn first_column(&self, row: usize) -> i64 {
        self.block.first_column + self.phase.wedge.lean(row) as i64
    }
}

/// One level of a block being made from the one below.
struct Pass<'a> {
    arch: Arch,
    job: &'a Job<'a>,
    below: &'a Stage<'a>,
    stage: &'a Stage<'a>,
    lower: &'a Kept,
    zeros: &'a [f32],
}

/// One start of a level: its nodes are sums of nodes at two starts below, one of which may lie beyond the frame.
struct Start<'a> {
    pass: &'a Pass<'a>,
    row: usize,
    halves: [Option<usize>; 2],
    /// Columns that the block leans over in the upper half.
    lean: usize,
}

impl<'a> Pass<'a> {
    /// None where all nodes of the start are zero.
    fn start(&'a self, row: usize) -> Option<Start<'a>> {
        let first = self.job.block.rows.start;
        let half = self.stage.level.height / 2;
        let halves = [row, row + half].map(|row| {
            let start = (row - first) / self.below.keep_step;
            self.lower.present.get(start).is_some_and(|p| *p).then_some(start)
        });
        let wedge = self.job.phase.wedge;
        let lean = wedge.lean(row + half) - wedge.lean(row);
        halves.iter().any(Option::is_some).then_some(Start { pass: self, row, halves, lean })
    }
}

impl<'a> Start<'a> {
    fn is_reported(&self) -> bool {
        let level = self.pass.stage.level;
        !self.pass.stage.reported.is_empty()
            && self.row < self.pass.job.block.rows.end
            && self.row.is_multiple_of(level.start_step)
            && self.row / level.start_step < level.reported_starts
    }

    /// The two rows that the nodes of a shift, or of two twins, are sums of; the second one goes a column further for
    /// twins.
    fn halves<'n>(&self, nodes: &'n [f32], shifts: &Range<usize>) -> [&'n [f32]; 2]
    where
        'a: 'n,
    {
        let Pass { job, below, stage, zeros, .. } = *self.pass;
        let (width, width_below) = (stage.width(job.block), below.width(job.block));
        let row_of = |start: Option<usize>, column: usize, width: usize| match start {
            None => &zeros[..width],
            Some(start) => {
                let node = start * below.shifts.len() + shifts.start / 2 - below.shifts.start;
                let first = node * width_below + column - stage.left;
                &nodes[first..first + width]
            }
        };
        let beside = below.left + shifts.start.div_ceil(2) - self.lean;
        [row_of(self.halves[0], below.left, width), row_of(self.halves[1], beside, width + shifts.len() - 1)]
    }

    /// Sums the nodes of a shift or of twins; returns the largest of each.
    fn sum(&self, out: &mut [f32], nodes: &[f32], shifts: &Range<usize>) -> [f32; 2] {
        let (arch, [a, b]) = (self.pass.arch, self.halves(nodes, shifts));
        if shifts.len() == 2 { lanes::add_twins(arch, out, a, b) } else { [lanes::add(arch, out, a, b), 0.0] }
    }

    /// The largest sum of a shift or of twins, without keeping them.
    fn largest_sum(&self, nodes: &[f32], shifts: &Range<usize>) -> [f32; 2] {
        let (arch, [a, b]) = (self.pass.arch, self.halves(nodes, shifts));
        if shifts.len() == 2 { lanes::largest_of_twins(arch, a, b) } else { [lanes::largest_sum(arch, a, b), 0.0] }
    }

    /// What no sum of a shift or of twins exceeds: the largest values of the two rows together.
    fn most_of(&self, shifts: &Range<usize>) -> f32 {
        let Pass { below, lower, .. } = *self.pass;
        let largest = |start: Option<usize>| {
            start.map_or(0.0, |s| lower.largest[s * below.shifts.len() + shifts.start / 2 - below.shifts.start])
        };
        largest(self.halves[0]) + largest(self.halves[1])
    }

    /// Whether the start one step further down, at this row, makes pairs with this one.
    fn has_partner_at(&self, row: usize) -> bool {
        let level = self.pass.stage.level;
        level.is_paired() && row == self.row + level.start_step
    }

    /// Keeps all nodes for the next level, and notes the largest significance of each reported shift.
    fn keep(&self, kept: &mut Kept, start: usize, sums: &mut Sums) {
        let Pass { job, stage, lower, .. } = *self.pass;
        let (width, n_nodes, n_shifts) = (stage.width(job.block), job.n_nodes(stage), stage.shifts.len());
        let values = &mut kept.values[start * n_nodes..(start + 1) * n_nodes];
        let mut weights =
            if job.request.weighted { Some(&mut kept.weights[start * n_nodes..(start + 1) * n_nodes]) } else { None };
        let kept_largest = &mut kept.largest[start * n_shifts..(start + 1) * n_shifts];
        kept.present[start] = true;
        sums.largest[1].clear();
        for shifts in twins(stage.shifts.clone()) {
            let first = shifts.start - stage.shifts.start;
            let nodes = first * width..(first + shifts.len()) * width;
            let values = &mut values[nodes.clone()];
            let mut largest = self.sum(values, &lower.values, &shifts);
            kept_largest[first..first + shifts.len()].copy_from_slice(&largest[..shifts.len()]);
            if let Some(weights) = weights.as_deref_mut() {
                let weights = &mut weights[nodes];
                self.sum(weights, &lower.weights, &shifts);
                largest = self.largest_weighted(values, weights);
            }
            self.note(sums, shifts, largest);
        }
    }

    /// Notes the largest significance of each reported shift of nodes that no other level needs, or what it does not
    /// exceed where that is too little for a peak.
    fn look(&self, sums: &mut Sums) {
        let Pass { job, stage, lower, .. } = *self.pass;
        let width = stage.width(job.block);
        let least = JUST_BELOW * job.request.threshold * if stage.level.is_paired() { PARTNER_SHARE } else { 1.0 };
        sums.largest[1].clear();
        for shifts in twins(stage.reported.clone()) {
            let most = self.most_of(&shifts);
            let largest = if job.request.weighted {
                let nodes = 0..shifts.len() * width;
                let (values, weights) = (&mut sums.values[nodes.clone()], &mut sums.weights[nodes]);
                self.sum(values, &lower.values, &shifts);
                self.sum(weights, &lower.weights, &shifts);
                self.largest_weighted(values, weights)
            } else if shifts.clone().any(|shift| most * self.inverse_sd(shift) > least) {
                self.largest_sum(&lower.values, &shifts)
            } else {
                [most; 2]
            };
            self.note(sums, shifts, largest);
        }
    }

    fn note(&self, sums: &mut Sums, shifts: Range<usize>, largest: [f32; 2]) {
        let reported = shifts.zip(largest).filter(|(shift, _)| self.pass.stage.reported.contains(shift));
        sums.largest[1].extend(reported.map(|(shift, largest)| largest * self.inverse_sd(shift)));
    }

    /// The largest value over the root of its share of usable pixels, of a shift or of twins.
    fn largest_weighted(&self, values: &[f32], weights: &[f32]) -> [f32; 2] {
        let (width, height) = (self.pass.stage.width(self.pass.job.block), self.pass.stage.level.height as f32);
        let mut largest = [0.0; 2];
        let rows = values.chunks_exact(width).zip(weights.chunks_exact(width));
        for (largest, (values, weights)) in largest.iter_mut().zip(rows) {
            let power = lanes::largest_power(self.pass.arch, values, weights, MIN_COVERAGE * height);
            *largest = (height * power).sqrt();
        }
        largest
    }

    fn inverse_sd(&self, shift: usize) -> f32 {
        let level = self.pass.stage.level;
        level.inverse_sd[shift - level.shifts.start]
    }

    /// The two rows that the block's own columns, and one more on either side, are sums of; moved by some.
    fn own_halves<'n>(&self, nodes: &'n [f32], shift: usize, moved: isize) -> [&'n [f32]; 2]
    where
        'a: 'n,
    {
        let Pass { job, stage, .. } = *self.pass;
        let first = (stage.left - 1).strict_add_signed(moved);
        self.halves(nodes, &(shift..shift + 1)).map(|half| &half[first..first + job.block.n_columns + 2])
    }

    /// Significances of the block's own columns, and one more on either side; with a partner those of the pairs.
    /// Returns the largest of them, or 0.
    fn significances(&self, partner: Option<&Start<'_>>, shift: Option<usize>, out: &mut Significances) -> f32 {
        let Pass { arch, job, stage, lower, .. } = *self.pass;
        let Significances { values, weights } = out;
        values.resize(job.block.n_columns + 2, 0.0);
        let Some(shift) = shift.filter(|s| stage.level.shifts.contains(s)) else {
            values.fill(f32::NEG_INFINITY);
            return 0.0;
        };
        let level = stage.level;
        let (scale, n_rows) = match partner {
            None => (self.inverse_sd(shift), level.height),
            Some(_) => (level.inverse_sd_paired[shift - level.shifts.start], 2 * level.height),
        };
        let fill = |out: &mut [f32], nodes: &[f32], scale: f32| {
            let own = self.own_halves(nodes, shift, 0);
            match partner {
                None => lanes::scaled_sums(arch, out, own, scale),
                Some(partner) => {
                    let of_partner = partner.own_halves(nodes, shift, self.partner_moved(partner, shift));
                    lanes::scaled_sums_of_pairs(arch, out, own, of_partner, scale)
                }
            }
        };
        let largest = fill(values, &lower.values, scale);
        if !job.request.weighted {
            return largest;
        }
        weights.resize(values.len(), 0.0);
        fill(weights, &lower.weights, 1.0 / n_rows as f32);
        lanes::over_root(arch, values, weights, MIN_COVERAGE)
    }

    /// Columns between a node and its partner, as both lie in the block's memory.
    fn partner_moved(&self, partner: &Start<'_>, shift: usize) -> isize {
        let wedge = self.pass.job.phase.wedge;
        let lean = wedge.lean(partner.row) - wedge.lean(self.row);
        self.pass.stage.level.partner_columns(shift).wrapping_sub(lean) as isize
    }

    /// Peaks of the start: greater than the neighbours before them in (shift, column), not less than those after.
    fn find_peaks(&self, sums: &mut Sums, peaks: &mut Vec<Peak>) {
        let stage = self.pass.stage;
        let least = JUST_BELOW * self.pass.job.request.threshold;
        sums.promising.clear();
        let largest = stage.reported.clone().zip(&sums.largest[1]);
        sums.promising.extend(largest.filter(|(_, largest)| **largest > least).map(|(shift, _)| shift));
        self.look_closer(None, sums, peaks);
    }

    /// Peaks among the pairs that the start makes with the next one.
    fn find_paired_peaks(&self, partner: &Start<'_>, sums: &mut Sums, peaks: &mut Vec<Peak>) {
        let Pass { job, stage, .. } = *self.pass;
        let level = stage.level;
        let (least, least_each) =
            (JUST_BELOW * job.request.threshold, JUST_BELOW * PARTNER_SHARE * job.request.threshold);
        let [of_self, of_partner] = &sums.largest;
        sums.promising.clear();
        for (shift, (a, b)) in stage.reported.clone().zip(of_self.iter().zip(of_partner)) {
            // Of all weights that a pair's pixels may have, equal significances win most.
            let largest = (2.0 * (a * a + b * b)).sqrt() * level.inverse_sd_paired[shift - level.shifts.start];
            if a.min(*b) > least_each && largest > least * self.inverse_sd(shift) {
                sums.promising.push(shift);
            }
        }
        self.look_closer(Some(partner), sums, peaks);
    }

    /// Peaks of the promising shifts.
    fn look_closer(&self, partner: Option<&Start<'_>>, sums: &mut Sums, peaks: &mut Vec<Peak>) {
        let Pass { arch, job, stage, .. } = *self.pass;
        let Sums { rows, promising, columns, .. } = sums;
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
    fn both_count(&self, partner: &Start<'_>, shift: usize, x: usize) -> bool {
        let least = PARTNER_SHARE * self.pass.job.request.threshold;
        let at = |start: &Start<'_>, moved: isize| {
            let sum = |nodes: &[f32]| start.own_halves(nodes, shift, moved).iter().map(|half| half[x]).sum::<f32>();
            let plain = sum(&self.pass.lower.values) * self.inverse_sd(shift);
            if !self.pass.job.request.weighted {
                return plain;
            }
            let share = sum(&self.pass.lower.weights) * (1.0 / self.pass.stage.level.height as f32);
            if share > MIN_COVERAGE { plain / share.sqrt() } else { 0.0 }
        };
        at(self, 0) >= least && at(partner, self.partner_moved(partner, shift)) >= least
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
const JUST_BELOW: f32 = 0.999_99;

/// Twins are two shifts that are sums of the same rows: the first is even. At the ends one may stand alone.
fn twins(shifts: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut next = shifts.start;
    std::iter::from_fn(move || {
        let first = next;
        next = (first - first % 2 + 2).min(shifts.end);
        (first < shifts.end).then_some(first..next)
    })
}
