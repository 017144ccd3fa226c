//! The segment set of the search: which line segments the fast Radon transform sums, and how.
//!
//! A *tower* of levels doubles the height of its segments from level to level: the dyadic tower from 1 (…, 8, 16, 32,
//! … rows) and the one from 3 (…, 12, 24, 48, … rows). Segments start at every quarter of their height; of tall ones two
//! neighbours together make a *paired* segment, which lies half way between them. The lines of
//! the frame fall into four *octants*, each the same computation on the frame turned over. Slopes are cut into
//! *wedges*, so that a task's levels fit a cache, or a GPU's largest buffer. Both backends work through the same list
//! of [`Task`]s. Method: docs/algorithm.md, "Search".

use std::ops::Range;

use rayon::prelude::*;

use crate::geometry::Segment;
use crate::pipeline::psf::PsfKernel;

/// Rows of the shortest segments searched for.
pub(crate) const MIN_HEIGHT: usize = 8;

/// Least height of segments that are paired with their next start: what a start too early or too late by an eighth
/// loses counts for long streaks, which lose to the digital lines as well.
const MIN_PAIRED_HEIGHT: usize = 48;

/// More wedges would cut the lowest levels no further: these have a few shifts, and every wedge needs two of them.
const MOST_WEDGES: usize = 32;

/// How an octant's rows and columns lie in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Octant {
    /// Rows of the octant are columns of the frame.
    pub(crate) transposed: bool,
    /// Columns of the octant run backwards.
    pub(crate) mirrored: bool,
}

impl Octant {
    /// Slopes of 0..1 and 0..−1 columns per row, then the same with x and y exchanged.
    pub(crate) const ALL: [Self; 4] = [
        Self { transposed: false, mirrored: false },
        Self { transposed: false, mirrored: true },
        Self { transposed: true, mirrored: false },
        Self { transposed: true, mirrored: true },
    ];

    /// Rows and columns of the octant's view of a frame.
    pub(crate) fn shape(self, width: usize, height: usize) -> (usize, usize) {
        if self.transposed { (width, height) } else { (height, width) }
    }

    /// A segment given as (row, column) ends in the octant's view, in frame coordinates.
    fn segment_in_frame(self, columns: usize, (r1, c1): (f64, f64), (r2, c2): (f64, f64)) -> Segment {
        let turn = |c: f64| if self.mirrored { columns as f64 - 1.0 - c } else { c };
        let (c1, c2) = (turn(c1), turn(c2));
        if self.transposed {
            Segment::from_coordinates(r1, c1, r2, c2)
        } else {
            Segment::from_coordinates(c1, r1, c2, r2)
        }
    }
}

/// One level of a task: all segments of one height whose shift lies in a range.
///
/// Node (start, shift, column) is the sum over the digital line which begins at row `start · start_step` and column
/// `column` and moves `shift` columns over its `height` rows. Nodes are stored `[start, shift, column]`, columns from
/// `−pad` (lines that enter through the side) to the last one; `pad` and `stride` are even, so that neighbours can be
/// stored in pairs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Level {
    pub(crate) height: usize,
    pub(crate) start_step: usize,
    pub(crate) n_starts: usize,
    /// Shifts that are computed.
    pub(crate) shifts: Range<usize>,
    /// Shifts whose peaks this task reports; empty at heights below [`MIN_HEIGHT`].
    pub(crate) reported: Range<usize>,
    /// Starts whose peaks are reported: at least half of the segment lies in the frame.
    pub(crate) reported_starts: usize,
    pub(crate) pad: usize,
    pub(crate) stride: usize,
    /// 1 / standard deviation of a node in unit white noise, one per shift of `shifts`.
    pub(crate) inverse_sd: Vec<f32>,
    /// The same of the sum of a node and its [partner](Self::partner_columns) at the next start; empty where the level
    /// is not paired.
    pub(crate) inverse_sd_paired: Vec<f32>,
}

impl Level {
    pub(crate) fn is_paired(&self) -> bool {
        !self.inverse_sd_paired.is_empty()
    }

    /// Columns by which a line moves from one start to the next: there its partner begins.
    pub(crate) fn partner_columns(&self, shift: usize) -> usize {
        let rows = self.height - 1;
        (2 * shift * self.start_step + rows) / (2 * rows)
    }

    pub(crate) fn n_shifts(&self) -> usize {
        self.shifts.len()
    }

    /// Rows from one start to the next of those that taller segments are made of.
    pub(crate) fn kept_step(&self) -> usize {
        self.height / 2
    }
}

