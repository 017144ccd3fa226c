//! The last short level of a task, kept for the whole frame: what the long levels are made of.

use std::ops::Range;

use pulp::Arch;

use super::Cut;
use super::block::{FirstLevel, Given, Job, LastLevel, Made};
use super::lanes;
use super::number::Number;
use super::plan::Stage;
use crate::pipeline::segments::Task;

/// Layout of a level that is kept for the whole frame: `[start, shift, column]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Foundation {
    keep_step: usize,
    first_shift: usize,
    pub(super) n_shifts: usize,
    /// Columns before the frame's first.
    pad: usize,
    columns: usize,
    /// Of so many columns, all of a band.
    pub(super) n_blocks: usize,
    pub(super) block_columns: usize,
}

impl Foundation {
    pub(super) fn new(task: &Task, stage: &Stage<'_>, cut: Cut) -> Self {
        let pad = stage.shifts.end - 1;
        let block_columns = cut.block_columns(pad + task.columns);
        Self {
            keep_step: stage.keep_step,
            first_shift: stage.shifts.start,
            n_shifts: stage.shifts.len(),
            pad,
            columns: task.columns,
            n_blocks: (pad + task.columns).div_ceil(block_columns),
            block_columns,
        }
    }

    pub(super) fn stride(&self) -> usize {
        self.pad + self.columns
    }

    pub(super) fn start_len(&self) -> usize {
        self.n_shifts * self.stride()
    }

    /// Copies some columns of the rows of nodes that a block has made, from one of its columns on.
    fn copy<N: Copy>(
        &self,
        band: &mut [N],
        first_row: usize,
        columns: Range<usize>,
        made: &[N],
        width: usize,
        from: usize,
    ) {
        let rows = band.chunks_exact_mut(self.stride()).skip(first_row);
        for (row, nodes) in rows.zip(made.chunks_exact(width)) {
            row[columns.clone()].copy_from_slice(&nodes[from..from + columns.len()]);
        }
    }
}

/// Takes up the last short level of one band of rows.
pub(super) struct Storing<'a, T> {
    pub(super) layout: Foundation,
    pub(super) values: &'a mut [T],
    pub(super) weights: &'a mut [f32],
    pub(super) largest: &'a mut [f32],
}

impl<T: Number> LastLevel<T> for Storing<'_, T> {
    fn store(&mut self, job: &Job<'_>, row: usize, made: &Made<'_, T>) {
        let Some(stage) = job.phase.stages.last() else { return };
        let layout = self.layout;
        if row >= job.block.rows.end {
            // Made for the pairs of the band's last start; the next band has it as well.
            return;
        }
        let first_row = (row - job.block.rows.start) / layout.keep_step * layout.n_shifts;
        // Blocks begin where the lines that enter through the side do.
        let first = (job.block.first_column + layout.pad as i64) as usize;
        let width = stage.width(job.block);
        let own = first..first + job.block.n_columns;
        layout.copy(self.values, first_row, own.clone(), made.values, width, stage.left);
        layout.copy(self.weights, first_row, own, made.weights, width, stage.left);
        let of_blocks = self.largest.chunks_exact_mut(layout.n_blocks).skip(first_row);
        for (of_blocks, largest) in of_blocks.zip(made.largest) {
            of_blocks[first / layout.block_columns] = *largest;
        }
    }
}

/// A stored level, as the first of the long ones.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a, T> {
    pub(super) arch: Arch,
    pub(super) layout: Foundation,
    pub(super) nodes: &'a [T],
    pub(super) largest: &'a [f32],
}

impl<T: Number> FirstLevel<T> for Stored<'_, T> {
    fn give(&mut self, row: usize, column: i64, stage: &Stage<'_>, nodes: &mut [T], largest: &mut [f32]) -> Given {
        let layout = &self.layout;
        let first = column + layout.pad as i64;
        let (stride, width) = (layout.stride() as i64, (nodes.len() / stage.shifts.len()) as i64);
        if first >= stride || first + width <= 0 {
            return Given::Nothing;
        }
        let row_of = |shift: usize| row / layout.keep_step * layout.n_shifts + shift - layout.first_shift;
        if first >= 0 && first + width <= stride {
            let blocks = first as usize / layout.block_columns..=(first + width - 1) as usize / layout.block_columns;
            for (shift, largest) in stage.shifts.clone().zip(largest) {
                let of_blocks = &self.largest[row_of(shift) * layout.n_blocks..][blocks.clone()];
                *largest = of_blocks.iter().copied().fold(0.0, f32::max);
            }
            return Given::There(row_of(stage.shifts.start) * layout.stride() + first as usize);
        }
        let (from, to) = ((-first).max(0), (stride - first).min(width));
        let shifts = stage.shifts.clone().zip(largest);
        for ((shift, largest), out) in shifts.zip(nodes.chunks_exact_mut(width as usize)) {
            let line = &self.nodes[row_of(shift) * layout.stride()..][..layout.stride()];
            out[..from as usize].fill(T::zeroed());
            let line = &line[(first + from) as usize..(first + to) as usize];
            *largest = lanes::copy(self.arch, &mut out[from as usize..to as usize], line);
            out[to as usize..].fill(T::zeroed());
        }
        Given::Here
    }

    fn elsewhere(&self) -> (&[T], usize) {
        (self.nodes, self.layout.stride())
    }
}

#[cfg(test)]
mod tests {
    use super::super::CUT;
    use super::super::plan::{Phase, Wedge};
    use super::*;
    use crate::pipeline::psf::PsfKernel;
    use crate::pipeline::segments::SegmentSet;

    #[test]
    fn what_is_read_in_place_comes_with_the_largest_of_all_blocks_it_lies_in() {
        let set = SegmentSet::new(90, 64, PsfKernel::new(1.5), 1, usize::MAX);
        let task = &set.tasks[0];
        let short = task.levels.iter().position(|l| l.height == 16).unwrap();
        let phase = Phase::new(task, 0, short, Wedge::ALL_SLOPES, true);
        let stage = phase.stages.last().unwrap();
        let layout = Foundation::new(task, stage, Cut { short_columns: 26, ..CUT });
        let n_rows = layout.n_shifts * task.rows.div_ceil(layout.keep_step);
        // The block in the middle is the brightest, then the second, then the last.
        let largest: Vec<f32> = (0..n_rows * layout.n_blocks).map(|i| [1.0, 3.0, 4.0, 2.0][i % 4]).collect();
        let nodes = vec![0.0_f32; layout.stride() * n_rows];
        let mut stored = Stored { arch: Arch::new(), layout, nodes: &nodes, largest: &largest };
        assert_eq!((layout.n_blocks, layout.n_shifts), (4, 16));
        for (first, width, most) in [(0, 27, 1.0), (10, 30, 3.0), (10, 60, 4.0), (97, 8, 2.0)] {
            let (mut room, mut bounds) = (vec![0.0; width * 16], vec![0.0; 16]);
            let given = stored.give(2 * layout.keep_step, first - layout.pad as i64, stage, &mut room, &mut bounds);
            assert_eq!(given, Given::There(2 * layout.start_len() + first as usize));
            assert_eq!(bounds, vec![most; 16], "{first} {width}");
        }
    }
}
