//! The fast Radon transform over the segment set, with its peaks. GPU twins: shaders/radon_*.wgsl.
//!
//! Each task is done in two phases. The short levels are made block by block from the image, all slopes at once; the
//! last of them is kept for the whole frame. The long levels are made from that, wedge of slopes by wedge, in blocks
//! that lean with the wedge. So the two levels at hand always fit a core's cache, and main memory sees the image and
//! one level only. Blocks are independent: each is one thread's, and sums are the same however they are cut.

mod block;
mod lanes;
mod plan;

use std::cell::RefCell;

use pulp::Arch;
use rayon::prelude::*;

use self::block::{FirstLevel, Job, Workspace};
use self::plan::{Block, Phase, Stage, Wedge};
use super::Image;
use crate::pipeline::search::{Peak, SearchRequest, best_of_cells};
use crate::pipeline::segments::{Octant, SegmentSet, Task, line_offset};

/// How the work is cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Height of the last level of the short phase, at most.
    short_height: usize,
    /// Rows of a block of the short phase, in units of that height.
    short_rows: usize,
    short_columns: usize,
    /// Shifts of a wedge at the tallest level.
    wedge_shifts: usize,
    long_columns: usize,
}

/// Measured on cores with 1 MiB of cache: half as much or twice as much is no faster, but for bands of twice as many
/// rows, of which a frame of 2048² has too few for many cores.
const CUT: Cut = Cut { short_height: 32, short_rows: 4, short_columns: 256, wedge_shifts: 64, long_columns: 512 };

/// Where lines are taller than 2048 px the lowest of the long levels, all rows of a block, would outgrow the cache.
const CUT_OF_TALL: Cut = Cut { short_height: 64, short_rows: 2, wedge_shifts: 128, ..CUT };

impl Cut {
    fn of(task: &Task) -> Self {
        if task.levels.last().is_some_and(|l| l.height > 2048) { CUT_OF_TALL } else { CUT }
    }
}

/// The last short level of one task, values and weights.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    values: Vec<f32>,
    weights: Vec<f32>,
}

thread_local! {
    /// Borrowed for the transform alone: a thread that waits in a parallel sort takes up another block meanwhile.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl Scratch {
    /// Memory for the values of a frame's last short level, at most; its weights need as much again.
    pub(super) fn bytes(width: usize, height: usize) -> u64 {
        // In either tower a start every half of the height, and as many shifts as the height has rows.
        let nodes = |rows: usize, columns: usize| {
            let band = CUT.short_rows * CUT.short_height;
            2 * rows.next_multiple_of(band) * (columns + CUT_OF_TALL.short_height)
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
        let peaks: Vec<Peak> =
            segments.tasks.iter().flat_map(|t| self.transform(t, [filtered, coverage], request, Cut::of(t))).collect();
        best_of_cells(&peaks)
    }

    /// Peaks of one task, of each block the best of every cell.
    fn transform(&mut self, task: &Task, images: [&Image; 2], request: &SearchRequest, cut: Cut) -> Vec<Peak> {
        let Some(top) = task.levels.len().checked_sub(1) else { return Vec::new() };
        let short = task.levels.iter().rposition(|l| l.height <= cut.short_height).unwrap_or(0);
        let phase = Phase::new(task, 0, short, Wedge::ALL_SLOPES, short < top);
        let mut peaks = self.short_levels(&phase, images, request, cut);
        if short < top {
            peaks.extend(self.long_levels(task, short, request, cut));
        }
        peaks
    }

    fn short_levels(&mut self, phase: &Phase<'_>, images: [&Image; 2], request: &SearchRequest, cut: Cut) -> Vec<Peak> {
        let Some(last) = phase.stages.last() else { return Vec::new() };
        let band_rows = cut.short_rows * last.level.height;
        let n_bands = phase.task.rows.div_ceil(band_rows);
        let kept = Foundation::new(phase.task, last);
        // Nodes a band leaves behind; none where nothing is kept.
        let band_len = if phase.keeps_last { band_rows.div_ceil(last.keep_step) * kept.start_len() } else { 0 };
        self.values.resize(n_bands * band_len, 0.0);
        self.weights.resize(if request.weighted { n_bands * band_len } else { 0 }, 0.0);
        let mut weights: Vec<&mut [f32]> = self.weights.chunks_mut(band_len.max(1)).collect();
        weights.resize_with(n_bands, Default::default);
        let mut values: Vec<&mut [f32]> = self.values.chunks_mut(band_len.max(1)).collect();
        values.resize_with(n_bands, Default::default);
        let bands = values.into_par_iter().zip(weights).enumerate().flat_map_iter(|(band, (values, weights))| {
            let rows = band * band_rows..((band + 1) * band_rows).min(phase.task.rows);
            let (mut peaks, mut tiles) = (Vec::new(), [Tile::default(), Tile::default()]);
            for block in phase.band_blocks(rows, cut.short_columns) {
                let job = Job { phase, block: &block, request };
                tiles[0].load(images[0], request.limit, phase.task.octant, &phase.stages[0], &block);
                if request.weighted {
                    tiles[1].load(images[1], 1.0, phase.task.octant, &phase.stages[0], &block);
                }
                let found = WORKSPACE.with_borrow_mut(|workspace| {
                    let found = workspace.transform(&job, &tiles[0], &tiles[1]);
                    if phase.keeps_last {
                        kept.store(values, workspace, &job, false);
                        if request.weighted {
                            kept.store(weights, workspace, &job, true);
                        }
                    }
                    found
                });
                peaks.extend(best_of_cells(&found));
            }
            peaks
        });
        bands.collect()
    }

    fn long_levels(&self, task: &Task, short: usize, request: &SearchRequest, cut: Cut) -> Vec<Peak> {
        let tallest = task.levels.last().map_or(1, |l| l.height);
        let of = tallest.div_ceil(cut.wedge_shifts);
        let top = task.levels.len() - 1;
        let kept_short = Phase::new(task, 0, short, Wedge::ALL_SLOPES, true);
        let Some(last) = kept_short.stages.last() else { return Vec::new() };
        let [values, weights] = [&self.values, &self.weights].map(|nodes| Stored {
            arch: Arch::new(),
            layout: Foundation::new(task, last),
            nodes,
        });
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
            best_of_cells(&WORKSPACE.with_borrow_mut(|workspace| workspace.transform(&job, &values, &weights)))
        });
        found.collect()
    }
}