/// One of the segments of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    /// Index of its level.
    pub(crate) level: usize,
    /// In units of the level's start step.
    pub(crate) start: usize,
    pub(crate) shift: usize,
    pub(crate) column: i64,
    /// Together with its partner at the next start.
    pub(crate) paired: bool,
}

/// One independent piece of the transform: an octant, a tower and a wedge of slopes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub(crate) octant: Octant,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Levels of doubling height. The first sums 1 or 3 rows of the filtered image.
    pub(crate) levels: Vec<Level>,
}

impl Task {
    /// The lowest level worth keeping, of 4 or 6 rows: those below are summed anew from the pixels.
    pub(crate) fn first_kept(&self) -> usize {
        self.levels.iter().position(|l| l.height >= 4).unwrap_or(0)
    }

    /// Nodes of the largest level that the next ones are made of: every second level, from the first one kept on,
    /// without the starts that only peaks are looked for at.
    pub(crate) fn max_kept_len(&self) -> usize {
        let kept = self.levels[..self.levels.len().saturating_sub(1)].iter().skip(self.first_kept()).step_by(2);
        kept.map(|l| self.rows.div_ceil(l.kept_step()) * l.n_shifts() * l.stride).max().unwrap_or(0)
    }

    /// The geometric segment a node stands for: half a row beyond its first and last row, inside the frame. That of a
    /// node and its partner lies half way between them.
    pub(crate) fn segment(&self, node: &Node) -> Option<Segment> {
        let l = &self.levels[node.level];
        let slope = node.shift as f64 / (l.height - 1) as f64;
        let ahead = if node.paired { 0.5 * l.start_step as f64 } else { 0.0 };
        let first_row = (node.start * l.start_step) as f64 + ahead;
        let (c, h) = (node.column as f64 + ahead * slope, l.height as f64);
        let segment = self.octant.segment_in_frame(
            self.columns,
            (first_row - 0.5, c - 0.5 * slope),
            (first_row + h - 0.5, c + (h - 0.5) * slope),
        );
        let (height, width) =
            if self.octant.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) };
        segment.clipped_to(width, height)
    }
}

/// Column offset at row `row` of the digital line of `height` rows and `shift` columns, in the tower from `base`.
pub(crate) fn line_offset(base: usize, height: usize, shift: usize, row: usize) -> usize {
    if height == 1 {
        return 0;
    }
    if height == 3 && base == 3 {
        return [0, shift.div_ceil(2), shift][row];
    }
    let half = height / 2;
    let lower = line_offset(base, half, shift / 2, row % half);
    if row < half { lower } else { shift.div_ceil(2) + lower }
}

/// Everything the transform does for one frame shape and PSF.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SegmentSet {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) kernel: PsfKernel,
    pub(crate) tasks: Vec<Task>,
}

impl SegmentSet {
    /// The set for a frame, with slopes cut into so many wedges that no level of a task has more than
    /// `max_nodes` nodes to keep, and into at least `min_wedges`.
    pub(crate) fn new(width: usize, height: usize, kernel: PsfKernel, min_wedges: usize, max_nodes: usize) -> Self {
        let mut tasks = Vec::new();
        // Those of the taller octants, whose levels the others share.
        let variances =
            [1, 3].map(|base| node_variances(base, &tower_heights(base, width.max(height)), &kernel.autocorrelation()));
        for octant in Octant::ALL {
            let (rows, columns) = octant.shape(width, height);
            for (base, variances) in [1, 3].into_iter().zip(&variances) {
                let heights = tower_heights(base, rows);
                if heights.is_empty() {
                    continue;
                }
                let mut wedges = min_wedges.max(1);
                loop {
                    let cut: Vec<Task> = (0..wedges)
                        .map(|k| build_task(octant, rows, columns, &heights, variances, k, wedges))
                        .filter(|t| !t.levels.is_empty())
                        .collect();
                    let small = cut.iter().all(|t| t.max_kept_len() <= max_nodes);
                    if small || wedges >= heights.last().map_or(1, |h| MOST_WEDGES.min(*h)) {
                        tasks.extend(cut);
                        break;
                    }
                    wedges *= 2;
                }
            }
        }
        Self { width, height, kernel, tasks }
    }

    /// Rows in the frame of any segment, at most: the tallest ones go on beyond it.
    pub(crate) fn most_rows(&self) -> usize {
        self.tasks.iter().filter_map(|t| Some(t.levels.last()?.height.min(t.rows))).max().unwrap_or(0)
    }

