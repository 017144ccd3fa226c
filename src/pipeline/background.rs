//! Background stage: tile statistics → a smooth map of sky level and noise.
//!
//! The tiles are measured on the device; what is done with their few numbers is here, once for both backends.
//! Method: docs/algorithm.md, "Background".

mod again;

use rayon::prelude::*;

pub(crate) use self::again::measure_again;
use crate::backend::{Backend, TileSource};
use crate::detection::FrameFlag;
use crate::{Error, Result};

/// How the sky and its noise are estimated.
#[derive(Debug, Clone, PartialEq)]
pub struct BackgroundConfig {
    /// Side of a mesh tile, px. 64 follows gradients and vignetting, yet a tile of 4096 pixels knows its level to
    /// a sixtieth of the noise, and a streak covers too little of it to lift it.
    pub mesh_px: usize,
}

impl Default for BackgroundConfig {
    fn default() -> Self {
        Self { mesh_px: 64 }
    }
}

impl BackgroundConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        if !(16..=512).contains(&self.mesh_px) {
            return Err(Error::Config(format!("background.mesh_px is {}, it must be from 16 to 512", self.mesh_px)));
        }
        Ok(())
    }
}

/// How a frame is divided into tiles of nearly equal size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mesh {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Tiles along a row.
    pub(crate) nx: usize,
    /// Tiles along a column.
    pub(crate) ny: usize,
    /// Of larger tiles only so many rows and columns, those in the middle, are looked at.
    pub(crate) most_px: usize,
    /// Of these rows the first and the last of every four are looked at alone.
    pub(crate) half_of_rows: bool,
}

impl Mesh {
    pub(crate) fn new(width: usize, height: usize, mesh_px: usize) -> Self {
        // Rounded, so that no thin tile of a few pixels is left at the far border.
        let tiles = |side: usize| ((side + mesh_px / 2) / mesh_px).max(1);
        Self { width, height, nx: tiles(width), ny: tiles(height), most_px: width.max(height), half_of_rows: false }
    }

    /// Half of the rows of the same tiles: those between them tell the same in a filtered image. As many of them are even as
    /// odd, so that nothing that changes from one row to the next makes a difference.
    pub(crate) fn with_half_of_rows(self) -> Self {
        Self { half_of_rows: true, ..self }
    }

    pub(crate) fn len(&self) -> usize {
        self.nx * self.ny
    }

    /// The tile nearest to a place on the mesh, itself perhaps beyond the border.
    fn nearest(&self, x: i64, y: i64) -> usize {
        let (x, y) = (x.clamp(0, self.nx as i64 - 1), y.clamp(0, self.ny as i64 - 1));
        y as usize * self.nx + x as usize
    }

    /// Pixels of a tile that are looked at.
    pub(crate) fn area(&self, i: usize) -> usize {
        self.columns(i % self.nx).len() * self.lines(i / self.nx).count()
    }

    /// Pixel range of a tile along x, as far as it is looked at: [first, past the last).
    pub(crate) fn columns(&self, ix: usize) -> std::ops::Range<usize> {
        self.middle(ix * self.width / self.nx..(ix + 1) * self.width / self.nx)
    }

    /// Pixel range of a tile along y.
    pub(crate) fn rows(&self, iy: usize) -> std::ops::Range<usize> {
        self.middle(iy * self.height / self.ny..(iy + 1) * self.height / self.ny)
    }

    /// The rows of these that are looked at.
    pub(crate) fn lines(&self, iy: usize) -> impl Iterator<Item = usize> {
        let (rows, half) = (self.rows(iy), self.half_of_rows);
        rows.clone().filter(move |y| !half || matches!((y - rows.start) % 4, 0 | 3))
    }

    fn middle(&self, side: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let n = side.len().min(self.most_px);
        let first = side.start + (side.len() - n) / 2;
        first..first + n
    }
}

/// Robust statistics of the usable pixels of one tile, clipped at three standard deviations around the median.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct TileStatistics {
    /// Usable pixels before clipping.
    pub(crate) n_usable: u32,
    /// Pixels left after clipping.
    pub(crate) n_clipped: u32,
    pub(crate) mean: f32,
    pub(crate) median: f32,
    /// Standard deviation of what is left; smaller than that of the unclipped noise, see [`CLIPPED_SD`].
    pub(crate) sd: f32,
}

/// Clipping stops after so many rounds; it has settled after three to six.
pub(crate) const MAX_CLIP_ROUNDS: usize = 10;

