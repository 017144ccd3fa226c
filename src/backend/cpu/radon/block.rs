//! One block of a phase: its levels, made as the rows of the first come in, and the peaks of each.
//!
//! A start is made as soon as the lower of its halves is there. So a level keeps no more starts than those from which
//! the next one is made, and what was summed last is summed up next, while it is in the nearest cache.

use std::ops::Range;

use pulp::Arch;

use super::lanes;
use super::number::Number;
use super::peaks::{Closer, JUST_BELOW};
use super::plan::{Block, Phase, Stage};
use crate::pipeline::search::{MIN_COVERAGE, PARTNER_SHARE, Peak, SearchRequest};

/// Where the first level of a block comes from.
pub(super) trait FirstLevel<T> {
    /// Gives the nodes `[shift, column]` that start at a row, from a column on, and what no node of each shift exceeds.
    /// Rows are asked for from the top down.
    fn give(&mut self, row: usize, column: i64, stage: &Stage<'_>, nodes: &mut [T], largest: &mut [f32]) -> Given;

    /// Nodes that need not be copied, and how far apart the shifts lie there.
    fn elsewhere(&self) -> (&[T], usize) {
        (&[], 0)
    }
}

/// Where the nodes of a start are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Given {
    /// All of them are zero.
    #[default]
    Nothing,
    /// In the memory asked for.
    Here,
    /// Elsewhere, from this node on.
    There(usize),
}

/// Where the last level of a block goes when another phase needs it.
pub(super) trait LastLevel<T> {
    /// Stores the block's own columns of the nodes `[shift, column]` that start at a row, and what no value of each shift
    /// exceeds. Every row of the block has such a start.
    fn store(&mut self, job: &Job<'_>, row: usize, made: &Made<'_, T>);
}

/// Nodes of one start.
pub(super) struct Made<'a, T> {
    pub(super) values: &'a [T],
    /// Of no meaning where no weights are asked for.
    pub(super) weights: &'a [f32],
    /// By shift.
    pub(super) largest: &'a [f32],
}

/// What a block is asked for.
pub(super) struct Job<'a> {
    pub(super) phase: &'a Phase<'a>,
    pub(super) block: &'a Block,
    pub(super) request: &'a SearchRequest,
}

impl Job<'_> {
    /// First of the block's own columns at a row.
    pub(super) fn first_column(&self, row: usize) -> i64 {
        self.block.first_column + self.phase.wedge.lean(row) as i64
    }

    fn rows(&self, stage: &Stage<'_>) -> Range<usize> {
        stage.rows(self.block, self.phase.task)
    }
}

/// Memory of one thread, kept from block to block.
#[derive(Default)]
pub(super) struct Workspace<T> {
    arch: Arch,
    /// One a stage, or more of other blocks.
    rungs: Vec<Rung<T>>,
    /// Read where a half lies beyond the frame.
    zeros: Rows<T>,
    /// Sums of twins that no level needs.
    sums: Rows<T>,
    closer: Closer,
}

/// Rows of values and weights.
#[derive(Default)]
struct Rows<T> {
    values: Vec<T>,
    weights: Vec<f32>,
}

impl<T: Number> Rows<T> {
    fn make_room(&mut self, len: usize) {
        self.values.resize(self.values.len().max(len), T::zeroed());
        self.weights.resize(self.weights.len().max(len), 0.0);
    }
}

/// One level of the block.
#[derive(Default)]
struct Rung<T> {
    ring: Ring<T>,
    /// No significance of each reported shift is larger: of the start before, and of this one.
    largest: [Vec<f32>; 2],
    /// Row of the reported start before.
    before: Option<usize>,
}

/// Nodes of the last starts of a level: `[start, shift, column]`, by turns in the same places.
#[derive(Default)]
struct Ring<T> {
    values: Vec<T>,
    weights: Vec<f32>,
    /// What no value of a row of nodes exceeds, `[start, shift]`.
    largest: Vec<f32>,
    /// Where the nodes of each start are.
    given: Vec<Given>,
    /// Rows of all starts.
    rows: Range<usize>,
    step: usize,
    n_shifts: usize,
    width: usize,
    /// From shift to shift of starts that are elsewhere.
    stride_there: usize,
}