/// The part of the frame that a block of short levels sums, as its octant sees it.
#[derive(Default)]
struct Tile {
    arch: Arch,
    first_row: usize,
    first_column: i64,
    width: usize,
    pixels: Vec<f32>,
}

impl Tile {
    fn load(&mut self, image: &Image, limit: f32, octant: Octant, stage: &Stage<'_>, block: &Block) {
        let (rows, columns) = octant.shape(image.width, image.height);
        let height = stage.level.height;
        let last_row = (block.rows.end + stage.rows_beyond + height - 1).min(rows);
        self.first_row = block.rows.start;
        self.first_column = block.first_column - stage.left as i64;
        self.width = stage.width(block) + height - 1;
        self.pixels.clear();
        self.pixels.resize((last_row - self.first_row) * self.width, 0.0);
        let from = self.first_column.clamp(0, columns as i64) as usize;
        let to = (self.first_column + self.width as i64).clamp(from as i64, columns as i64) as usize;
        let at = (from as i64 - self.first_column) as usize;
        let turned = |column: usize| if octant.mirrored { columns - 1 - column } else { column };
        let limited = |value: f32| value.clamp(-limit, limit);
        if octant.transposed {
            // Along the frame's rows, some at a time, so that what is written lies side by side as well.
            let line_of = |column: usize| {
                let line = turned(column) * image.width;
                &image.data[line + self.first_row..line + last_row]
            };
            for together in (from..to).step_by(TOGETHER) {
                let lines: Vec<&[f32]> = (together..(together + TOGETHER).min(to)).map(line_of).collect();
                let rows = self.pixels.chunks_exact_mut(self.width).enumerate();
                let at = at + together - from;
                if let Ok(lines) = <[&[f32]; TOGETHER]>::try_from(lines.as_slice()) {
                    for (row, pixels) in rows {
                        pixels[at..at + TOGETHER].copy_from_slice(&lines.map(|line| limited(line[row])));
                    }
                } else {
                    for (row, pixels) in rows {
                        pixels[at..].iter_mut().zip(&lines).for_each(|(p, line)| *p = limited(line[row]));
                    }
                }
            }
        } else {
            for (row, pixels) in (self.first_row..last_row).zip(self.pixels.chunks_exact_mut(self.width)) {
                let line = &image.data[row * columns..(row + 1) * columns];
                let pixels = &mut pixels[at..at + to - from];
                if octant.mirrored {
                    let line = &line[columns - to..columns - from];
                    pixels.iter_mut().zip(line.iter().rev()).for_each(|(p, v)| *p = limited(*v));
                } else {
                    pixels.iter_mut().zip(&line[from..to]).for_each(|(p, v)| *p = limited(*v));
                }
            }
        }
    }
}

/// Rows of the frame that are read side by side where it is transposed.
const TOGETHER: usize = 8;

impl FirstLevel for Tile {
    fn fill(&self, row: usize, _: i64, stage: &Stage<'_>, nodes: &mut [f32], largest: &mut [f32]) -> bool {
        // The levels next to this one are not searched.
        largest.fill(f32::INFINITY);
        let (height, width) = (stage.level.height, nodes.len() / stage.shifts.len());
        let lines = self.pixels.chunks_exact(self.width).skip(row - self.first_row).take(height);
        for (shift, out) in stage.shifts.clone().zip(nodes.chunks_exact_mut(width)) {
            out.fill(0.0);
            for (i, line) in lines.clone().enumerate() {
                lanes::accumulate(self.arch, out, &line[line_offset(height, height, shift, i)..]);
            }
        }
        true
    }
}