    /// Longest segment, px; 0 when the frame is too small for any.
    pub(crate) fn longest_px(&self) -> f64 {
        self.tasks
            .iter()
            .filter_map(|t| t.levels.last())
            .map(|l| (l.height as f64).hypot(l.shifts.end.saturating_sub(1) as f64))
            .fold(0.0, f64::max)
    }
}

/// Heights of a tower for a view of `rows` rows; empty when none is tall enough to be searched.
///
/// The tallest may exceed the rows by a third: a streak across the whole frame keeps more of its S/N in a segment a
/// little too long than in one of half its length.
fn tower_heights(base: usize, rows: usize) -> Vec<usize> {
    let heights: Vec<usize> = std::iter::successors(Some(base), |h| Some(h * 2))
        .take_while(|&h| 3 * h <= 4 * rows && h <= rows.next_power_of_two())
        .collect();
    if rows >= MIN_HEIGHT && heights.last().is_some_and(|&h| h >= MIN_HEIGHT) { heights } else { Vec::new() }
}

/// A segment may start at every quarter of its height; levels below the search start where the next one needs them.
fn start_step(height: usize) -> usize {
    match height {
        1 => 1,
        2 | 4 => 2,
        3 | 6 => 3,
        h => h / 4,
    }
}

/// Nodes of a row before column 0, and all of them, where shifts end before this one.
fn pad_and_stride(columns: usize, end_shift: usize) -> (usize, usize) {
    let pad = (end_shift - 1).next_multiple_of(2);
    (pad, (columns + pad).next_multiple_of(2))
}

/// Nodes of the largest level that a transform of such frames keeps, see [`Task::max_kept_len`], however it is cut.
#[cfg(any(feature = "gpu", test))]
pub(crate) fn most_kept(width: usize, height: usize) -> usize {
    let of_octant = |(rows, columns): (usize, usize)| {
        let towers = [1, 3].map(|base| tower_heights(base, rows));
        let kept = towers.iter().flat_map(|heights| heights.split_last().map_or(&[][..], |(_, kept)| kept));
        let nodes = |height: usize| {
            let shifts = height.min(most_shift(columns) + 1);
            rows.div_ceil(height / 2) * shifts * pad_and_stride(columns, shifts).1
        };
        kept.filter(|h| **h >= 4).map(|h| nodes(*h)).max().unwrap_or(0)
    };
    Octant::ALL.map(|octant| of_octant(octant.shape(width, height))).into_iter().max().unwrap_or(0)
}

/// A line that moves much further than the frame is wide spends most of its rows outside: shorter segments hold the
/// part inside.
fn most_shift(columns: usize) -> usize {
    columns + columns / 2 + MIN_HEIGHT
}

fn build_task(
    octant: Octant,
    rows: usize,
    columns: usize,
    heights: &[usize],
    variances: &[Vec<f64>],
    wedge: usize,
    wedges: usize,
) -> Task {
    let mut levels = Vec::new();
    let mut needed = 0..0;
    for (index, &height) in heights.iter().enumerate().rev() {
        let owned = (wedge * height).div_ceil(wedges)..((wedge + 1) * height).div_ceil(wedges);
        let reported = if height >= MIN_HEIGHT { owned.start..owned.end.min(most_shift(columns)) } else { 0..0 };
        if !reported.is_empty() {
            // A peak is compared with the neighbouring shifts on either side.
            let compared = reported.start.saturating_sub(1)..(reported.end + 1).min(height);
            needed = if needed.is_empty() {
                compared
            } else {
                needed.start.min(compared.start)..needed.end.max(compared.end)
            };
        }
        if needed.is_empty() {
            continue;
        }
        let shifts = needed.clone();
        let step = start_step(height);
        let (pad, stride) = pad_and_stride(columns, shifts.end);
        let inverse = |variance: f64| (1.0 / variance.sqrt()) as f32;
        let of_shift = &variances[index];
        // A node and its partner share three quarters of their rows: with r(d) the filter's autocorrelation along the
        // line, both variances are sums of r(d) and |d| r(d), and those follow from the levels' own variances.
        let paired = |shift: usize| 5.0 * of_shift[shift] - 3.0 * variances[index - 1][shift / 2];
        let is_paired = height >= MIN_PAIRED_HEIGHT;
        levels.push(Level {
            height,
            start_step: step,
            n_starts: rows.div_ceil(step),
            reported_starts: if reported.is_empty() { 0 } else { rows.saturating_sub(height / 2) / step + 1 }
                .min(rows.div_ceil(step)),
            inverse_sd: shifts.clone().map(|d| inverse(of_shift[d])).collect(),
            inverse_sd_paired: shifts.clone().filter(|_| is_paired).map(|d| inverse(paired(d))).collect(),
            pad,
            stride,
            shifts,
            reported,
        });
        needed = needed.start / 2..(needed.end - 1) / 2 + 1;
    }
    levels.reverse();
    Task { octant, rows, columns, levels }
}