/// Pixels further than this many standard deviations from the median are clipped.
pub(crate) const CLIP_SIGMAS: f32 = 3.0;

/// Standard deviation of unit Gaussian noise after clipping at three of its own clipped standard deviations,
/// the fixed point of `s² = 1 − 2aφ(a)/(2Φ(a) − 1)`, `a = 3s`.
pub(crate) const CLIPPED_SD: f64 = 0.984_84;

/// A tile needs this fraction of its pixels to be believed.
const MIN_USABLE_FRACTION: f64 = 0.2;

/// The sky level and its noise over the frame, as cubic B-spline coefficients on the mesh.
///
/// Coefficients are `[ny + 4, nx + 4]`, row-major; the first two of each axis lie before the first tile.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BackgroundMap {
    pub(crate) mesh: Mesh,
    pub(crate) level: Vec<f32>,
    pub(crate) noise: Vec<f32>,
    /// The noise map is nowhere less than this.
    pub(crate) noise_floor: f32,
    /// Mean level over each tile.
    tile_level: Vec<f32>,
    /// Noise at the tiles' centres.
    tile_noise: Vec<f32>,
    /// Median noise over the tiles: the frame's typical background noise, in the frame's unit.
    pub(crate) typical_noise: f32,
}

impl BackgroundMap {
    /// Builds the map, or none where no tile has noise to measure.
    pub(crate) fn from_tiles(mesh: Mesh, tiles: &[TileStatistics]) -> Option<Self> {
        debug_assert!(!mesh.half_of_rows);
        let believed = believed_tiles(mesh, tiles);
        if !believed.contains(&true) {
            return None;
        }
        let pick = |f: &dyn Fn(&TileStatistics) -> f32| -> Vec<Option<f32>> {
            tiles.iter().zip(&believed).map(|(t, &b)| b.then(|| f(t))).collect()
        };
        let mean = fill_from_neighbours(mesh, pick(&|t| t.mean));
        let noise = fill_from_neighbours(mesh, pick(&unclipped_sd));
        let skew = fill_from_neighbours(mesh, pick(&|t| t.mean - t.median));
        let errors: Vec<f32> =
            (0..mesh.len()).map(|i| noise[i] / (tiles[i].n_clipped.max(MIN_TILE_PIXELS) as f32).sqrt()).collect();
        let level: Vec<f32> = (0..mesh.len()).map(|i| mean[i] - source_light(mesh, &skew, &errors, i)).collect();
        let surface = Surface::through(mesh, &level, &errors, &noise);
        let noise = surface.without_slope(&median_filter(mesh, &noise));
        Some(Self::of(mesh, &surface, noise))
    }

    fn of(mesh: Mesh, surface: &Surface, tile_noise: Vec<f32>) -> Self {
        let level = spline_coefficients(mesh, |x, y| surface.value(x, y));
        let mut sorted = tile_noise.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        Self {
            tile_level: tile_means(mesh, &level, mesh),
            level,
            noise: spline_coefficients(mesh, |x, y| tile_noise[mesh.nearest(x, y)]),
            noise_floor: 0.5 * sorted[0],
            typical_noise: sorted[sorted.len() / 2],
            tile_noise,
            mesh,
        }
    }

    /// Level and noise at every pixel, row-major.
    pub(crate) fn evaluate(&self) -> (Vec<f32>, Vec<f32>) {
        let stride = self.mesh.nx + 4;
        let columns: Vec<_> =
            (0..self.mesh.width).map(|x| Self::spline_weights(x, self.mesh.width, self.mesh.nx)).collect();
        let row = |y: usize, coefficients: &[f32]| -> Vec<f32> {
            let (iy, wy) = Self::spline_weights(y, self.mesh.height, self.mesh.ny);
            let at = |(ix, wx): &(usize, [f32; 4])| -> f32 {
                let line = |j: usize| -> f32 { (0..4).map(|i| wx[i] * coefficients[(iy + j) * stride + ix + i]).sum() };
                (0..4).map(|j| wy[j] * line(j)).sum()
            };
            columns.iter().map(at).collect()
        };
        let level = (0..self.mesh.height).flat_map(|y| row(y, &self.level)).collect();
        let noise = (0..self.mesh.height).flat_map(|y| row(y, &self.noise)).map(|n| n.max(self.noise_floor)).collect();
        (level, noise)
    }

    /// Mean level and mean noise over the pixels of each tile of another mesh of the frame.
    pub(crate) fn means_over(&self, tiles: Mesh) -> impl Iterator<Item = (f32, f32)> {
        let mean = |coefficients: &[f32]| tile_means(self.mesh, coefficients, tiles);
        mean(&self.level).into_iter().zip(mean(&self.noise))
    }

