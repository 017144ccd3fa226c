//! How a task's levels are computed in pieces that stay in a core's cache.
//!
//! A *phase* is a run of a task's levels, for one wedge of its slopes. A *block* is a band of rows and columns of it:
//! its columns lean with the wedge, so that all lines of the wedge that begin in a block stay near it.

use std::ops::Range;

use crate::pipeline::segments::{Level, Task};

/// The slopes `index/of … (index + 1)/of` columns per row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wedge {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Wedge {
    pub(super) const ALL_SLOPES: Self = Self { index: 0, of: 1 };

    /// Columns that a block leans over in so many rows.
    pub(super) fn lean(self, rows: usize) -> usize {
        self.index * rows / self.of
    }

    fn shifts(self, height: usize) -> Range<usize> {
        (self.index * height).div_ceil(self.of)..((self.index + 1) * height).div_ceil(self.of)
    }
}

/// One level of a phase.
#[derive(Debug, Clone)]
pub(super) struct Stage<'a> {
    pub(super) level: &'a Level,
    /// Index of the level in its task.
    pub(super) index: usize,
    /// Shifts that are computed.
    pub(super) shifts: Range<usize>,
    /// Shifts whose peaks are reported.
    pub(super) reported: Range<usize>,
    /// Rows from one start that the next level needs to the next such start.
    pub(super) keep_step: usize,
    /// Rows beyond the block's own whose starts the next levels need.
    pub(super) rows_beyond: usize,
    /// Columns beyond the block's own that the next levels need, on either side.
    pub(super) left: usize,
    pub(super) right: usize,
}

/// A run of levels, lowest first; the first one is given, and not searched for peaks.
#[derive(Debug, Clone)]
pub(super) struct Phase<'a> {
    pub(super) task: &'a Task,
    pub(super) wedge: Wedge,
    pub(super) stages: Vec<Stage<'a>>,
    /// The last level serves another phase: all of its shifts are computed, and kept.
    pub(super) keeps_last: bool,
}

/// Rows and columns of a phase's own; those columns are true at row 0, and lean with the wedge below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) rows: Range<usize>,
    pub(super) first_column: i64,
    pub(super) n_columns: usize,
}

impl<'a> Phase<'a> {
    /// The levels `first..=last` of a task.
    pub(super) fn new(task: &'a Task, first: usize, last: usize, wedge: Wedge, keeps_last: bool) -> Self {
        let mut stages: Vec<Stage<'a>> = Vec::new();
        for index in (first..=last).rev() {
            let level = &task.levels[index];
            let own = if index > first { wedge.shifts(level.height) } else { 0..0 };
            let reported = own.start.max(level.reported.start)..own.end.min(level.reported.end);
            let above = stages.last();
            let mut shifts = above.map_or(0..0, |s| s.shifts.start / 2..(s.shifts.end - 1) / 2 + 1);
            if keeps_last && index == last {
                shifts = level.shifts.clone();
            } else if !reported.is_empty() {
                // A peak is compared with the neighbouring shifts on either side.
                let (low, high) = (reported.start.saturating_sub(1), reported.end + 1);
                let (low, high) = (low.max(level.shifts.start), high.min(level.shifts.end));
                shifts = if shifts.is_empty() { low..high } else { shifts.start.min(low)..shifts.end.max(high) };
            }
            if shifts.is_empty() {
                continue;
            }
            let (mut left, mut right, mut rows_beyond) = (1, 1, 0);
            let next_step = above.map(|s| s.level).or(task.levels.get(index + 1)).map(|l| l.start_step);
            if let Some(above) = above {
                let half = above.level.height / 2;
                // The lower half of a line begins this many columns beside its upper half, the block's lean allowed for.
                let (least_lean, most_lean) = (wedge.lean(half), (wedge.index * half).div_ceil(wedge.of));
                let (least, most) = (above.shifts.start.div_ceil(2), (above.shifts.end - 1).div_ceil(2));
                left = above.left + most_lean.saturating_sub(least);
                right = above.right + most.saturating_sub(least_lean);
                rows_beyond = above.rows_beyond + half;
            }
            if level.is_paired() && !reported.is_empty() {
                // Partners begin one step further down, this many columns beside.
                let (least_lean, most_lean) =
                    (wedge.lean(level.start_step), (wedge.index * level.start_step).div_ceil(wedge.of));
                let (least, most) = (level.partner_columns(shifts.start), level.partner_columns(shifts.end - 1));
                left = left.max(1 + most_lean.saturating_sub(least));
                right = right.max(1 + most.saturating_sub(least_lean));
                rows_beyond = rows_beyond.max(level.start_step);
            }
            let keep_step = next_step.unwrap_or(level.start_step).min(level.height);
            stages.push(Stage { level, index, shifts, reported, keep_step, rows_beyond, left, right });
        }
        stages.reverse();
        Self { task, wedge, stages, keeps_last }
    }

    /// The blocks of one band of rows.
    pub(super) fn band_blocks(&self, rows: Range<usize>, columns: usize) -> Vec<Block> {
        let pad = self.stages.iter().map(|s| s.shifts.end - 1).max().unwrap_or(0);
        let first = -((pad + self.wedge.lean(rows.end - 1)) as i64);
        let last = self.task.columns as i64 - self.wedge.lean(rows.start) as i64;
        (first..last)
            .step_by(columns)
            .map(|first_column| Block {
                rows: rows.clone(),
                first_column,
                n_columns: columns.min((last - first_column) as usize),
            })
            .collect()
    }
}

impl Stage<'_> {
    /// Columns in memory for a block.
    pub(super) fn width(&self, block: &Block) -> usize {
        self.left + block.n_columns + self.right
    }

    /// Rows whose starts are computed or kept.
    pub(super) fn rows(&self, block: &Block, task: &Task) -> Range<usize> {
        block.rows.start..(block.rows.end + self.rows_beyond).min(task.rows)
    }
}