impl<T: Number> Ring<T> {
    /// Makes room for the starts of a stage from which one of the stage above, and the one before, are made.
    fn make_room(&mut self, job: &Job<'_>, stage: &Stage<'_>, above: Option<&Stage<'_>>) {
        let rows = above.map_or(0, |s| s.level.height / 2 + if s.level.is_paired() { s.level.start_step } else { 0 });
        self.rows = job.rows(stage);
        self.step = stage.keep_step;
        self.n_shifts = stage.shifts.len();
        self.width = stage.width(job.block);
        let n_starts = rows.div_ceil(self.step) + 1;
        self.given.clear();
        self.given.resize(n_starts, Given::Nothing);
        let n_rows = n_starts * self.n_shifts;
        let n_nodes = n_rows * self.width;
        self.largest.resize(self.largest.len().max(n_rows), 0.0);
        self.values.resize(self.values.len().max(n_nodes), T::zeroed());
        if job.request.weighted {
            self.weights.resize(self.weights.len().max(n_nodes), 0.0);
        }
    }

    fn place(&self, row: usize) -> usize {
        (row - self.rows.start) / self.step % self.given.len()
    }

    /// The start at a row, if it has anything in the frame.
    fn half(&self, row: usize) -> Option<Half> {
        if row >= self.rows.end {
            return None;
        }
        let place = self.place(row);
        match self.given[place] {
            Given::Nothing => None,
            Given::Here => Some(Half { place, is_here: true, first: self.first_node(place, 0), stride: self.width }),
            Given::There(first) => Some(Half { place, is_here: false, first, stride: self.stride_there }),
        }
    }

    fn made(&self, place: usize) -> Made<'_, T> {
        let nodes = self.nodes(place);
        Made {
            weights: self.weights.get(nodes.clone()).unwrap_or_default(),
            values: &self.values[nodes],
            largest: &self.largest[place * self.n_shifts..][..self.n_shifts],
        }
    }

    fn nodes(&self, place: usize) -> Range<usize> {
        self.first_node(place, 0)..self.first_node(place + 1, 0)
    }

    /// First node of a shift, counted from the lowest.
    fn first_node(&self, place: usize, shift: usize) -> usize {
        (place * self.n_shifts + shift) * self.width
    }
}