    /// Position of a pixel on one axis of the mesh: index of the first of four coefficients, and their weights.
    pub(crate) fn spline_weights(pixel: usize, side: usize, tiles: usize) -> (usize, [f32; 4]) {
        let u = (pixel as f32 + 0.5) * tiles as f32 / side as f32 - 0.5;
        let cell = u.floor();
        let t = u - cell;
        let s = 1.0 - t;
        let weights = [
            s * s * s / 6.0,
            (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0,
            (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0,
            t * t * t / 6.0,
        ];
        // Coefficient k of the mesh stands at k + 2, the first needed is that of cell − 1.
        ((cell as i64 + 1) as usize, weights)
    }
}

/// Draws the map of a frame as ingested, and normalises it; a flag says why where there is none.
pub(crate) fn draw_map(backend: &mut dyn Backend, mesh: Mesh) -> Result<std::result::Result<BackgroundMap, FrameFlag>> {
    let tiles = backend.tile_statistics(mesh, TileSource::Values)?;
    Ok(match BackgroundMap::from_tiles(mesh, &tiles) {
        Some(map) => {
            backend.normalise(&map)?;
            Ok(map)
        }
        None if tiles.iter().any(|t| t.n_usable > 0) => Err(FrameFlag::NoNoise),
        None => Err(FrameFlag::NoUsablePixels),
    })
}

/// Standard deviation of the noise, what clipping took off it made good.
pub(crate) fn unclipped_sd(tile: &TileStatistics) -> f32 {
    (f64::from(tile.sd) / CLIPPED_SD) as f32
}

fn believed_tiles(mesh: Mesh, tiles: &[TileStatistics]) -> Vec<bool> {
    debug_assert!(tiles.iter().enumerate().all(|(i, t)| t.n_usable as usize <= mesh.area(i)), "tiles of another mesh");
    let believed = |(i, t): (usize, &TileStatistics)| {
        f64::from(t.n_usable) >= MIN_USABLE_FRACTION * mesh.area(i) as f64 && t.n_clipped >= 2 && t.sd > 0.0
    };
    tiles.iter().enumerate().map(believed).collect()
}

/// Replaces missing tiles by the mean of their known neighbours, ring after ring.
fn fill_from_neighbours(mesh: Mesh, mut values: Vec<Option<f32>>) -> Vec<f32> {
    while values.contains(&None) {
        let filled = (0..mesh.len()).map(|i| {
            values[i].or_else(|| {
                let known: Vec<f32> = neighbourhood(mesh, i, 1).filter_map(|j| values[j]).collect();
                (!known.is_empty()).then(|| known.iter().sum::<f32>() / known.len() as f32)
            })
        });
        values = filled.collect();
    }
    values.into_iter().flatten().collect()
}

/// Indices of the tiles within `reach` tiles of tile `i`, itself included.
fn neighbourhood(mesh: Mesh, i: usize, reach: usize) -> impl Iterator<Item = usize> {
    let (ix, iy) = (i % mesh.nx, i / mesh.nx);
    let xs = ix.saturating_sub(reach)..(ix + reach + 1).min(mesh.nx);
    let ys = iy.saturating_sub(reach)..(iy + reach + 1).min(mesh.ny);
    ys.flat_map(move |y| xs.clone().map(move |x| y * mesh.nx + x))
}

/// Median of 3 x 3 tiles. Beyond the border the mesh goes on as a straight line, so that a gradient keeps its slope
/// in the outermost tiles.
fn median_filter(mesh: Mesh, values: &[f32]) -> Vec<f32> {
    let along_x = |ix: i64, iy: usize| {
        let row = &values[iy * mesh.nx..(iy + 1) * mesh.nx];
        continued(ix, mesh.nx, |i| row[i])
    };
    let at = |ix: i64, iy: i64| continued(iy, mesh.ny, |j| along_x(ix, j));
    let median_around = |i: usize| {
        let (ix, iy) = ((i % mesh.nx) as i64, (i / mesh.nx) as i64);
        let mut around: Vec<f32> = (iy - 1..=iy + 1).flat_map(|y| (ix - 1..=ix + 1).map(move |x| at(x, y))).collect();
        around.sort_unstable_by(f32::total_cmp);
        around[4]
    };
    (0..mesh.len()).map(median_around).collect()
}

/// Value `i` of a line of `n`, continued by one step as a straight line beyond its ends.
fn continued(i: i64, n: usize, value: impl Fn(usize) -> f32) -> f32 {
    let last = n as i64 - 1;
    let inside = i.clamp(0, last);
    let mirrored = (2 * inside - i).clamp(0, last);
    if i == inside { value(inside as usize) } else { 2.0 * value(inside as usize) - value(mirrored as usize) }
}

/// What unresolved sources add to a tile's mean: the median is used in its place.
///
/// The skew (mean − median) of one tile is mostly noise: its median over 7 x 7 tiles counts, and only where it is
/// significant. An empty sky then keeps the precision of the mean.
fn source_light(mesh: Mesh, skew: &[f32], errors: &[f32], i: usize) -> f32 {
    let mut around: Vec<f32> = neighbourhood(mesh, i, 3).map(|j| skew[j]).collect();
    let middle = around.len() / 2;
    let median = *around.select_nth_unstable_by(middle, f32::total_cmp).1;
    // A median has 1.25 times the error of a mean, a tile's mean − median 0.76 times that of its mean.
    let error = 1.25 * 0.76 * errors[i] / (around.len() as f32).sqrt();
    if median < 3.0 * error { 0.0 } else { median }
}

/// A tile with fewer pixels is believed no better than this many would be.
const MIN_TILE_PIXELS: u32 = 16;

/// The sky level as a quadratic surface around every tile, so far as it is one.
///
/// Each tile takes the least-squares surface through the largest neighbourhood (9 x 9 tiles, down to 3 x 3) that
/// such a surface describes within the tiles' errors, outliers left out. Where none does, or the tile differs from it
/// by more than half the noise (an edge of stray light, a dark border), the tile keeps its own value, or the median of 3 x 3 if it is higher or lower than all around it. A
/// plain 3 x 3 median would flatten every dome: 12 % of vignetting over five tiles by a third of the noise. And a
/// tile's mean is not the level at its centre where the sky is curved: the surface knows the difference.
struct Surface {
    mesh: Mesh,
    tiles: Vec<Patch>,
}

/// The sky around one tile.
#[derive(Debug, Clone, Copy)]
struct Patch {
    surface: Quadratic,
    /// Of the sky across the tile, along x and y.
    slope: (f64, f64),
}

/// `c[0] + c[1] x + c[2] y + c[3] x² + c[4] xy + c[5] y²`, in tiles from the tile's centre.
type Quadratic = [f64; 6];

impl Surface {
    fn through(mesh: Mesh, level: &[f32], errors: &[f32], noise: &[f32]) -> Self {
        let median = median_filter(mesh, level);
        let settle = |window: &mut Window, i: usize| {
            let fit = |reach| Some((reach, robust_quadratic(mesh, level, errors, i, reach, window)?));
            let smooth = [4, 3, 2, 1].into_iter().find_map(fit);
            let own = f64::from(level[i]);
            let around = || neighbourhood(mesh, i, 1).filter(|&j| j != i).map(|j| level[j]);
            let extreme = around().all(|v| level[i] > v) || around().all(|v| level[i] < v);
            // Three tiles in a row do not tell a step from a surface.
            let tells_slope = |reach: usize| reach > 1 && mesh.nx.min(mesh.ny) > 4;
            match smooth {
                // What light a clipped tile can hold back from its neighbours' surface is a source's, not the sky's.
                Some((reach, surface)) if extreme || (own - surface[0]).abs() <= 0.5 * f64::from(noise[i]) => {
                    let slope =
                        if tells_slope(reach) { (surface[1], surface[2]) } else { lasting_slope(mesh, level, i) };
                    Patch { surface, slope }
                }
                _ => {
                    let value = if extreme { f64::from(median[i]) } else { own };
                    Patch { surface: local_plane(mesh, level, i, value), slope: lasting_slope(mesh, level, i) }
                }
            }
        };
        Self { mesh, tiles: (0..mesh.len()).into_par_iter().map_init(Window::default, settle).collect() }
    }

    /// Level at the centre of a tile, or of one beyond the border; what curvature adds to a tile's mean (a
    /// twelfth of the second derivatives' halves) is taken out.
    fn value(&self, x: i64, y: i64) -> f32 {
        let nearest = self.mesh.nearest(x, y);
        let (dx, dy) = (x as f64 - (nearest % self.mesh.nx) as f64, y as f64 - (nearest / self.mesh.nx) as f64);
        let c = &self.tiles[nearest].surface;
        let at = c[0] + c[1] * dx + c[2] * dy + c[3] * dx * dx + c[4] * dx * dy + c[5] * dy * dy;
        (at - (c[3] + c[5]) / 12.0) as f32
    }

    /// Takes out of each tile's scatter what the slope of the sky across it has added: a twelfth of its square.
    fn without_slope(&self, noise: &[f32]) -> Vec<f32> {
        let corrected = noise.iter().zip(&self.tiles).map(|(n, Patch { slope: (x, y), .. })| {
            let variance = f64::from(*n).powi(2);
            (variance - (x * x + y * y) / 12.0).max(0.5 * variance).sqrt() as f32
        });
        corrected.collect()
    }
}

/// A surface must describe this fraction of its tiles, the rest being outliers.
const MIN_DESCRIBED: f64 = 0.75;

/// How often outliers are looked for.
const OUTLIER_ROUNDS: usize = 4;

/// A tile further from the surface than this many of its errors is no part of it.
const OUTLIER: f64 = 4.0;

/// Memory of one thread for the surfaces, kept from tile to tile.
#[derive(Debug, Default)]
struct Window {
    points: Vec<Point>,
    /// From the surface, in units of their errors.
    deviations: Vec<f64>,
    sorted: Vec<f64>,
}

/// A tile as seen from another one: how far it lies, in tiles, and how much higher.
#[derive(Debug, Clone, Copy)]
struct Point {
    offset: (f64, f64),
    level: f64,
    error: f64,
    is_kept: bool,
}

impl Point {
    /// How far it is from a surface, in its errors.
    fn deviation(&self, surface: &Quadratic) -> f64 {
        (self.level - evaluate(surface, self.offset)) / self.error
    }
}

/// Least-squares quadratic around tile `i` through the window of `2·reach + 1` tiles a side that lies inside the mesh;
/// none where it does not describe the tiles.
fn robust_quadratic(
    mesh: Mesh,
    level: &[f32],
    errors: &[f32],
    i: usize,
    reach: usize,
    scratch: &mut Window,
) -> Option<Quadratic> {
    let Window { points, deviations, sorted } = scratch;
    let (ix, iy) = (i % mesh.nx, i / mesh.nx);
    // At the border the window moves inwards rather than losing tiles.
    let window = |at: usize, n: usize| {
        let side = (2 * reach + 1).min(n);
        let first = at.saturating_sub(reach).min(n - side);
        first..first + side
    };
    let (xs, ys) = (window(ix, mesh.nx), window(iy, mesh.ny));
    points.clear();
    for y in ys {
        points.extend(xs.clone().map(|x| Point {
            offset: (x as f64 - ix as f64, y as f64 - iy as f64),
            level: f64::from(level[y * mesh.nx + x] - level[i]),
            error: f64::from(errors[y * mesh.nx + x]),
            is_kept: true,
        }));
    }
    let (mut surface, mut changed) = ([0.0; 6], true);
    for round in 1..=OUTLIER_ROUNDS {
        if changed {
            surface = fit_quadratic(points)?;
            deviations.clear();
            deviations.extend(points.iter().map(|p| p.deviation(&surface).abs()));
        } else if round < OUTLIER_ROUNDS {
            continue;
        }
        // An outlier bends the first surfaces: until it is out, the tiles' own scatter sets the limit.
        let limit = if round < OUTLIER_ROUNDS && deviations.iter().any(|d| *d >= OUTLIER) {
            sorted.clone_from(deviations);
            let middle = sorted.len() / 2;
            (3.0 * 1.4826 * *sorted.select_nth_unstable_by(middle, f64::total_cmp).1).max(OUTLIER)
        } else {
            OUTLIER
        };
        changed = false;
        for (point, deviation) in points.iter_mut().zip(&*deviations) {
            changed |= point.is_kept != (*deviation < limit);
            point.is_kept = *deviation < limit;
        }
        if (points.iter().filter(|p| p.is_kept).count() as f64) < MIN_DESCRIBED * points.len() as f64 {
            return None;
        }
    }
    let kept = || points.iter().filter(|p| p.is_kept);
    let chi2: f64 = kept().map(|p| p.deviation(&surface).powi(2)).sum();
    let freedom = kept().count() as f64 - 6.0;
    surface[0] += f64::from(level[i]);
    // Half as much again as chance gives, with room for what chance does to few tiles.
    (freedom >= 3.0 && chi2 < freedom * 1.5 + 3.0 * (2.0 * freedom).sqrt()).then_some(surface)
}

fn evaluate(c: &Quadratic, (x, y): (f64, f64)) -> f64 {
    c[0] + c[1] * x + c[2] * y + c[3] * x * x + c[4] * x * y + c[5] * y * y
}

/// The powers of x and y in the terms of a [`Quadratic`].
const TERMS: [(usize, usize); 6] = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)];

