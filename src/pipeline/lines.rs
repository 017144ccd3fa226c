//! Background stage, what follows the detector rather than the sky: borders that saw no light, and steps between
//! columns or rows that no smooth map can follow.
//!
//! Method: docs/algorithm.md, "Background".

mod jumps;

use std::ops::Range;

use self::jumps::jump_offsets;
use crate::Result;
use crate::backend::{Backend, TileSource};
use crate::pipeline::background::{BackgroundMap, CLIPPED_SD, Mesh, TileStatistics, unclipped_sd};

/// Lines looked at together at first: single ones only where there is something to see.
pub(crate) const BLOCK: usize = 8;

/// A block of lines at the border with less noise than this part of the others' has seen no sky: overscan, a mask, a
/// dead amplifier.
const QUIET: f64 = 0.5;

/// No more than this part of a side is such a border.
const MOST_BORDER: f64 = 0.25;

/// Or it is darker than what lies further inside by so many times the noise of a pixel there, and quieter: no sky falls
/// off like this, nor does the level of an amplifier by as much. Such a strip has so many blocks at most.
const DARK_STEP: f64 = 5.0;
const QUIETER: f64 = 0.9;
const MOST_STRIP: usize = 16;

/// Parts of a line, whose median is the line's: a streak that runs through some of them does not lift it.
const PARTS: usize = 8;

/// Pixels of a line that are looked at in each part, where blocks of lines are: they show a step of [`LEAST_OFFSET`] with
/// an error four times smaller.
const MOST_PX: usize = 64;

/// Shorter lines know their level too badly, and a streak across is too large a part of them.
const MIN_LENGTH: usize = 512;

/// Half of the window whose median is a line's offset. A streak along the lines is narrower than that, and stays.
const HALF_WINDOW: usize = 10;

/// Offsets smaller than this part of the noise are left to the map.
const LEAST_OFFSET: f64 = 0.1;

/// They also have to be so many times their errors: those of blocks, so that [`LEAST_OFFSET`] decides where all pixels are
/// there, and those of lines.
const BLOCK_SIGNIFICANT: f64 = 4.0;
const SIGNIFICANT: f64 = 6.0;

/// What is taken off, and left out, column by column and row by row. The two halves of a line may have offsets of their own:
/// amplifiers read quarters of a detector, or half columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lines {
    width: usize,
    height: usize,
    /// In the frame's unit: of each column in the first half of the rows, then in the second; of each row in the first half of
    /// the columns, then in the second.
    pub(crate) offsets: Vec<f32>,
    /// 1, or 0 where no sky was seen.
    pub(crate) factors: Vec<f32>,
}

impl Lines {
    #[cfg(all(test, feature = "gpu"))]
    pub(crate) fn new(width: usize, height: usize, offsets: Vec<f32>, factors: Vec<f32>) -> Self {
        Self { width, height, offsets, factors }
    }

    fn none(width: usize, height: usize) -> Self {
        Self { width, height, offsets: vec![0.0; 2 * (width + height)], factors: vec![1.0; width + height] }
    }

    /// Offsets of all columns in that half of the rows which a row belongs to.
    pub(crate) fn of_columns(&self, y: usize) -> &[f32] {
        let first = if y < self.height / 2 { 0 } else { self.width };
        &self.offsets[first..first + self.width]
    }

    /// Offsets of a row in the first half of the columns, and in the second.
    pub(crate) fn of_row(&self, y: usize) -> [f32; 2] {
        [0, self.height].map(|half| self.offsets[2 * self.width + half + y])
    }

    /// Those of the columns, or of the rows: of their first halves, then of their second ones.
    fn halves_mut(&mut self, are_columns: bool) -> [&mut [f32]; 2] {
        let (columns, rows) = self.offsets.split_at_mut(2 * self.width);
        let (lines, n) = if are_columns { (columns, self.width) } else { (rows, self.height) };
        let (first, second) = lines.split_at_mut(n);
        [first, second]
    }

    fn add_offsets(&mut self, others: &Self) {
        self.offsets.iter_mut().zip(&others.offsets).for_each(|(offset, other)| *offset += other);
    }

    /// Nothing is taken off or left out.
    pub(crate) fn is_none(&self) -> bool {
        self.offsets.iter().all(|v| *v == 0.0) && self.factors.iter().all(|v| *v == 1.0)
    }

    /// What is taken off a pixel.
    pub(crate) fn offset(&self, x: usize, y: usize) -> f32 {
        self.of_columns(y)[x] + self.of_row(y)[usize::from(x >= self.width / 2)]
    }

