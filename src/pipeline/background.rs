//! Background stage: tile statistics → a smooth map of sky level and noise.
//!
//! The tiles are measured on the device; what is done with their few numbers is here, once for both backends.
//! Method: docs/algorithm.md, "Background".

mod again;
mod surface;

pub(crate) use self::again::measure_again;
use self::surface::Surface;
use crate::backend::{Backend, TileSource};
use crate::report::FrameFlag;
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

    /// Level and noise at one pixel.
    pub(crate) fn at(&self, x: usize, y: usize) -> (f32, f32) {
        let stride = self.mesh.nx + 4;
        let (ix, wx) = Self::spline_weights(x, self.mesh.width, self.mesh.nx);
        let (iy, wy) = Self::spline_weights(y, self.mesh.height, self.mesh.ny);
        let value = |coefficients: &[f32]| -> f32 {
            let cells = (0..16).map(|k| (k / 4, k % 4));
            cells.map(|(j, i)| wy[j] * wx[i] * coefficients[(iy + j) * stride + ix + i]).sum()
        };
        (value(&self.level), value(&self.noise).max(self.noise_floor))
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