/// Least squares through the points that are kept, by Gauss-Jordan elimination; none where they do not fix all six terms.
fn fit_quadratic(points: &[Point]) -> Option<Quadratic> {
    // Sums of xᵃyᵇ and of level·xᵃyᵇ: along each row of points first, where y is the same.
    let (mut moments, mut levels) = ([[0.0; 5]; 5], [[0.0; 3]; 3]);
    for row in points.chunk_by(|a, b| a.offset.1 == b.offset.1) {
        let (mut of_row, mut level_of_row) = ([0.0; 5], [0.0; 3]);
        for Point { offset: (x, _), level, is_kept, .. } in row {
            let mut power = f64::from(u8::from(*is_kept));
            for (a, moment) in of_row.iter_mut().enumerate() {
                *moment += power;
                if let Some(sum) = level_of_row.get_mut(a) {
                    *sum += level * power;
                }
                power *= x;
            }
        }
        let mut power = 1.0;
        for b in 0..5 {
            (0..5).for_each(|a| moments[a][b] += of_row[a] * power);
            (0..3).filter(|_| b < 3).for_each(|a| levels[a][b] += level_of_row[a] * power);
            power *= row[0].offset.1;
        }
    }
    let mut normal: [[f64; 7]; 6] =
        TERMS.map(|(a, b)| std::array::from_fn(|k| TERMS.get(k).map_or(levels[a][b], |(c, d)| moments[a + c][b + d])));
    for k in 0..6 {
        let best = (k..6).max_by(|&a, &b| normal[a][k].abs().total_cmp(&normal[b][k].abs()))?;
        normal.swap(k, best);
        let pivot_row = normal[k];
        if pivot_row[k].abs() < 1e-9 {
            return None;
        }
        for (row, cells) in normal.iter_mut().enumerate().filter(|(row, _)| *row != k) {
            let factor = cells[k] / pivot_row[k];
            debug_assert_ne!(row, k);
            cells.iter_mut().zip(pivot_row).for_each(|(cell, p)| *cell -= factor * p);
        }
    }
    Some(std::array::from_fn(|k| normal[k][6] / normal[k][k]))
}