    /// The borders without sky, from the blocks of columns and of rows.
    fn without_borders(width: usize, height: usize, blocks: &[Blocks; 2]) -> Self {
        let mut lines = Self::none(width, height);
        for (blocks, range) in blocks.iter().zip([0..width, width..width + height]) {
            let blocks = blocks.lines(0..PARTS);
            let (low, high) = dark_borders(&blocks);
            let [low, high] = [low, high].map(|n| n * range.len() / blocks.len().max(1));
            lines.factors[range.start..range.start + low].fill(0.0);
            lines.factors[range.end - high..range.end].fill(0.0);
        }
        lines
    }
}

/// Blocks of lines, or single ones, part by part.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Blocks {
    /// Columns, whose parts lie below each other; else rows, whose parts lie side by side.
    are_columns: bool,
    mesh: Mesh,
    parts: Vec<TileStatistics>,
}

impl Blocks {
    /// Statistics of blocks of so many lines, on so many pixels of each part of a line.
    fn measure(
        backend: &mut dyn Backend,
        [width, height]: [usize; 2],
        are_columns: bool,
        block: usize,
        most_px: usize,
    ) -> Result<Self> {
        let [nx, ny] = if are_columns {
            [width.div_ceil(block), PARTS.min(height)]
        } else {
            [PARTS.min(width), height.div_ceil(block)]
        };
        let mesh = Mesh { width, height, nx, ny, most_px, half_of_rows: false };
        Ok(Self { are_columns, mesh, parts: backend.tile_statistics(mesh, TileSource::Values)? })
    }

    /// Those of columns and of rows, [`BLOCK`] in each.
    fn of_both(backend: &mut dyn Backend, size: [usize; 2]) -> Result<[Self; 2]> {
        let mut of = |are_columns: bool| Self::measure(backend, size, are_columns, BLOCK, MOST_PX);
        Ok([of(true)?, of(false)?])
    }

    /// What some of each block's parts have in common.
    fn lines(&self, parts: Range<usize>) -> Vec<Line> {
        let n = parts.len();
        if self.are_columns {
            let of = |x: usize| Line::of(self.parts.iter().skip(x).step_by(self.mesh.nx).skip(parts.start).take(n));
            (0..self.mesh.nx).map(of).collect()
        } else {
            self.parts.chunks(self.mesh.nx).map(|row| Line::of(row.iter().skip(parts.start).take(n))).collect()
        }
    }

    /// The same of the first half of each block, and of the second.
    fn halves(&self) -> [Vec<Line>; 2] {
        [self.lines(0..PARTS / 2), self.lines(PARTS / 2..PARTS)]
    }

    /// Whether there are steps from block to block, in whole ones or, twice as significant, in half ones: the scatter of four
    /// parts is not known well.
    fn have_steps(&self) -> bool {
        let have = |lines: &[Line], significant: f64| step_offsets(lines, 0, significant).is_some();
        self.length() >= MIN_LENGTH
            && (have(&self.lines(0..PARTS), BLOCK_SIGNIFICANT)
                || self.halves().iter().any(|half| have(half, 2.0 * BLOCK_SIGNIFICANT)))
    }

    /// As they are once a smooth map has been taken off: it knows what of a part's scatter is noise, and what a slope.
    fn without(&self, map: &BackgroundMap) -> Self {
        let less = |(part, (level, noise)): (&TileStatistics, (f32, f32))| TileStatistics {
            mean: part.mean - level,
            median: part.median - level,
            sd: part.sd.min((CLIPPED_SD * f64::from(noise)) as f32),
            ..*part
        };
        let parts = self.parts.iter().zip(map.means_over(self.mesh)).map(less).collect();
        Self { are_columns: self.are_columns, mesh: self.mesh, parts }
    }

    /// Pixels of one of its lines.
    fn length(&self) -> usize {
        if self.are_columns { self.mesh.height } else { self.mesh.width }
    }
}

/// Gives weight zero to the borders of a frame, as ingested, that saw no sky. Returns the blocks that show them as well.
pub(crate) fn leave_dark_borders(
    backend: &mut dyn Backend,
    width: usize,
    height: usize,
) -> Result<(Lines, [Blocks; 2])> {
    let blocks = Blocks::of_both(backend, [width, height])?;
    let lines = Lines::without_borders(width, height, &blocks);
    if !lines.is_none() {
        backend.take_off_lines(&lines)?;
    }
    Ok((lines, blocks))
}

