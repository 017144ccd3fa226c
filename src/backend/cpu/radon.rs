//! The fast Radon transform over the segment set, with its peaks. GPU twins: shaders/radon_*.wgsl.
//!
//! Tasks (octant, tower, wedge of slopes) are independent: one a thread. Within a task the levels follow each other,
//! and peaks are looked for while a start's nodes are still in the cache.

use rayon::prelude::*;

use super::Image;
use crate::pipeline::search::{MIN_COVERAGE, Peak, SearchRequest, sort_peaks};
use crate::pipeline::segments::{Level, Octant, SegmentSet, Task};

/// Octant views of the two images, kept from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    values: [Image; 4],
    weights: [Image; 4],
}

/// Two levels of one task, for values and weights.
#[derive(Default)]
struct Levels {
    lower: Vec<f32>,
    upper: Vec<f32>,
    lower_weight: Vec<f32>,
    upper_weight: Vec<f32>,
    /// Significances of three neighbouring shifts.
    rows: [Vec<f32>; 3],
}

impl Scratch {
    pub(super) fn find_peaks(
        &mut self,
        filtered: &Image,
        coverage: &Image,
        segments: &SegmentSet,
        request: &SearchRequest,
    ) -> Vec<Peak> {
        let views = self.values.par_iter_mut().zip(&mut self.weights).zip(Octant::ALL);
        views.for_each(|((value, weight), octant)| {
            view(filtered, octant, value);
            if request.weighted {
                view(coverage, octant, weight);
            }
        });
        let (values, weights) = (&self.values, &self.weights);
        let mut peaks: Vec<Peak> = segments
            .tasks
            .par_iter()
            .map_init(Levels::default, |levels, task| {
                let view = Octant::ALL.iter().position(|o| *o == task.octant).unwrap_or(0);
                transform(task, &values[view], &weights[view], request, levels)
            })
            .flatten_iter()
            .collect();
        sort_peaks(&mut peaks);
        peaks
    }
}

/// The frame as an octant sees it.
fn view(image: &Image, octant: Octant, out: &mut Image) {
    let (rows, columns) = octant.shape(image.width, image.height);
    if (out.width, out.height) != (columns, rows) {
        out.reshape(columns, rows);
    }
    if octant.transposed {
        /// Side of the blocks that are turned over: rows of both images stay in the cache.
        const BLOCK: usize = 32;
        out.data.chunks_mut(BLOCK * columns).enumerate().for_each(|(band, out)| {
            for first in (0..columns).step_by(BLOCK) {
                for (r, line) in out.chunks_exact_mut(columns).enumerate() {
                    let last = (first + BLOCK).min(columns);
                    for (c, value) in line[first..last].iter_mut().enumerate() {
                        *value = image.data[(first + c) * image.width + band * BLOCK + r];
                    }
                }
            }
        });
    } else {
        out.data.copy_from_slice(&image.data);
    }
    if octant.mirrored {
        out.data.chunks_exact_mut(columns).for_each(<[f32]>::reverse);
    }
}

fn transform(task: &Task, value: &Image, weight: &Image, request: &SearchRequest, levels: &mut Levels) -> Vec<Peak> {
    let mut peaks = Vec::new();
    let size = task.max_level_len();
    for buffer in [&mut levels.lower, &mut levels.upper] {
        buffer.resize(size.max(buffer.len()), 0.0);
    }
    if request.weighted {
        for buffer in [&mut levels.lower_weight, &mut levels.upper_weight] {
            buffer.resize(size.max(buffer.len()), 0.0);
        }
    }
    for (index, level) in task.levels.iter().enumerate() {
        let below = index.checked_sub(1).map(|i| &task.levels[i]);
        let block = level.n_shifts() * level.stride;
        for start in 0..level.n_starts {
            let nodes = start * block..(start + 1) * block;
            sum_nodes(below, level, start, value, &levels.lower, &mut levels.upper[nodes.clone()]);
            if request.weighted {
                let out = &mut levels.upper_weight[nodes.clone()];
                sum_nodes(below, level, start, weight, &levels.lower_weight, out);
            }
            if start < level.reported_starts {
                let weights = request.weighted.then(|| &levels.upper_weight[nodes.clone()]);
                let found = Found { task, index, start, peaks: &mut peaks };
                scan(level, &levels.upper[nodes], weights, request.threshold, &mut levels.rows, found);
            }
        }
        std::mem::swap(&mut levels.lower, &mut levels.upper);
        std::mem::swap(&mut levels.lower_weight, &mut levels.upper_weight);
    }
    peaks
}