/// A tile's own level, with the slope of its neighbours.
fn local_plane(mesh: Mesh, level: &[f32], i: usize, value: f64) -> Quadratic {
    let (ix, iy) = (i % mesh.nx, i / mesh.nx);
    let half_step = |low: usize, high: usize, span: usize| {
        if span == 0 { 0.0 } else { f64::from(level[high] - level[low]) / span as f64 }
    };
    let (left, right) = (ix.saturating_sub(1), (ix + 1).min(mesh.nx - 1));
    let (up, down) = (iy.saturating_sub(1), (iy + 1).min(mesh.ny - 1));
    let slope_x = half_step(iy * mesh.nx + left, iy * mesh.nx + right, right - left);
    let slope_y = half_step(up * mesh.nx + ix, down * mesh.nx + ix, down - up);
    [value, slope_x, slope_y, 0.0, 0.0, 0.0]
}

/// The slope that a tile has to both of its neighbours along each axis, the lesser of the two: beside a step the other is that
/// of the step.
fn lasting_slope(mesh: Mesh, level: &[f32], i: usize) -> (f64, f64) {
    let along = |at: usize, n: usize, stride: usize| {
        let difference = |i: usize| f64::from(level[i + stride] - level[i]);
        let before = (at > 0).then(|| difference(i - stride));
        let after = (at + 1 < n).then(|| difference(i));
        match (before, after) {
            (Some(a), Some(b)) if a * b <= 0.0 => 0.0,
            (Some(a), Some(b)) => a.signum() * a.abs().min(b.abs()),
            (a, b) => a.or(b).unwrap_or(0.0),
        }
    };
    (along(i % mesh.nx, mesh.nx, 1), along(i / mesh.nx, mesh.ny, mesh.nx))
}

