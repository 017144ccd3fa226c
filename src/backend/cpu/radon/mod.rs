//! The fast Radon transform over the segment set, with its peaks. GPU twins: shaders/radon_*.wgsl.
//!
//! Each task is done in two phases. The short levels are made block by block from the image, all slopes at once; the
//! last of them is kept for the whole frame. The long levels are made from that, wedge of slopes by wedge, in blocks
//! that lean with the wedge. Within a block all levels grow together, row by row. So what is summed fits a core's
//! cache, and main memory sees the image and one level only. Blocks are independent: each is one thread's, and sums
//! are the same however they are cut.

mod block;
mod foundation;
mod lanes;
mod number;
mod peaks;
mod plan;
mod tile;

use std::cell::RefCell;

use pulp::Arch;
use pulp::bytemuck::{cast_slice, cast_slice_mut};
use rayon::prelude::*;

use self::block::{Job, LastLevel, Workspace};
use self::foundation::{Foundation, Stored, Storing};
use self::number::Number;
use self::plan::{Block, Phase, Wedge};
use self::tile::{Scale, Tile, View};
use super::Image;
use crate::pipeline::search::{Peak, SearchRequest, best_of_cells};
use crate::pipeline::segments::{SegmentSet, Task};

/// How the work is cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Height of the last level of the short phase, at most.
    short_height: usize,
    /// Rows of a block of the short phase, in units of that height, at most.
    short_rows: usize,
    /// Columns of a block of the short phase, about.
    short_columns: usize,
    /// Shifts of a wedge at the tallest level.
    wedge_shifts: usize,
    long_columns: usize,
}

/// Measured on cores with 1 MiB of cache.
const CUT: Cut = Cut { short_height: 64, short_rows: 16, short_columns: 1024, wedge_shifts: 128, long_columns: 768 };

/// Taller frames have more wedges, and the lowest of the long levels would be read in all of them.
const CUT_OF_TALL: Cut = Cut { short_height: 128, ..CUT };

impl Cut {
    /// For a view of so many rows, with bands as high as they can be.
    fn of(rows: usize) -> Self {
        if rows > 2048 { CUT_OF_TALL } else { CUT }
    }

    /// Rows of a band of the short phase whose last level has this height. A band sums rows below it as well: few of
    /// them are best, as long as every thread has as many.
    fn band_rows(self, rows: usize, last_height: usize, threads: usize) -> usize {
        let n_bands = rows.div_ceil(self.short_rows * self.short_height).next_multiple_of(threads);
        rows.div_ceil(n_bands).next_multiple_of(last_height)
    }

    /// Columns of a block of the short phase. A block sums columns beside it as well: none is much narrower than others.
    fn block_columns(self, columns: usize) -> usize {
        let n_blocks = (columns + self.short_columns / 2) / self.short_columns;
        columns.div_ceil(n_blocks.max(1))
    }
}

/// The last short level of one task, values and weights.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Or whole steps, twice as many.
    values: Vec<f32>,
    weights: Vec<f32>,
    /// What no value exceeds, `[start, shift, block of columns]`.
    largest: Vec<f32>,
}

thread_local! {
    /// Borrowed for the transform alone: a thread that waits in a parallel sort takes up another block meanwhile.
    static OF_VALUES: RefCell<Memory<f32>> = RefCell::default();
    static OF_STEPS: RefCell<Memory<i16>> = RefCell::default();
}

#[derive(Default)]
struct Memory<T> {
    workspace: Workspace<T>,
    values: Tile<T>,
    weights: Tile<f32>,
}

/// Numbers that threads have memory for.
trait Summed: Number {
    fn with_memory<R>(work: impl FnOnce(&mut Memory<Self>) -> R) -> R;
}

impl Summed for f32 {
    fn with_memory<R>(work: impl FnOnce(&mut Memory<Self>) -> R) -> R {
        OF_VALUES.with_borrow_mut(work)
    }
}

impl Summed for i16 {
    fn with_memory<R>(work: impl FnOnce(&mut Memory<Self>) -> R) -> R {
        OF_STEPS.with_borrow_mut(work)
    }
}

impl Scratch {
    /// Memory for the values of a frame's last short level, at most; its weights need as much again.
    pub(super) fn bytes(width: usize, height: usize) -> u64 {
        // In either tower a start every half of the height, and as many shifts as the height has rows.
        let nodes = |rows: usize, columns: usize| {
            let cut = Cut::of(rows);
            let in_bands = |last_height: usize| {
                rows.next_multiple_of(cut.band_rows(rows, last_height, rayon::current_num_threads()))
            };
            2 * in_bands(cut.short_height).max(in_bands(cut.short_height / 4 * 3)) * (columns + cut.short_height)
        };
        (nodes(height, width).max(nodes(width, height)) * size_of::<f32>()) as u64
    }