/// Fills all nodes of one start: from the image at the first level, from two nodes of the level below after that.
fn sum_nodes(below: Option<&Level>, level: &Level, start: usize, image: &Image, lower: &[f32], out: &mut [f32]) {
    let first_row = start * level.start_step;
    for (shift, out) in level.shifts.clone().zip(out.chunks_exact_mut(level.stride)) {
        match below {
            None => {
                out.fill(0.0);
                for row in 0..level.height.min(image.height - first_row) {
                    let offset = crate::pipeline::segments::line_offset(level.height, level.height, shift, row);
                    let line = image.rows().nth(first_row + row).unwrap_or(&[]);
                    add(out, line, level.pad as i64 - offset as i64);
                }
            }
            Some(below) => {
                let part = |row: usize| {
                    let start = row / below.start_step;
                    let node = start * below.n_shifts() + (shift / 2 - below.shifts.start);
                    (start < below.n_starts).then(|| &lower[node * below.stride..(node + 1) * below.stride])
                };
                let at_upper = level.pad as i64 - below.pad as i64;
                let at_lower = at_upper - shift.div_ceil(2) as i64;
                // Columns before the first of this level belong to lines that never enter the frame.
                let placed = |half, at: i64| -> (&[f32], usize) {
                    let half: &[f32] = half;
                    (&half[(-at).max(0) as usize..], at.max(0) as usize)
                };
                match (part(first_row), part(first_row + below.height)) {
                    (Some(upper_half), Some(lower_half)) => {
                        add_halves(out, placed(upper_half, at_upper), placed(lower_half, at_lower));
                    }
                    (Some(upper_half), None) => {
                        let (upper_half, at) = placed(upper_half, at_upper);
                        out[..at].fill(0.0);
                        out[at..].copy_from_slice(upper_half);
                    }
                    (None, _) => out.fill(0.0),
                }
            }
        }
    }
}

/// `out = upper + lower`, each placed where its first column lies: `at_lower <= at_upper`, and `upper` ends with `out`.
fn add_halves(out: &mut [f32], (upper, at_upper): (&[f32], usize), (lower, at_lower): (&[f32], usize)) {
    let end_lower = at_lower + lower.len();
    let only_lower = at_upper - at_lower;
    out[..at_lower].fill(0.0);
    out[at_lower..at_upper].copy_from_slice(&lower[..only_lower]);
    let both = upper.iter().zip(&lower[only_lower..]);
    for (o, (u, l)) in out[at_upper..end_lower].iter_mut().zip(both) {
        *o = u + l;
    }
    out[end_lower..].copy_from_slice(&upper[end_lower - at_upper..]);
}

/// Overlap of a line placed at `at` with an output of `n`: ranges of the output and of the line.
fn overlap(n: usize, line: usize, at: i64) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let first = at.clamp(0, n as i64);
    let last = (at + line as i64).clamp(first, n as i64);
    (first as usize..last as usize, (first - at) as usize..(last - at) as usize)
}

fn add(out: &mut [f32], line: &[f32], at: i64) {
    let (to, from) = overlap(out.len(), line.len(), at);
    for (o, v) in out[to].iter_mut().zip(&line[from]) {
        *o += v;
    }
}

/// Where the peaks of one start go.
struct Found<'a> {
    task: &'a Task,
    index: usize,
    start: usize,
    peaks: &'a mut Vec<Peak>,
}

/// Looks for peaks among the nodes of one start: greater than the neighbours before it in (shift, column), not less
/// than those after.
fn scan(
    level: &Level,
    nodes: &[f32],
    weights: Option<&[f32]>,
    threshold: f32,
    rows: &mut [Vec<f32>; 3],
    found: Found<'_>,
) {
    let n = level.stride;
    // Row 0 is the shift before, 1 the one looked at, 2 the one after; one column of nothing on either side.
    for row in rows.iter_mut() {
        row.clear();
        row.resize(n + 2, f32::NEG_INFINITY);
    }
    let significance = |shift: usize, out: &mut [f32]| -> bool {
        let out = &mut out[1..=n];
        if !level.shifts.contains(&shift) {
            out.fill(f32::NEG_INFINITY);
            return false;
        }
        let i = shift - level.shifts.start;
        let line = &nodes[i * n..(i + 1) * n];
        let scale = level.inverse_sd[i];
        match weights {
            None => out.iter_mut().zip(line).for_each(|(o, v)| *o = v * scale),
            Some(weights) => {
                let per_row = 1.0 / level.height as f32;
                for ((o, v), w) in out.iter_mut().zip(line).zip(&weights[i * n..(i + 1) * n]) {
                    let share = w * per_row;
                    *o = if share > MIN_COVERAGE { v * scale / share.sqrt() } else { 0.0 };
                }
            }
        }
        out.chunks(64).any(|c| c.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v)) > threshold)
    };
    let shifts = level.reported.clone();
    significance(shifts.start.wrapping_sub(1), &mut rows[0]);
    let mut promising = significance(shifts.start, &mut rows[1]);
    for shift in shifts {
        let next_promising = significance(shift + 1, &mut rows[2]);
        if promising {
            for x in 1..=n {
                let value = rows[1][x];
                if value > threshold && is_peak(rows, x, value) {
                    let column = x as i64 - 1 - level.pad as i64;
                    let segment = found.task.segment(found.index, found.start, shift, column);
                    found.peaks.extend(segment.map(|segment| Peak { segment, snr: f64::from(value) }));
                }
            }
        }
        promising = next_promising;
        rows.rotate_left(1);
    }
}