impl<T: Number> Workspace<T> {
    /// Works through all levels of one block, and returns its peaks.
    pub(super) fn transform<V: FirstLevel<T>, W: FirstLevel<f32>>(
        &mut self,
        job: &Job<'_>,
        (values, weights): (&mut V, &mut W),
        mut last: Option<&mut (dyn LastLevel<T> + '_)>,
    ) -> Vec<Peak> {
        let mut peaks = Vec::new();
        let stages = &job.phase.stages;
        self.make_room(job);
        self.rungs[0].ring.stride_there = values.elsewhere().1;
        let rows = job.block.rows.start..job.block.rows.end + stages[0].rows_beyond;
        for row in rows.step_by(stages[0].keep_step) {
            self.fill_first(job, row, values, weights);
            let there = (values.elsewhere().0, weights.elsewhere().0);
            // Lower halves that are complete now begin further and further up.
            let mut lower = row;
            for (index, stage) in stages.iter().enumerate().skip(1) {
                let half = stage.level.height / 2;
                let Some(row) = lower.checked_sub(half).filter(|row| *row >= job.block.rows.start) else { break };
                let last = if index + 1 == stages.len() { last.as_deref_mut() } else { None };
                if !self.make(job, index, row, there, last, &mut peaks) {
                    break;
                }
                lower = row;
            }
        }
        peaks
    }

    fn make_room(&mut self, job: &Job<'_>) {
        let stages = &job.phase.stages;
        self.rungs.resize_with(self.rungs.len().max(stages.len()), Rung::default);
        for (index, (rung, stage)) in self.rungs.iter_mut().zip(stages).enumerate() {
            rung.ring.make_room(job, stage, stages.get(index + 1));
            rung.before = None;
        }
        // Twin shifts have two rows of sums, and read a column more of zeros.
        let most = stages.iter().map(|s| 2 * s.width(job.block)).max().unwrap_or(0);
        self.zeros.make_room(most);
        self.sums.make_room(most);
    }

    fn fill_first(
        &mut self,
        job: &Job<'_>,
        row: usize,
        values: &mut impl FirstLevel<T>,
        weights: &mut impl FirstLevel<f32>,
    ) {
        let (ring, stage) = (&mut self.rungs[0].ring, &job.phase.stages[0]);
        if row >= ring.rows.end {
            return;
        }
        let place = ring.place(row);
        let first_column = job.first_column(row) - stage.left as i64;
        let (nodes, largest) = (ring.nodes(place), place * ring.n_shifts..(place + 1) * ring.n_shifts);
        let largest = &mut ring.largest[largest];
        if job.request.weighted {
            weights.give(row, first_column, stage, &mut ring.weights[nodes.clone()], largest);
        }
        ring.given[place] = values.give(row, first_column, stage, &mut ring.values[nodes], largest);
    }

    /// Makes one start of a stage, and looks for its peaks; returns whether the next stage is made of it.
    fn make(
        &mut self,
        job: &Job<'_>,
        index: usize,
        row: usize,
        there: (&[T], &[f32]),
        last: Option<&mut (dyn LastLevel<T> + '_)>,
        peaks: &mut Vec<Peak>,
    ) -> bool {
        let stages = &job.phase.stages;
        let (below, stage) = (&stages[index - 1], &stages[index]);
        let from_first = row - job.block.rows.start;
        if !from_first.is_multiple_of(stage.level.start_step.min(stage.keep_step)) {
            return false;
        }
        let is_kept = from_first.is_multiple_of(stage.keep_step) && (index + 1 < stages.len() || last.is_some());
        let (lower, upper) = self.rungs.split_at_mut(index);
        let (lower, Rung { ring, largest, before }) = (&lower[index - 1].ring, &mut upper[0]);
        if row >= ring.rows.end {
            return is_kept;
        }
        let there = if index == 1 { there } else { (&[][..], &[][..]) };
        let values = Nodes { here: &lower.values, there: there.0, zeros: &self.zeros.values };
        let weights = Nodes { here: &lower.weights, there: there.1, zeros: &self.zeros.weights };
        let pass = Pass { arch: self.arch, job, below, stage, lower, values, weights };
        let place = ring.place(row);
        let start = pass.start(row);
        if is_kept {
            ring.given[place] = if start.is_some() { Given::Here } else { Given::Nothing };
            if let Some(start) = &start {
                start.keep(ring, place, &mut largest[1]);
                if let Some(last) = last {
                    last.store(job, row, &ring.made(place));
                }
            }
        }
        let Some(start) = start else { return is_kept };
        let partner_of = before.filter(|before| start.is_partner_of(*before)).and_then(|row| pass.start(row));
        if !is_kept {
            if !start.is_reported() && partner_of.is_none() {
                return false;
            }
            start.look(&mut self.sums, &mut largest[1]);
        }
        if start.is_reported() {
            start.find_peaks(&largest[1], &mut self.closer, peaks);
        }
        if let Some(before) = partner_of {
            before.find_paired_peaks(&start, largest, &mut self.closer, peaks);
        }
        if start.is_reported() {
            largest.swap(0, 1);
            *before = Some(row);
        }
        is_kept
    }
}

/// One level of a block being made from the one below.
pub(super) struct Pass<'a, T> {
    pub(super) arch: Arch,
    pub(super) job: &'a Job<'a>,
    below: &'a Stage<'a>,
    pub(super) stage: &'a Stage<'a>,
    lower: &'a Ring<T>,
    /// Of the level below.
    pub(super) values: Nodes<'a, T>,
    pub(super) weights: Nodes<'a, f32>,
}

/// Nodes of a level, in its ring and elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Nodes<'a, N> {
    here: &'a [N],
    there: &'a [N],
    zeros: &'a [N],
}