/// Layout of a level that is kept for the whole frame: `[start, shift, column]`.
#[derive(Debug, Clone, Copy)]
struct Foundation {
    keep_step: usize,
    first_shift: usize,
    n_shifts: usize,
    /// Columns before the frame's first.
    pad: usize,
    columns: usize,
}

impl Foundation {
    fn new(task: &Task, stage: &Stage<'_>) -> Self {
        Self {
            keep_step: stage.keep_step,
            first_shift: stage.shifts.start,
            n_shifts: stage.shifts.len(),
            pad: stage.shifts.end - 1,
            columns: task.columns,
        }
    }

    fn stride(&self) -> usize {
        self.pad + self.columns
    }

    fn start_len(&self) -> usize {
        self.n_shifts * self.stride()
    }

    /// Stores what a block has computed of the band's starts.
    fn store(&self, band: &mut [f32], workspace: &Workspace, job: &Job<'_>, weights: bool) {
        let rows = job.block.rows.clone().step_by(self.keep_step);
        // Blocks begin where the lines that enter through the side do.
        let first = (job.block.first_column + self.pad as i64).max(0) as usize;
        for (row, start) in rows.zip(band.chunks_exact_mut(self.start_len())) {
            for (i, out) in start.chunks_exact_mut(self.stride()).enumerate() {
                let out = &mut out[first..first + job.block.n_columns];
                match workspace.kept(job, row, self.first_shift + i, weights) {
                    Some(nodes) => out.copy_from_slice(nodes),
                    None => out.fill(0.0),
                }
            }
        }
    }
}

/// A stored level, as the first of the long ones.
struct Stored<'a> {
    arch: Arch,
    layout: Foundation,
    nodes: &'a [f32],
}

impl FirstLevel for Stored<'_> {
    fn fill(&self, row: usize, first_column: i64, stage: &Stage<'_>, nodes: &mut [f32], largest: &mut [f32]) -> bool {
        let layout = &self.layout;
        let first = first_column + layout.pad as i64;
        let (stride, width) = (layout.stride() as i64, (nodes.len() / stage.shifts.len()) as i64);
        if first >= stride || first + width <= 0 {
            return false;
        }
        let (from, to) = ((-first).max(0), (stride - first).min(width));
        let start = row / layout.keep_step;
        let shifts = stage.shifts.clone().zip(largest);
        for ((shift, largest), out) in shifts.zip(nodes.chunks_exact_mut(width as usize)) {
            let line = (start * layout.n_shifts + shift - layout.first_shift) * layout.stride();
            let line = &self.nodes[line..line + layout.stride()];
            out[..from as usize].fill(0.0);
            let line = &line[(first + from) as usize..(first + to) as usize];
            *largest = lanes::copy(self.arch, &mut out[from as usize..to as usize], line);
            out[to as usize..].fill(0.0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::psf::PsfKernel;
    use crate::pipeline::search::{MIN_COVERAGE, PARTNER_SHARE};
    use crate::pipeline::segments::Node;

    const SMALL: Cut = Cut { short_height: 16, short_rows: 2, short_columns: 24, wedge_shifts: 9, long_columns: 31 };

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

    /// The peaks by the definition of the segments: every node summed along its own line.
    fn naive(task: &Task, [value, weight]: [&Image; 2], request: &SearchRequest) -> Vec<Peak> {
        let mut peaks = Vec::new();
        for (index, level) in task.levels.iter().enumerate().filter(|(_, l)| !l.reported.is_empty()) {
            let sum = |image: &Image, start: usize, shift: usize, column: i64| -> f32 {
                let at_row = |row: usize| {
                    let offset = line_offset(task.levels[0].height, level.height, shift, row) as i64;
                    pixel(image, task.octant, start * level.start_step + row, column + offset)
                        .clamp(-request.limit, request.limit)
                };
                (0..level.height).map(at_row).sum()
            };
            let significance = |sums: [f32; 2], inverse_sd: f32, n_rows: usize| {
                let plain = sums[0] * inverse_sd;
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
        for weighted in [false, true] {
            let request = SearchRequest { threshold: 14.0, limit: 15.0, weighted };
            let mut n = 0;
            for task in &set.tasks {
                let expected = naive(task, [&frame, &weight], &request);
                for cut in [SMALL, CUT, CUT_OF_TALL] {
                    let got = Scratch::default().transform(task, [&frame, &weight], &request, cut);
                    assert_eq!(best_of_cells(&got), expected, "{:?} weighted {weighted} {cut:?}", task.octant);
                }
                n += expected.len();
            }
            assert!(n > 100, "{n} peaks compared");
        }
    }
}