/// Cubic B-spline through the values at the tiles' centres, two more on either side.
fn spline_coefficients(mesh: Mesh, value: impl Fn(i64, i64) -> f32) -> Vec<f32> {
    let (wide, tall) = (mesh.nx + 4, mesh.ny + 4);
    let rows: Vec<Vec<f64>> = (0..tall)
        .map(|iy| {
            let row: Vec<f64> = (0..wide).map(|ix| f64::from(value(ix as i64 - 2, iy as i64 - 2))).collect();
            spline_line(&row)
        })
        .collect();
    let mut coefficients = vec![0.0; wide * tall];
    for ix in 0..wide {
        let column: Vec<f64> = rows.iter().map(|row| row[ix]).collect();
        for (iy, c) in spline_line(&column).into_iter().enumerate() {
            coefficients[iy * wide + ix] = c as f32;
        }
    }
    coefficients
}

/// Mean of a mesh's spline over the pixels of some tiles, which may be those of another mesh.
fn tile_means(mesh: Mesh, coefficients: &[f32], tiles: Mesh) -> Vec<f32> {
    // The first coefficient along an axis that some pixels meet, and the share of it and of the next ones in their mean.
    let shares = |pixels: std::ops::Range<usize>, side: usize, n: usize| {
        let weights = |pixel: usize| BackgroundMap::spline_weights(pixel, side, n);
        let (first, last) = (weights(pixels.start).0, weights(pixels.end - 1).0 + 3);
        let mut shares = vec![0.0_f32; last - first + 1];
        for pixel in pixels.clone() {
            let (at, weights) = weights(pixel);
            shares[at - first..].iter_mut().zip(weights).for_each(|(s, w)| *s += w / pixels.len() as f32);
        }
        (first, shares)
    };
    let across: Vec<_> = (0..tiles.nx).map(|ix| shares(tiles.columns(ix), mesh.width, mesh.nx)).collect();
    let down: Vec<_> = (0..tiles.ny).map(|iy| shares(tiles.rows(iy), mesh.height, mesh.ny)).collect();
    let mean = |i: usize| {
        let ((x, across), (y, down)) = (&across[i % tiles.nx], &down[i / tiles.nx]);
        let line = |j: usize| -> f32 {
            let at = (y + j) * (mesh.nx + 4) + x;
            across.iter().zip(&coefficients[at..]).map(|(w, c)| w * c).sum()
        };
        down.iter().enumerate().map(|(j, w)| w * line(j)).sum()
    };
    (0..tiles.len()).map(mean).collect()
}