fn is_peak(rows: &[Vec<f32>; 3], x: usize, value: f32) -> bool {
    let before = [rows[0][x - 1], rows[0][x], rows[0][x + 1], rows[1][x - 1]];
    let after = [rows[1][x + 1], rows[2][x - 1], rows[2][x], rows[2][x + 1]];
    before.iter().all(|v| value > *v) && after.iter().all(|v| value >= *v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::psf::PsfKernel;
    use crate::pipeline::segments::line_offset;

    fn image(width: usize, height: usize, f: impl Fn(usize, usize) -> f32) -> Image {
        Image { width, height, data: (0..width * height).map(|i| f(i % width, i / width)).collect() }
    }

    /// The naive oracle: every node of a level by the definition of its digital line.
    fn check_level(task: &Task, value: &Image) {
        let base = task.levels[0].height;
        let mut lower = Vec::new();
        for (index, level) in task.levels.iter().enumerate() {
            let mut upper = vec![0.0; level.len()];
            let below = index.checked_sub(1).map(|i| &task.levels[i]);
            let block = level.n_shifts() * level.stride;
            for (start, out) in upper.chunks_exact_mut(block).enumerate() {
                sum_nodes(below, level, start, value, &lower, out);
            }
            for (node, got) in upper.iter().enumerate().step_by(7) {
                let (start, rest) = (node / block, node % block);
                let (shift, x) =
                    (level.shifts.start + rest / level.stride, (rest % level.stride) as i64 - level.pad as i64);
                let expected: f32 = (0..level.height)
                    .map(|row| {
                        let (r, c) =
                            (start * level.start_step + row, x + line_offset(base, level.height, shift, row) as i64);
                        let inside = r < value.height && c >= 0 && c < value.width as i64;
                        if inside { value.data[r * value.width + c as usize] } else { 0.0 }
                    })
                    .sum();
                assert_eq!(*got, expected, "height {} start {start} shift {shift} column {x}", level.height);
            }
            lower = upper;
        }
    }

    #[test]
    fn nodes_are_sums_over_their_lines() {
        // Integers below 2^24: exact in any order.
        let frame = image(37, 70, |x, y| ((x * 31 + y * 17) % 101) as f32 - 50.0);
        let set = SegmentSet::new(37, 70, PsfKernel::new(1.5), 3, usize::MAX);
        for task in &set.tasks {
            let mut turned = Image::default();
            view(&frame, task.octant, &mut turned);
            check_level(task, &turned);
        }
    }

    #[test]
    fn views_turn_the_frame_over() {
        let frame = image(50, 70, |x, y| (y * 50 + x) as f32);
        for octant in Octant::ALL {
            let mut turned = Image::default();
            view(&frame, octant, &mut turned);
            for (r, c) in [(0, 0), (3, 40), (33, 5), (45, 41)] {
                let column = if octant.mirrored { turned.width - 1 - c } else { c };
                let (x, y) = if octant.transposed { (r, column) } else { (column, r) };
                assert_eq!(turned.data[r * turned.width + c], frame.data[y * 50 + x], "{octant:?}");
            }
        }
    }

    #[test]
    fn weights_of_one_change_nothing() {
        let frame = image(64, 64, |x, y| if x.abs_diff(y) < 2 { 3.0 } else { ((x * 7 + y * 13) % 5) as f32 - 2.0 });
        let ones = image(64, 64, |_, _| 1.0);
        let set = SegmentSet::new(64, 64, PsfKernel::new(1.5), 2, usize::MAX);
        let plain = SearchRequest { threshold: 12.0, weighted: false };
        let mut scratch = Scratch::default();
        let a = scratch.find_peaks(&frame, &ones, &set, &plain);
        let b = scratch.find_peaks(&frame, &ones, &set, &SearchRequest { weighted: true, ..plain });
        assert!(!a.is_empty());
        // Inside the frame the two agree; beyond its border weights know that nothing is there.
        let best = |p: &[Peak]| (p[0].segment, (p[0].snr * 1e3).round());
        assert_eq!(best(&a), best(&b));
    }
}