    pub(super) fn find_peaks(
        &mut self,
        filtered: &Image,
        coverage: &Image,
        segments: &SegmentSet,
        request: &SearchRequest,
    ) -> Vec<Peak> {
        let images = [filtered, coverage];
        let of_task = |task: &Task| self.transform(task, images, request, Cut::of(task.rows));
        let peaks: Vec<Peak> = segments.tasks.iter().flat_map(of_task).collect();
        best_of_cells(&peaks)
    }

    /// Peaks of one task, of each block the best of every cell.
    fn transform(&mut self, task: &Task, images: [&Image; 2], request: &SearchRequest, cut: Cut) -> Vec<Peak> {
        match request.step {
            Some(_) => self.transform_in::<i16>(task, images, request, cut),
            None => self.transform_in::<f32>(task, images, request, cut),
        }
    }

    fn transform_in<T: Summed>(
        &mut self,
        task: &Task,
        images: [&Image; 2],
        request: &SearchRequest,
        cut: Cut,
    ) -> Vec<Peak> {
        let Some(top) = task.levels.len().checked_sub(1) else { return Vec::new() };
        let short = task.levels.iter().rposition(|l| l.height <= cut.short_height).unwrap_or(0);
        let phase = Phase::new(task, 0, short, Wedge::ALL_SLOPES, short < top);
        let mut peaks = self.short_levels::<T>(&phase, images, request, cut);
        if short < top {
            peaks.extend(self.long_levels::<T>(task, short, request, cut));
        }
        peaks
    }

    fn short_levels<T: Summed>(
        &mut self,
        phase: &Phase<'_>,
        images: [&Image; 2],
        request: &SearchRequest,
        cut: Cut,
    ) -> Vec<Peak> {
        let Some(last) = phase.stages.last() else { return Vec::new() };
        let band_rows = cut.band_rows(phase.task.rows, last.level.height, rayon::current_num_threads());
        let n_bands = phase.task.rows.div_ceil(band_rows);
        let kept = Foundation::new(phase.task, last, cut);
        // What a band leaves behind; nothing where nothing is kept.
        let starts = if phase.keeps_last { band_rows.div_ceil(last.keep_step) } else { 0 };
        let (nodes, of_blocks) = (starts * kept.start_len(), starts * kept.n_shifts * kept.n_blocks);
        let of_weights = if request.weighted { nodes } else { 0 };
        make_room(&mut self.values, (n_bands * nodes * size_of::<T>()).div_ceil(size_of::<f32>()));
        make_room(&mut self.weights, n_bands * of_weights);
        make_room(&mut self.largest, n_bands * of_blocks);
        let values = bands_of(cast_slice_mut::<f32, T>(&mut self.values), n_bands, nodes);
        let weights = bands_of(&mut self.weights, n_bands, of_weights);
        let largest = bands_of(&mut self.largest, n_bands, of_blocks);
        let stored = values.into_iter().zip(weights).zip(largest);
        let stored: Vec<Storing<'_, T>> =
            stored.map(|((values, weights), largest)| Storing { layout: kept, values, weights, largest }).collect();
        let bands = stored.into_par_iter().enumerate().flat_map_iter(|(band, mut stored)| {
            let rows = band * band_rows..((band + 1) * band_rows).min(phase.task.rows);
            let mut peaks = Vec::new();
            for block in phase.band_blocks(rows, kept.block_columns) {
                let job = Job { phase, block: &block, request };
                let last = phase.keeps_last.then_some(&mut stored as &mut dyn LastLevel<T>);
                let found = T::with_memory(|Memory { workspace, values, weights }| {
                    let octant = phase.task.octant;
                    let mut values = View::new(images[0], octant, Scale::new(request.limit, request.unit()), values);
                    let mut weights = View::new(images[1], octant, Scale::new(1.0, 1.0), weights);
                    workspace.transform(&job, (&mut values, &mut weights), last)
                });
                peaks.extend(best_of_cells(&found));
            }
            peaks
        });
        bands.collect()
    }