/// One start of a level: its nodes are sums of nodes at two starts below, one of which may lie beyond the frame.
pub(super) struct Start<'a, T> {
    pub(super) pass: &'a Pass<'a, T>,
    pub(super) row: usize,
    halves: [Option<Half>; 2],
    /// Columns that the block leans over in the upper half.
    lean: usize,
}

/// A start of the level below.
#[derive(Clone, Copy)]
struct Half {
    place: usize,
    is_here: bool,
    /// First node, and how far apart the shifts are.
    first: usize,
    stride: usize,
}

impl<'a, T: Number> Pass<'a, T> {
    /// None where all nodes of the start are zero.
    fn start(&'a self, row: usize) -> Option<Start<'a, T>> {
        let half = self.stage.level.height / 2;
        let halves = [row, row + half].map(|row| self.lower.half(row));
        let wedge = self.job.phase.wedge;
        let lean = wedge.lean(row + half) - wedge.lean(row);
        halves.iter().any(Option::is_some).then_some(Start { pass: self, row, halves, lean })
    }
}

impl<'a, T: Number> Start<'a, T> {
    fn is_reported(&self) -> bool {
        let level = self.pass.stage.level;
        !self.pass.stage.reported.is_empty()
            && self.row < self.pass.job.block.rows.end
            && self.row.is_multiple_of(level.start_step)
            && self.row / level.start_step < level.reported_starts
    }

    /// Whether it makes pairs with the start at a row, one step further up.
    fn is_partner_of(&self, row: usize) -> bool {
        let level = self.pass.stage.level;
        level.is_paired() && self.row == row + level.start_step
    }