/// The single columns and rows of a frame that has been normalised, of those of the two of which blocks show that they have
/// steps; none where neither has. `blocks` are those of the frame as ingested, `lines` what has been taken off it before.
pub(crate) fn with_steps(
    backend: &mut dyn Backend,
    map: &BackgroundMap,
    blocks: &[Blocks; 2],
    lines: &Lines,
) -> Result<Option<Vec<Blocks>>> {
    let size = [map.mesh.width, map.mesh.height];
    if blocks.iter().all(|b| b.length() < MIN_LENGTH) {
        return Ok(None);
    }
    let blocks = if lines.is_none() {
        [0, 1].map(|i| blocks[i].without(map))
    } else {
        // Borders were a part of them, or jumps.
        Blocks::of_both(backend, size)?
    };
    let all_px = size[0].max(size[1]);
    let mut single = Vec::new();
    for seen in blocks.iter().filter(|b| b.have_steps()) {
        // In a crowd some blocks always seem to; single lines take far longer than a look at all pixels of these.
        if Blocks::measure(backend, size, seen.are_columns, BLOCK, all_px)?.have_steps() {
            single.push(Blocks::measure(backend, size, seen.are_columns, 1, all_px)?);
        }
    }
    Ok((!single.is_empty()).then_some(single))
}

/// What is to be taken off a frame as ingested, once jumps from one line to the next have bent its map: `lines` and these jumps,
/// of the columns alone where they have some. None where there are none.
pub(crate) fn with_jumps(single: &[Blocks], lines: &Lines) -> Option<Lines> {
    let mut jumps = lines.clone();
    for of_lines in single {
        let [first, second] = of_lines.halves();
        let difference: Vec<Line> = first.iter().zip(&second).map(|(a, b)| a.minus(b)).collect();
        let offsets = if jump_offsets(&difference).is_some() {
            [first, second].map(|half| jump_offsets(&half))
        } else {
            let whole = jump_offsets(&of_lines.lines(0..PARTS));
            [whole.clone(), whole]
        };
        for (half, offsets) in jumps.halves_mut(of_lines.are_columns).into_iter().zip(offsets) {
            half.iter_mut().zip(offsets.unwrap_or_default()).for_each(|(place, offset)| *place += offset);
        }
        // Around a quarter that differs both have jumps, of which one is enough: the other is no longer there the next time.
        if jumps != *lines {
            return Some(jumps);
        }
    }
    None
}

/// Takes the steps of single lines off a frame that has been normalised, and notes them.
pub(crate) fn take_off_steps(backend: &mut dyn Backend, single: &[Blocks], lines: &mut Lines) -> Result<()> {
    let mut steps = Lines::none(lines.width, lines.height);
    for of_lines in single {
        if let Some(offsets) = step_offsets(&of_lines.lines(0..PARTS), HALF_WINDOW, SIGNIFICANT) {
            steps.halves_mut(of_lines.are_columns).into_iter().for_each(|half| half.copy_from_slice(&offsets));
        }
    }
    if !steps.is_none() {
        backend.take_off_lines(&steps)?;
        lines.add_offsets(&steps);
    }
    Ok(())
}

/// What the parts of a line, or of a block of some, have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    n_clipped: u32,
    mean: f32,
    /// Of the mean, from the noise.
    mean_err: f64,
    /// Scatter of the parts' means over what their noise gives.
    scatter: f64,
    median: f32,
    sd: f32,
}

impl Line {
    fn of<'a>(parts: impl IntoIterator<Item = &'a TileStatistics>) -> Self {
        let parts: Vec<&TileStatistics> = parts.into_iter().filter(|p| p.n_clipped > 1).collect();
        let median = |of: &dyn Fn(&TileStatistics) -> f32| {
            let mut values: Vec<f32> = parts.iter().map(|p| of(p)).collect();
            values.sort_unstable_by(f32::total_cmp);
            let middle = |i: usize| values.get(i).copied().unwrap_or(0.0);
            0.5 * (middle(values.len().saturating_sub(1) / 2) + middle(values.len() / 2))
        };
        let n_clipped: u32 = parts.iter().map(|p| p.n_clipped).sum();
        let mean = median(&|p| p.mean);
        let of_noise = f64::from(median(&unclipped_sd)) / f64::from(n_clipped.max(1)).sqrt();
        let of_parts =
            SD_OF_MEDIAN_DEVIATION * f64::from(median(&|p| (p.mean - mean).abs())) / (parts.len().max(1) as f64).sqrt();
        Self {
            n_clipped,
            mean,
            mean_err: ERROR_OF_MEDIAN * of_noise,
            scatter: if of_noise > 0.0 { of_parts / of_noise } else { 1.0 },
            median: median(&|p| p.median),
            sd: median(&|p| p.sd),
        }
    }

    /// How much one differs from another.
    fn minus(&self, other: &Self) -> Self {
        Self {
            n_clipped: self.n_clipped.min(other.n_clipped),
            mean: self.mean - other.mean,
            mean_err: self.mean_err.hypot(other.mean_err),
            scatter: self.scatter.max(other.scatter),
            median: self.median - other.median,
            sd: self.sd.max(other.sd),
        }
    }

    fn was_seen(&self) -> bool {
        self.n_clipped > 1
    }
}