    fn long_levels<T: Summed>(&self, task: &Task, short: usize, request: &SearchRequest, cut: Cut) -> Vec<Peak> {
        let tallest = task.levels.last().map_or(1, |l| l.height);
        let of = tallest.div_ceil(cut.wedge_shifts);
        let top = task.levels.len() - 1;
        let kept_short = Phase::new(task, 0, short, Wedge::ALL_SLOPES, true);
        let Some(last) = kept_short.stages.last() else { return Vec::new() };
        let layout = Foundation::new(task, last, cut);
        let (arch, largest) = (Arch::new(), &self.largest[..]);
        let values = Stored { arch, layout, nodes: cast_slice::<f32, T>(&self.values), largest };
        let weights = Stored { arch, layout, nodes: &self.weights, largest };
        let phases: Vec<Phase<'_>> = (0..of)
            .map(|index| Phase::new(task, short, top, Wedge { index, of }, false))
            .filter(|p| p.stages.len() > 1)
            .collect();
        let jobs: Vec<(&Phase<'_>, Block)> = phases
            .iter()
            .flat_map(|p| p.band_blocks(0..task.rows, cut.long_columns).into_iter().map(move |b| (p, b)))
            .collect();
        let found = jobs.par_iter().flat_map_iter(|(phase, block)| {
            let job = Job { phase, block, request };
            let first = (&mut values.clone(), &mut weights.clone());
            best_of_cells(&T::with_memory(|memory| memory.workspace.transform(&job, first, None)))
        });
        found.collect()
    }
}

fn make_room(all: &mut Vec<f32>, len: usize) {
    all.resize(all.len().max(len), 0.0);
}

/// Each band's part of what all of them leave behind.
fn bands_of<T>(all: &mut [T], n_bands: usize, of_band: usize) -> Vec<&mut [T]> {
    let mut bands: Vec<&mut [T]> = all.chunks_mut(of_band.max(1)).take(n_bands).collect();
    bands.resize_with(n_bands, Default::default);
    bands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::psf::PsfKernel;
    use crate::pipeline::search::{MIN_COVERAGE, PARTNER_SHARE, step_of_sums};
    use crate::pipeline::segments::{Node, Octant, line_offset};

    const SMALL: Cut = Cut { short_height: 16, short_rows: 2, short_columns: 24, wedge_shifts: 9, long_columns: 31 };

    /// The last short level is paired, in two bands.
    const PAIRED: Cut = Cut { short_height: 64, short_rows: 1, short_columns: 17, ..SMALL };

    fn image(width: usize, height: usize, f: impl Fn(usize, usize) -> f32) -> Image {
        Image { width, height, data: (0..width * height).map(|i| f(i % width, i / width)).collect() }
    }

    fn pixel(image: &Image, octant: Octant, row: usize, column: i64) -> f32 {
        let (rows, columns) = octant.shape(image.width, image.height);
        if row >= rows || column < 0 || column >= columns as i64 {
            return 0.0;
        }
        let column = if octant.mirrored { columns - 1 - column as usize } else { column as usize };
        let (x, y) = if octant.transposed { (row, column) } else { (column, row) };
        image.data[y * image.width + x]
    }

    /// Values by (shift, column), with one shift and one column more on either side.
    type Plane = Vec<Vec<f32>>;

    /// The peaks by the definition of the segments: every node summed along its own line, in units of the step.
    fn naive(task: &Task, [value, weight]: [&Image; 2], request: &SearchRequest) -> Vec<Peak> {
        let mut peaks = Vec::new();
        let in_units = |v: f32| request.step.map_or(v, |step| (v * (1.0 / step)).round_ties_even());
        for (index, level) in task.levels.iter().enumerate().filter(|(_, l)| !l.reported.is_empty()) {
            let sum = |image: &Image, start: usize, shift: usize, column: i64| -> f32 {
                let at_row = |row: usize| {
                    let offset = line_offset(task.levels[0].height, level.height, shift, row) as i64;
                    let v = pixel(image, task.octant, start * level.start_step + row, column + offset);
                    if std::ptr::eq(image, weight) { v } else { in_units(v.clamp(-request.limit, request.limit)) }
                };
                (0..level.height).map(at_row).sum()
            };
            let significance = |sums: [f32; 2], inverse_sd: f32, n_rows: usize| {
                let plain = sums[0] * (inverse_sd * request.unit());
                let share = if request.weighted { sums[1] * (1.0 / n_rows as f32) } else { 1.0 };
                if share > MIN_COVERAGE { plain / share.sqrt() } else { 0.0 }
            };
            let single = |start: usize, shift: usize, column: i64| {
                let sums = [value, weight].map(|image| sum(image, start, shift, column));
                significance(sums, level.inverse_sd[shift - level.shifts.start], level.height)
            };
            let partner = |shift: usize, column: i64| column + level.partner_columns(shift) as i64;
            let pair = |start: usize, shift: usize, column: i64| {
                let sums = [value, weight].map(|image| {
                    sum(image, start, shift, column) + sum(image, start + 1, shift, partner(shift, column))
                });
                significance(sums, level.inverse_sd_paired[shift - level.shifts.start], 2 * level.height)
            };
            let counts = |start: usize, shift: usize, column: i64| {
                let least = PARTNER_SHARE * request.threshold;
                single(start, shift, column) >= least && single(start + 1, shift, partner(shift, column)) >= least
            };
            let columns = -1 - level.pad as i64..=(level.stride - level.pad) as i64;
            let plane = |of: &dyn Fn(usize, i64) -> f32| -> Plane {
                let shifts = level.reported.start as i64 - 1..=level.reported.end as i64;
                let at = |shift: i64, column: i64| match usize::try_from(shift) {
                    Ok(shift) if level.shifts.contains(&shift) => of(shift, column),
                    _ => f32::NEG_INFINITY,
                };
                shifts.map(|shift| columns.clone().map(|column| at(shift, column)).collect()).collect()
            };
            for (start, paired) in (0..level.reported_starts).flat_map(|start| [(start, false), (start, true)]) {
                if paired && (!level.is_paired() || start + 1 >= level.n_starts) {
                    continue;
                }
                let plane = plane(&|shift, column| {
                    if paired { pair(start, shift, column) } else { single(start, shift, column) }
                });
                for (i, shift) in level.reported.clone().enumerate() {
                    for x in 1..=level.stride {
                        let here = plane[i + 1][x];
                        let before = [plane[i][x - 1], plane[i][x], plane[i][x + 1], plane[i + 1][x - 1]];
                        let after = [plane[i + 1][x + 1], plane[i + 2][x - 1], plane[i + 2][x], plane[i + 2][x + 1]];
                        let is_peak = before.iter().all(|v| here > *v) && after.iter().all(|v| here >= *v);
                        let column = x as i64 - 1 - level.pad as i64;
                        if here > request.threshold && is_peak && (!paired || counts(start, shift, column)) {
                            let segment = task.segment(&Node { level: index, start, shift, column, paired });
                            peaks.extend(segment.map(|segment| Peak { segment, snr: f64::from(here) }));
                        }
                    }
                }
            }
        }
        best_of_cells(&peaks)
    }

    #[test]
    fn blocks_find_the_peaks_of_whole_lines() {
        // Integers: exact in any order of summation. Two bright tracks among a pattern, and a masked corner.
        let value = |x: usize, y: usize| {
            let pattern = ((x * 31 + y * 17 + x * y) % 23) as f32 - 11.0;
            pattern + if (3 * x).abs_diff(2 * y + 7) < 3 || (x + y).abs_diff(70) < 1 { 9.0 } else { 0.0 }
        };
        let frame = image(37, 90, value);
        let weight = image(37, 90, |x, y| f32::from(u8::from(x > 8 || y > 20)));
        let frame = Image { data: frame.data.iter().zip(&weight.data).map(|(v, w)| v * w).collect(), ..frame };
        let set = SegmentSet::new(37, 90, PsfKernel::new(1.5), 1, usize::MAX);
        // What one task leaves behind is no other's.
        let mut scratch = Scratch::default();
        // Whole steps are exact whatever the values are; of these some lie half way between two.
        let quarters = Image { data: frame.data.iter().map(|v| 0.25 * v).collect(), ..frame.clone() };
        for (weighted, step) in [(false, None), (true, None), (false, Some(0.5)), (true, Some(0.5))] {
            let (frame, one) = if step.is_some() { (&quarters, 0.25) } else { (&frame, 1.0) };
            let request = SearchRequest { threshold: 14.0 * one, limit: 15.0 * one, step, weighted };
            let mut n = 0;
            for task in &set.tasks {
                let expected = naive(task, [frame, &weight], &request);
                for cut in [SMALL, PAIRED, CUT, CUT_OF_TALL] {
                    let got = scratch.transform(task, [frame, &weight], &request, cut);
                    assert_eq!(best_of_cells(&got), expected, "{:?} {request:?} {cut:?}", task.octant);
                }
                n += expected.len();
            }
            assert!(n > 100, "{n} peaks compared");
        }
    }

    #[test]
    fn steps_hold_frames_of_the_brightest_and_of_the_darkest_light() {
        let set = SegmentSet::new(37, 90, PsfKernel::new(1.5), 1, usize::MAX);
        let limit = 0.9;
        let step = step_of_sums(limit, set.most_rows());
        let weight = image(37, 90, |_, _| 1.0);
        let mut scratch = Scratch::default();
        for sign in [1.0, -1.0] {
            let frame = image(37, 90, |x, y| if x == y { 0.0 } else { sign * 10.0 });
            for weighted in [false, true] {
                let request = SearchRequest { threshold: 3.0, limit, step, weighted };
                for task in &set.tasks {
                    let got = scratch.transform(task, [&frame, &weight], &request, SMALL);
                    let expected = naive(task, [&frame, &weight], &request);
                    assert_eq!(best_of_cells(&got), expected, "{:?} {request:?}", task.octant);
                    assert_eq!(expected.is_empty(), sign < 0.0);
                }
            }
        }
    }
}