    /// The two rows that the nodes of a shift, or of two twins, are sums of; the second one goes a column further for
    /// twins.
    pub(super) fn halves<'n, N>(&self, nodes: Nodes<'n, N>, shifts: &Range<usize>) -> [&'n [N]; 2]
    where
        'a: 'n,
    {
        let Pass { job, below, stage, .. } = *self.pass;
        let row_of = |half: Option<Half>, column: usize, width: usize| match half {
            None => &nodes.zeros[..width],
            Some(Half { is_here, first, stride, .. }) => {
                let first = first + (shifts.start / 2 - below.shifts.start) * stride + column - stage.left;
                &(if is_here { nodes.here } else { nodes.there })[first..first + width]
            }
        };
        let (width, beside) = (stage.width(job.block), below.left + shifts.start.div_ceil(2) - self.lean);
        [row_of(self.halves[0], below.left, width), row_of(self.halves[1], beside, width + shifts.len() - 1)]
    }

    /// Sums the nodes of a shift or of twins; returns the largest of each.
    fn sum<N: Number>(&self, out: &mut [N], nodes: Nodes<'_, N>, shifts: &Range<usize>) -> [f32; 2] {
        let (arch, [a, b]) = (self.pass.arch, self.halves(nodes, shifts));
        if shifts.len() == 2 { lanes::add_twins(arch, out, a, b) } else { [lanes::add(arch, out, a, b), 0.0] }
    }

    /// The largest sum of a shift or of twins, without keeping them.
    fn largest_sum(&self, nodes: Nodes<'_, T>, shifts: &Range<usize>) -> [f32; 2] {
        let (arch, [a, b]) = (self.pass.arch, self.halves(nodes, shifts));
        if shifts.len() == 2 { lanes::largest_of_twins(arch, a, b) } else { [lanes::largest_sum(arch, a, b), 0.0] }
    }

    /// What no sum of a shift or of twins exceeds: the largest values of the two rows together.
    fn most_of(&self, shifts: &Range<usize>) -> f32 {
        let Pass { below, lower, .. } = *self.pass;
        let largest = |half: Option<Half>| {
            half.map_or(0.0, |h| lower.largest[h.place * lower.n_shifts + shifts.start / 2 - below.shifts.start])
        };
        largest(self.halves[0]) + largest(self.halves[1])
    }

    /// Keeps all nodes for the next level, and notes the largest significance of each reported shift.
    fn keep(&self, ring: &mut Ring<T>, place: usize, noted: &mut Vec<f32>) {
        let Pass { job, stage, .. } = *self.pass;
        noted.clear();
        for shifts in twins(stage.shifts.clone()) {
            let first = shifts.start - stage.shifts.start;
            let nodes = ring.first_node(place, first)..ring.first_node(place, first + shifts.len());
            let values = &mut ring.values[nodes.clone()];
            let mut largest = self.sum(values, self.pass.values, &shifts);
            let all = place * ring.n_shifts + first;
            ring.largest[all..all + shifts.len()].copy_from_slice(&largest[..shifts.len()]);
            if job.request.weighted {
                let weights = &mut ring.weights[nodes];
                self.sum(weights, self.pass.weights, &shifts);
                largest = self.largest_weighted(values, weights);
            }
            self.note(noted, shifts, largest);
        }
    }

    /// Notes the largest significance of each reported shift of nodes that no other level needs, or what it does not
    /// exceed where that is too little for a peak.
    fn look(&self, sums: &mut Rows<T>, noted: &mut Vec<f32>) {
        let Pass { job, stage, .. } = *self.pass;
        let width = stage.width(job.block);
        let least = JUST_BELOW * job.request.threshold * if stage.level.is_paired() { PARTNER_SHARE } else { 1.0 };
        noted.clear();
        for shifts in twins(stage.reported.clone()) {
            let most = self.most_of(&shifts);
            let largest = if job.request.weighted {
                let nodes = 0..shifts.len() * width;
                let (values, weights) = (&mut sums.values[nodes.clone()], &mut sums.weights[nodes]);
                self.sum(values, self.pass.values, &shifts);
                self.sum(weights, self.pass.weights, &shifts);
                self.largest_weighted(values, weights)
            } else if shifts.clone().any(|shift| most * self.inverse_sd(shift) > least) {
                self.largest_sum(self.pass.values, &shifts)
            } else {
                [most; 2]
            };
            self.note(noted, shifts, largest);
        }
    }

    fn note(&self, noted: &mut Vec<f32>, shifts: Range<usize>, largest: [f32; 2]) {
        let reported = shifts.zip(largest).filter(|(shift, _)| self.pass.stage.reported.contains(shift));
        noted.extend(reported.map(|(shift, largest)| largest * self.inverse_sd(shift)));
    }

    /// The largest value over the root of its share of usable pixels, of a shift or of twins.
    fn largest_weighted(&self, values: &[T], weights: &[f32]) -> [f32; 2] {
        let (width, height) = (self.pass.stage.width(self.pass.job.block), self.pass.stage.level.height as f32);
        let mut largest = [0.0; 2];
        let rows = values.chunks_exact(width).zip(weights.chunks_exact(width));
        for (largest, (values, weights)) in largest.iter_mut().zip(rows) {
            let power = lanes::largest_power(self.pass.arch, values, weights, MIN_COVERAGE * height);
            *largest = (height * power).sqrt();
        }
        largest
    }

    /// Significance of a node's one.
    pub(super) fn inverse_sd(&self, shift: usize) -> f32 {
        let level = self.pass.stage.level;
        level.inverse_sd[shift - level.shifts.start] * self.pass.job.request.unit()
    }

    /// The same of a node and its partner.
    pub(super) fn inverse_sd_paired(&self, shift: usize) -> f32 {
        let level = self.pass.stage.level;
        level.inverse_sd_paired[shift - level.shifts.start] * self.pass.job.request.unit()
    }
}

/// Twins are two shifts that are sums of the same rows: the first is even. At the ends one may stand alone.
fn twins(shifts: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut next = shifts.start;
    std::iter::from_fn(move || {
        let first = next;
        next = (first - first % 2 + 2).min(shifts.end);
        (first < shifts.end).then_some(first..next)
    })
}