/// A median has so many times the error of a mean, in Gaussian noise.
const ERROR_OF_MEDIAN: f64 = 1.25;

/// Standard deviation of Gaussian noise over its median absolute deviation.
const SD_OF_MEDIAN_DEVIATION: f64 = 1.4826;

/// How many blocks at the beginning and at the end saw no sky, with one more on either side that may hold the edge.
fn dark_borders(blocks: &[Line]) -> (usize, usize) {
    let mut noise: Vec<f64> = blocks.iter().filter(|b| b.was_seen()).map(|b| f64::from(b.sd)).collect();
    noise.sort_unstable_by(f64::total_cmp);
    let Some(&typical) = noise.get(noise.len() / 2) else { return (0, 0) };
    let most = (MOST_BORDER * blocks.len() as f64) as usize;
    let quiet = |b: &Line| f64::from(b.sd) < QUIET * typical;
    let at_begin = |blocks: &[&Line]| {
        let quiet = blocks.iter().take_while(|b| quiet(b)).count();
        let n = if quiet > most { 0 } else { quiet.max(below_step(blocks)) };
        if n == 0 { 0 } else { n + 1 }
    };
    let forwards: Vec<&Line> = blocks.iter().collect();
    let backwards: Vec<&Line> = blocks.iter().rev().collect();
    (at_begin(&forwards), at_begin(&backwards))
}

/// How many blocks lie before a step up to the sky, which may run through the next one.
fn below_step(blocks: &[&Line]) -> usize {
    let most = MOST_STRIP.min((MOST_BORDER * blocks.len() as f64) as usize);
    let is_step = |i: &usize| {
        let (dark, sky) = (blocks[*i], blocks[*i + 2]);
        let seen = dark.was_seen() && sky.was_seen();
        let noise = f64::from(sky.sd);
        seen && f64::from(sky.median - dark.median) > DARK_STEP * noise && f64::from(dark.sd) < QUIETER * noise
    };
    (0..most).rev().find(is_step).map_or(0, |i| i + 1)
}