/// Coefficients of the natural spline through `f`.
///
/// With no curvature at the ends the outer coefficients are the outer values; the inner ones solve
/// `(c[i−1] + 4 c[i] + c[i+1]) / 6 = f[i]` (Thomas algorithm). The ends lie beyond the frame, where it matters little.
fn spline_line(f: &[f64]) -> Vec<f64> {
    let n = f.len();
    let mut c = f.to_vec();
    let mut ratio = vec![0.0; n];
    for i in 1..n - 1 {
        let denominator = 4.0 - ratio[i - 1];
        ratio[i] = 1.0 / denominator;
        c[i] = (6.0 * f[i] - c[i - 1]) / denominator;
    }
    for i in (1..n - 1).rev() {
        c[i] -= ratio[i] * c[i + 1];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(map: &BackgroundMap, x: usize, y: usize) -> f32 {
        map.evaluate().0[y * map.mesh.width + x]
    }

    pub(super) fn tile(mean: f32) -> TileStatistics {
        TileStatistics { n_usable: 4096, n_clipped: 4090, mean, median: mean, sd: 2.0 }
    }

    #[test]
    fn tiles_cover_the_frame_once() {
        for (w, h) in [(1, 1), (63, 65), (500, 97), (1078, 715)] {
            let mesh = Mesh::new(w, h, 64);
            let area: usize =
                (0..mesh.len()).map(|i| mesh.columns(i % mesh.nx).len() * mesh.rows(i / mesh.nx).len()).sum();
            assert_eq!(area, w * h);
        }
    }

    #[test]
    fn a_plane_is_kept_to_the_border() {
        let mesh = Mesh::new(640, 384, 64);
        let tiles: Vec<_> =
            (0..mesh.len()).map(|i| tile(100.0 + (i % mesh.nx) as f32 * 3.0 - (i / mesh.nx) as f32 * 2.0)).collect();
        let map = BackgroundMap::from_tiles(mesh, &tiles).unwrap();
        for (x, y) in [(320, 192), (5, 200), (630, 20)] {
            let truth = 100.0 + ((x as f32 + 0.5) / 64.0 - 0.5) * 3.0 - ((y as f32 + 0.5) / 64.0 - 0.5) * 2.0;
            assert!((evaluate(&map, x, y) - truth).abs() < 1e-3, "{x} {y}");
        }
    }

    #[test]
    fn a_dome_keeps_its_height_and_loses_its_spike() {
        let mesh = Mesh::new(640, 640, 64);
        let (centre, curvature) = (320.0, 2.0 / 4096.0);
        let dome = |x: f64, y: f64| 1000.0 - curvature * ((x - centre).powi(2) + (y - centre).powi(2));
        let tiles: Vec<TileStatistics> = (0..100)
            .map(|i| {
                let (x, y) = (f64::from(i % 10) * 64.0 + 32.0, f64::from(i / 10) * 64.0 + 32.0);
                // The mean of a curved tile lies below the level at its centre.
                let mean = dome(x, y) - curvature * 2.0 * 4096.0 / 12.0;
                tile(mean as f32 + if i == 34 { 40.0 } else { 0.0 })
            })
            .collect();
        let map = BackgroundMap::from_tiles(mesh, &tiles).unwrap();
        for (x, y) in [(320, 320), (0, 0), (639, 300), (280, 220), (100, 500)] {
            let truth = dome(x as f64 + 0.5, y as f64 + 0.5) as f32;
            // A tile knows its mean to 0.03.
            assert!((evaluate(&map, x, y) - truth).abs() < 0.12, "{x} {y}: {} {truth}", evaluate(&map, x, y));
        }
    }

    #[test]
    fn tiles_cover_the_frame_or_their_middles_are_looked_at() {
        let whole = Mesh::new(300, 130, 64);
        assert_eq!((whole.nx, whole.ny), (5, 2));
        assert_eq!((whole.columns(4), whole.rows(1)), (240..300, 65..130));
        let some = Mesh { most_px: 15, ..whole };
        assert_eq!((some.columns(4), some.rows(1)), (262..277, 90..105));
    }

    #[test]
    fn an_edge_stays_an_edge() {
        let mesh = Mesh::new(640, 640, 64);
        let tiles: Vec<TileStatistics> = (0..100).map(|i| tile(if i % 10 < 4 { 100.0 } else { 150.0 })).collect();
        let map = BackgroundMap::from_tiles(mesh, &tiles).unwrap();
        assert!((evaluate(&map, 32, 300) - 100.0).abs() < 0.5);
        assert!((evaluate(&map, 600, 300) - 150.0).abs() < 0.5);
    }

    #[test]
    fn the_spline_goes_through_the_values() {
        let c = spline_line(&[1.0, 5.0, -2.0, 7.0, 7.5]);
        for (i, f) in [1.0, 5.0, -2.0, 7.0, 7.5].into_iter().enumerate() {
            if (1..4).contains(&i) {
                assert!(((c[i - 1] + 4.0 * c[i] + c[i + 1]) / 6.0 - f).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn tile_means_are_those_of_the_map() {
        let mesh = Mesh::new(200, 330, 64);
        let tiles: Vec<_> = (0..mesh.len()).map(|i| tile(100.0 + ((i * 37) % 11) as f32)).collect();
        let map = BackgroundMap::from_tiles(mesh, &tiles).unwrap();
        let (level, noise) = map.evaluate();
        let other = Mesh { nx: 25, ny: 2, most_px: 70, ..mesh };
        let (of_other, noise_of_other): (Vec<f32>, Vec<f32>) = map.means_over(other).unzip();
        for (level, mesh, means) in
            [(&level, mesh, &map.tile_level), (&level, other, &of_other), (&noise, other, &noise_of_other)]
        {
            for (i, mean) in means.iter().enumerate() {
                let (xs, ys) = (mesh.columns(i % mesh.nx), mesh.rows(i / mesh.nx));
                let row = |y: usize| -> f64 { level[y * 200..][xs.clone()].iter().map(|v| f64::from(*v)).sum() };
                let sum: f64 = ys.map(row).sum();
                assert!((sum / mesh.area(i) as f64 - f64::from(*mean)).abs() < 1e-3, "{mesh:?} {i}");
            }
        }
    }

    #[test]
    fn holes_are_filled_and_an_empty_mesh_is_refused() {
        let mesh = Mesh::new(192, 192, 64);
        let mut tiles = vec![TileStatistics::default(); 9];
        assert_eq!(BackgroundMap::from_tiles(mesh, &tiles), None);
        tiles[0] = tile(10.0);
        let map = BackgroundMap::from_tiles(mesh, &tiles).unwrap();
        assert!((evaluate(&map, 190, 190) - 10.0).abs() < 1e-4);
        assert!((map.typical_noise - 2.0 / 0.984_84).abs() < 1e-4);
    }
}