/// Variance of every node in white noise of unit variance filtered by the PSF, `[level][shift]`.
///
/// A line of two halves has twice a half's variance and twice the covariance of the halves where they meet, which
/// only the rows within the filter's reach share.
fn node_variances(base: usize, heights: &[usize], autocorrelation: &[f64]) -> Vec<Vec<f64>> {
    let lag = |d: i64| autocorrelation.get(d.unsigned_abs() as usize).copied().unwrap_or(0.0);
    let reach = autocorrelation.len() - 1;
    let mut out: Vec<Vec<f64>> = Vec::new();
    for &height in heights {
        let half = height / 2;
        let rows = if out.is_empty() { 0..height } else { half.saturating_sub(reach)..(half + reach).min(height) };
        let level = (0..height).into_par_iter().map(|shift| {
            // Of the rows that count: finding an offset takes a step for each level below.
            let columns: Vec<i64> = rows.clone().map(|row| line_offset(base, height, shift, row) as i64).collect();
            let covariance =
                |i: usize, j: usize| lag(j as i64 - i as i64) * lag(columns[j - rows.start] - columns[i - rows.start]);
            match out.last() {
                None => (0..height).flat_map(|i| (0..height).map(move |j| (i, j))).map(|(i, j)| covariance(i, j)).sum(),
                Some(lower) => {
                    let shared: f64 = (rows.start..half)
                        .flat_map(|i| (half..rows.end).map(move |j| (i, j)))
                        .filter(|(i, j)| j - i <= reach)
                        .map(|(i, j)| covariance(i, j))
                        .sum();
                    2.0 * lower[shift / 2] + 2.0 * shared
                }
            }
        });
        let level: Vec<f64> = level.collect();
        out.push(level);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(width: usize, height: usize, wedges: usize) -> SegmentSet {
        SegmentSet::new(width, height, PsfKernel::new(1.5), wedges, usize::MAX)
    }

    #[test]
    fn digital_lines_stay_near_the_true_line() {
        for (base, height) in [(1, 8), (1, 256), (3, 12), (3, 384)] {
            for shift in 0..height {
                for row in 0..height {
                    let true_column = shift as f64 * row as f64 / (height - 1) as f64;
                    let stray = (line_offset(base, height, shift, row) as f64 - true_column).abs();
                    assert!(stray <= (height as f64).log2() / 6.0 + 0.5, "{height} {shift} {row}: {stray}");
                }
                assert_eq!(line_offset(base, height, shift, height - 1), shift);
            }
        }
    }

    #[test]
    fn every_slope_is_reported_by_one_wedge() {
        for wedges in [1, 3, 8, 32] {
            let set = set(200, 90, wedges);
            for octant in Octant::ALL {
                let (rows, columns) = octant.shape(200, 90);
                for height in
                    tower_heights(1, rows).into_iter().chain(tower_heights(3, rows)).filter(|&h| h >= MIN_HEIGHT)
                {
                    let mut times = vec![0; height];
                    for task in set.tasks.iter().filter(|t| t.octant == octant) {
                        for level in task.levels.iter().filter(|l| l.height == height) {
                            level.reported.clone().for_each(|d| times[d] += 1);
                        }
                    }
                    assert!(
                        times.iter().take(most_shift(columns)).all(|&t| t == 1),
                        "{wedges} wedges, height {height}: {times:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn levels_hold_what_the_next_one_needs() {
        for task in set(130, 300, 5).tasks {
            for pair in task.levels.windows(2) {
                let (lower, upper) = (&pair[0], &pair[1]);
                assert_eq!(upper.height, 2 * lower.height);
                assert!(upper.start_step % lower.start_step == 0 && lower.height % lower.start_step == 0);
                assert!(upper.shifts.clone().all(|d| lower.shifts.contains(&(d / 2))));
                assert!(upper.shifts.start <= upper.reported.start || upper.reported.is_empty());
            }
        }
    }

    #[test]
    fn no_level_is_larger_than_was_said() {
        for (width, height) in [(200, 90), (90, 200), (130, 97), (385, 384), (1000, 12), (5, 5)] {
            let most = most_kept(width, height);
            for wedges in [1, 3, 8] {
                let largest = set(width, height, wedges).tasks.iter().map(Task::max_kept_len).max().unwrap_or(0);
                assert!(largest <= most, "{width} x {height}, {wedges} wedges: {largest} {most}");
                assert!(wedges > 1 || most <= 4 * largest, "{width} x {height}: {largest} {most}");
            }
        }
    }

    #[test]
    fn variances_match_the_direct_sum() {
        let autocorrelation = PsfKernel::new(1.5).autocorrelation();
        let lag = |d: i64| autocorrelation.get(d.unsigned_abs() as usize).copied().unwrap_or(0.0);
        for base in [1, 3] {
            let heights = tower_heights(base, 64);
            let variances = node_variances(base, &heights, &autocorrelation);
            let top = *heights.last().unwrap();
            for shift in [0, 1, 7, top / 3, top - 1] {
                let column = |i| line_offset(base, top, shift, i) as i64;
                let direct: f64 = (0..top)
                    .flat_map(|i| (0..top).map(move |j| (i, j)))
                    .map(|(i, j)| lag(j as i64 - i as i64) * lag(column(j) - column(i)))
                    .sum();
                let ratio = variances.last().unwrap()[shift] / direct;
                assert!((ratio - 1.0).abs() < 1e-9, "base {base} shift {shift}: {ratio}");
            }
        }
    }

    #[test]
    fn variances_of_pairs_match_the_direct_sum() {
        let autocorrelation = PsfKernel::new(1.5).autocorrelation();
        let lag = |d: i64| autocorrelation.get(d.unsigned_abs() as usize).copied().unwrap_or(0.0);
        for task in set(100, 120, 1).tasks {
            let base = task.levels[0].height;
            for level in task.levels.iter().filter(|l| l.is_paired()) {
                for shift in level.shifts.clone().step_by(5) {
                    let column = |i| line_offset(base, level.height, shift, i) as i64;
                    let ahead = level.partner_columns(shift) as i64;
                    let line: Vec<(i64, i64)> = (0..level.height).map(|i| (i as i64, column(i))).collect();
                    let partner = line.iter().map(|(i, c)| (i + level.start_step as i64, c + ahead));
                    let rows: Vec<(i64, i64)> = line.iter().copied().chain(partner).collect();
                    let direct: f64 =
                        rows.iter().flat_map(|a| rows.iter().map(|b| lag(a.0 - b.0) * lag(a.1 - b.1))).sum();
                    let sd = 1.0 / f64::from(level.inverse_sd_paired[shift - level.shifts.start]);
                    // The two digital lines stray from each other by a column here and there.
                    let ratio = sd / direct.sqrt();
                    assert!(
                        (0.99..1.03).contains(&ratio),
                        "base {base}, {} rows, shift {shift}: {ratio}",
                        level.height
                    );
                }
            }
        }
    }

    #[test]
    fn small_frames_have_no_segments() {
        assert!(set(5, 5, 4).tasks.is_empty());
        assert_eq!(set(1, 1, 4).longest_px(), 0.0);
        assert!(set(3, 500, 4).tasks.iter().all(|t| !t.octant.transposed));
    }

    #[test]
    fn node_segments_lie_where_their_pixels_are() {
        let set = set(100, 80, 1);
        for octant in Octant::ALL {
            let task = set.tasks.iter().find(|t| t.octant == octant).unwrap();
            let level = task.levels.iter().position(|l| l.height == 16).unwrap();
            let l = &task.levels[level];
            let node = Node { level, start: 3, shift: 9, column: 20, paired: false };
            let s = task.segment(&node).unwrap();
            let row = node.start * l.start_step;
            let (mut x, mut y) = (node.column as f64, row as f64);
            if octant.mirrored {
                x = task.columns as f64 - 1.0 - x;
            }
            if octant.transposed {
                std::mem::swap(&mut x, &mut y);
            }
            assert!(s.distance_to(crate::Point::new(x, y)) < 1.0, "{octant:?} {s:?} {x} {y}");
        }
    }

    #[test]
    fn no_segment_has_more_rows_in_the_frame_than_that() {
        let most_rows = |width: usize, height: usize| {
            SegmentSet::new(width, height, PsfKernel::new(1.5), 1, usize::MAX).most_rows()
        };
        // Of 96 rows some lie beyond views of 80 and of 90.
        assert_eq!((most_rows(20, 80), most_rows(30, 64), most_rows(90, 40)), (80, 64, 90));
        assert_eq!(most_rows(5, 5), 0);
    }
}