/// Median offset of the lines around each, where some of these are too large for the noise, and so many times their errors.
fn step_offsets(lines: &[Line], half_window: usize, significant: f64) -> Option<Vec<f32>> {
    let n = lines.len();
    let window = |i: usize| i.saturating_sub(half_window)..(i + half_window + 1).min(n);
    let median = |i: usize| {
        let mut around: Vec<f32> = lines[window(i)].iter().filter(|l| l.was_seen()).map(|l| l.mean).collect();
        around.sort_unstable_by(f32::total_cmp);
        around.get(around.len() / 2).copied().unwrap_or(0.0)
    };
    let offsets: Vec<f32> = (0..n).map(median).collect();
    // Stars lift some parts of a line and not others, where they are many those of all lines; eight parts of one say little.
    let mut scatter: Vec<f64> = lines.iter().filter(|l| l.was_seen()).map(|l| l.scatter).collect();
    scatter.sort_unstable_by(f64::total_cmp);
    let excess = scatter.get(scatter.len() / 2).map_or(1.0, |s| s.max(1.0));
    let is_step = |i: usize| {
        let line = &lines[i];
        let noise = f64::from(line.sd) / CLIPPED_SD;
        let error = ERROR_OF_MEDIAN * excess * line.mean_err / (window(i).len() as f64).sqrt();
        f64::from(offsets[i].abs()) > (LEAST_OFFSET * noise).max(significant * error) && line.was_seen()
    };
    (0..n).any(is_step).then_some(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(mean: f32, sd: f32) -> TileStatistics {
        TileStatistics { n_usable: 700, n_clipped: 697, mean, median: mean, sd }
    }

    fn line(mean: f32, sd: f32) -> Line {
        Line::of(&[part(mean, sd)])
    }

    #[test]
    fn a_streak_through_some_parts_does_not_lift_a_line() {
        let mut parts = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.0].map(|mean| part(mean, 10.0));
        parts[2..5].iter_mut().for_each(|p| p.mean += 40.0);
        let whole = Line::of(&parts);
        assert!((whole.mean - 1.0).abs() < 0.15 && whole.sd == 10.0 && whole.n_clipped == 8 * 697, "{whole:?}");
        parts[6..].fill(TileStatistics::default());
        assert_eq!(Line::of(&parts).n_clipped, 6 * 697, "parts that saw nothing");
        assert!(!Line::of(&[TileStatistics::default(); 8]).was_seen());
    }

    #[test]
    fn where_parts_scatter_lines_are_known_less_well() {
        let of = |means: [f32; 8]| Line::of(&means.map(|mean| part(mean, 9.85)));
        // Median 0.25, that of the deviations 1.5; the noise of a part is 10 / √697.
        let crowded = of([0.0, 2.0, -2.0, 1.0, -1.0, 3.0, -3.0, 0.5]);
        assert!((crowded.scatter / (1.4826 * 1.5 * 697.0_f64.sqrt() / 10.0) - 1.0).abs() < 0.01, "{crowded:?}");
        let step = |scale: f32| -> Vec<Line> {
            let line = |i: usize| {
                let level = if i == 20 { 1.5 } else { 0.0 };
                of([0.1, -0.1, 0.2, 0.0, -0.2, 0.1, 0.0, -0.1].map(|mean| level + scale * mean))
            };
            (0..40).map(line).collect()
        };
        assert!(step_offsets(&step(1.0), 0, BLOCK_SIGNIFICANT).is_some());
        assert_eq!(step_offsets(&step(20.0), 0, BLOCK_SIGNIFICANT), None);
    }

    #[test]
    fn quiet_borders_are_dark() {
        let frame =
            |quiet: usize| -> Vec<_> { (0..400).map(|i| line(100.0, if i < quiet { 2.0 } else { 20.0 })).collect() };
        assert_eq!(dark_borders(&frame(0)), (0, 0));
        assert_eq!(dark_borders(&frame(24)), (25, 0));
        assert_eq!(dark_borders(&frame(150)), (0, 0), "that is no border");
        assert_eq!(dark_borders(&vec![line(0.0, 0.0); 50]), (0, 0), "nothing has noise");
        assert_eq!(dark_borders(&vec![Line::of(&[]); 50]), (0, 0));
    }

    #[test]
    fn dark_strips_at_the_border_are_left_out() {
        let frame = |dark: usize, level: f32, noise: f32| -> Vec<_> {
            (0..100).map(|i| if i < dark { line(level, noise) } else { line(1000.0, 20.0) }).collect()
        };
        assert_eq!(dark_borders(&frame(4, 800.0, 15.0)), (5, 0));
        assert_eq!(dark_borders(&frame(4, 950.0, 15.0)), (0, 0), "an amplifier's step");
        assert_eq!(dark_borders(&frame(4, 800.0, 20.0)), (0, 0), "as noisy as the sky");
        assert_eq!(dark_borders(&frame(30, 800.0, 15.0)), (0, 0), "that is no strip");
    }

    #[test]
    fn steps_are_taken_off_and_streaks_stay() {
        let noise = |i: usize| 0.5 * ((i * 7919) % 13) as f32 / 13.0 - 0.25;
        let flat: Vec<_> = (0..300).map(|i| line(noise(i), 10.0)).collect();
        assert_eq!(step_offsets(&flat, HALF_WINDOW, SIGNIFICANT), None);
        let streak: Vec<_> =
            (0..300).map(|i| line(noise(i) + if (140..148).contains(&i) { 9.0 } else { 0.0 }, 10.0)).collect();
        assert_eq!(step_offsets(&streak, HALF_WINDOW, SIGNIFICANT), None);
        let step: Vec<_> = (0..300).map(|i| line(noise(i) + if i < 120 { -5.0 } else { 0.0 }, 10.0)).collect();
        let offsets = step_offsets(&step, HALF_WINDOW, SIGNIFICANT).unwrap();
        assert!((0..120).all(|i| (offsets[i] + 5.0).abs() < 0.3) && (120..300).all(|i| offsets[i].abs() < 0.3));
    }

    #[test]
    fn steps_show_when_the_map_is_taken_off() {
        let (width, height) = (640, 520);
        let sky = |x: f32, y: f32| 300.0 + 0.05 * x + 2e-4 * (y - 200.0).powi(2);
        let mean = |mesh: Mesh, i: usize, step: f32| {
            let (columns, rows) = (mesh.columns(i % mesh.nx), mesh.rows(i / mesh.nx));
            let n = (columns.len() * rows.len()) as f32;
            let pixels = rows.flat_map(|y| columns.clone().map(move |x| (x, y)));
            pixels.map(|(x, y)| sky(x as f32, y as f32) + if x < 200 { step } else { 0.0 }).sum::<f32>() / n
        };
        let tiles = Mesh::new(width, height, 64);
        let whole = |i: usize| TileStatistics { n_usable: 4096, n_clipped: 4085, ..part(mean(tiles, i, 0.0), 10.0) };
        let smooth: Vec<TileStatistics> = (0..tiles.len()).map(whole).collect();
        let map = BackgroundMap::from_tiles(tiles, &smooth).unwrap();
        for (are_columns, nx, ny) in [(true, 80, 8), (false, 8, 65)] {
            let mesh = Mesh { width, height, nx, ny, most_px: MOST_PX, half_of_rows: false };
            let blocks = |step: f32| {
                let parts = (0..mesh.len()).map(|i| part(mean(mesh, i, step), 10.0)).collect();
                Blocks { are_columns, mesh, parts }.without(&map).lines(0..PARTS)
            };
            let flat = blocks(0.0);
            assert!(flat.iter().all(|b| b.mean.abs() < 0.3), "{flat:?}");
            assert_eq!(step_offsets(&flat, 0, BLOCK_SIGNIFICANT), None);
            assert_eq!(
                step_offsets(&blocks(-4.0), 0, BLOCK_SIGNIFICANT).is_some(),
                are_columns,
                "a step between columns"
            );
        }
    }

    #[test]
    fn a_step_on_a_steep_sky_is_found() {
        let (width, height, noise) = (1024, 1024, 20.0);
        let mut pixels = crate::simulate::gaussian_frame(width, height, 17, noise);
        for (i, pixel) in pixels.iter_mut().enumerate() {
            // 0.08 of the noise from row to row, and a step of a third of it, half of which the map follows.
            *pixel += 5000.0 - 1.6 * (i / width) as f32 + if i % width < 460 { 6.0 } else { 0.0 };
        }
        let frame = crate::Frame::new(&pixels, width, height).unwrap();
        let config = crate::DetectorConfig { device: crate::Device::Cpu, ..crate::DetectorConfig::default() };
        let level = crate::Detector::new(config).unwrap().sky(&frame).unwrap().unwrap().level;
        for y in [200, 512, 900] {
            let step = level[y * width + 454] - level[y * width + 466];
            assert!((step - 6.0).abs() < 1.2, "row {y}: {step}");
        }
    }

    #[test]
    fn blocks_that_seem_to_have_steps_are_looked_at_on_all_pixels() {
        // Eight columns that are brighter in the middle half of each part, and darker in the rest of it, or bright from
        // end to end.
        let (width, height) = (128, 1024);
        let columns_looked_at = |is_even: bool| {
            let mut pixels = crate::simulate::gaussian_frame(width, height, 3, 10.0);
            for (i, value) in pixels.iter_mut().enumerate() {
                let (x, in_part) = (i % width, i / width % (height / PARTS));
                let is_bright = is_even || (MOST_PX / 2..MOST_PX * 3 / 2).contains(&in_part);
                let step = if is_bright { 5.0 } else { -5.0 };
                *value += 1000.0 + if (64..72).contains(&x) { step } else { 0.0 };
            }
            let frame = crate::Frame::new(pixels, width, height).unwrap();
            let mut backend = crate::backend::cpu::CpuBackend::default();
            backend.prepare(width, height).unwrap();
            backend.ingest(&frame).unwrap();
            let (lines, blocks) = leave_dark_borders(&mut backend, width, height).unwrap();
            let map =
                crate::pipeline::background::draw_map(&mut backend, Mesh::new(width, height, 64)).unwrap().unwrap();
            assert!(blocks[0].without(&map).have_steps(), "to 64 pixels of each part");
            with_steps(&mut backend, &map, &blocks, &lines).unwrap().map_or(0, |single| single.len())
        };
        assert_eq!(columns_looked_at(true), 1);
        assert_eq!(columns_looked_at(false), 0);
    }
}
