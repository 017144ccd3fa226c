//! Background stage: tile statistics → a smooth map of sky level and noise.
//!
//! The tiles are measured on the device; what is done with their few numbers is here, once for both backends.
//! Method: docs/algorithm.md, "Background".

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
}

impl Mesh {
    pub(crate) fn new(width: usize, height: usize, mesh_px: usize) -> Self {
        // Rounded, so that no thin tile of a few pixels is left at the far border.
        let tiles = |side: usize| ((side + mesh_px / 2) / mesh_px).max(1);
        Self { width, height, nx: tiles(width), ny: tiles(height) }
    }

    pub(crate) fn len(&self) -> usize {
        self.nx * self.ny
    }

    /// Pixel range of a tile along x: [first, past the last).
    pub(crate) fn columns(&self, ix: usize) -> std::ops::Range<usize> {
        ix * self.width / self.nx..(ix + 1) * self.width / self.nx
    }

    /// Pixel range of a tile along y.
    pub(crate) fn rows(&self, iy: usize) -> std::ops::Range<usize> {
        iy * self.height / self.ny..(iy + 1) * self.height / self.ny
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
    /// Median noise over the tiles: the frame's typical background noise, in the frame's unit.
    pub(crate) typical_noise: f32,
}

impl BackgroundMap {
    /// Builds the map, or none where no tile has noise to measure.
    pub(crate) fn from_tiles(mesh: Mesh, tiles: &[TileStatistics]) -> Option<Self> {
        let believed: Vec<bool> = (0..mesh.len())
            .map(|i| {
                let area = mesh.columns(i % mesh.nx).len() * mesh.rows(i / mesh.nx).len();
                let enough = f64::from(tiles[i].n_usable) >= MIN_USABLE_FRACTION * area as f64;
                enough && tiles[i].n_clipped >= 2 && tiles[i].sd > 0.0
            })
            .collect();
        if !believed.contains(&true) {
            return None;
        }
        let pick = |f: &dyn Fn(&TileStatistics) -> f32| -> Vec<Option<f32>> {
            tiles.iter().zip(&believed).map(|(t, &b)| b.then(|| f(t))).collect()
        };
        let mean = fill_from_neighbours(mesh, pick(&|t| t.mean));
        let noise = fill_from_neighbours(mesh, pick(&|t| (f64::from(t.sd) / CLIPPED_SD) as f32));
        // mode = 2.5 median − 1.5 mean = mean − 2.5 (mean − median). The skew of a tile is mostly noise, that of a
        // neighbourhood tells of unresolved stars: smoothed first, the mode costs no precision on an empty sky.
        let skew = smooth(mesh, &fill_from_neighbours(mesh, pick(&|t| t.mean - t.median)));
        let noise = median_filter(mesh, &noise);
        let level: Vec<f32> = (0..mesh.len())
            .map(|i| if skew[i] < CROWDED_SKEW * noise[i] { mean[i] - 2.5 * skew[i] } else { mean[i] - skew[i] })
            .collect();
        let level = median_filter(mesh, &level);
        let mut sorted = noise.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        Some(Self {
            level: spline_coefficients(mesh, &level),
            noise: spline_coefficients(mesh, &noise),
            noise_floor: 0.5 * sorted[0],
            typical_noise: sorted[sorted.len() / 2],
            mesh,
        })
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

/// Above this skew (mean − median, in units of the noise) the mode overshoots: the median is used.
const CROWDED_SKEW: f32 = 0.3;

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

/// Mean over 7 x 7 tiles.
fn smooth(mesh: Mesh, values: &[f32]) -> Vec<f32> {
    let mean_around = |i| {
        let (sum, n) = neighbourhood(mesh, i, 3).fold((0.0, 0.0), |(s, n), j| (s + values[j], n + 1.0));
        sum / n
    };
    (0..mesh.len()).map(mean_around).collect()
}

/// Natural cubic B-spline through the tile values, continued as straight lines beyond the outer tiles.
fn spline_coefficients(mesh: Mesh, values: &[f32]) -> Vec<f32> {
    let (wide, tall) = (mesh.nx + 4, mesh.ny + 4);
    let rows: Vec<Vec<f64>> = (0..mesh.ny)
        .map(|iy| {
            let row: Vec<f64> = values[iy * mesh.nx..(iy + 1) * mesh.nx].iter().map(|&v| f64::from(v)).collect();
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

/// Coefficients of the natural spline through `f`, two more on either side.
///
/// With no curvature at the ends the outer coefficients are the outer values; the inner ones solve
/// `(c[i−1] + 4 c[i] + c[i+1]) / 6 = f[i]` (Thomas algorithm).
fn spline_line(f: &[f64]) -> Vec<f64> {
    let n = f.len();
    let mut c = f.to_vec();
    if n > 2 {
        let mut ratio = vec![0.0; n];
        for i in 1..n - 1 {
            let denominator = 4.0 - ratio[i - 1];
            ratio[i] = 1.0 / denominator;
            c[i] = (6.0 * f[i] - c[i - 1]) / denominator;
        }
        for i in (1..n - 1).rev() {
            c[i] -= ratio[i] * c[i + 1];
        }
    }
    let (first_step, last_step) = if n > 1 { (c[1] - c[0], c[n - 1] - c[n - 2]) } else { (0.0, 0.0) };
    let mut out = vec![c[0] - 2.0 * first_step, c[0] - first_step];
    out.extend_from_slice(&c);
    out.extend([c[n - 1] + last_step, c[n - 1] + 2.0 * last_step]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(map: &BackgroundMap, x: usize, y: usize) -> f32 {
        let (ix, wx) = BackgroundMap::spline_weights(x, map.mesh.width, map.mesh.nx);
        let (iy, wy) = BackgroundMap::spline_weights(y, map.mesh.height, map.mesh.ny);
        let stride = map.mesh.nx + 4;
        (0..4)
            .flat_map(|j| (0..4).map(move |i| (i, j)))
            .map(|(i, j)| wx[i] * wy[j] * map.level[(iy + j) * stride + ix + i])
            .sum()
    }

    fn tile(mean: f32) -> TileStatistics {
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
    fn the_spline_goes_through_the_values() {
        let c = spline_line(&[1.0, 5.0, -2.0, 7.0, 7.5]);
        for (i, f) in [1.0, 5.0, -2.0, 7.0, 7.5].into_iter().enumerate() {
            assert!(((c[i + 1] + 4.0 * c[i + 2] + c[i + 3]) / 6.0 - f).abs() < 1e-12);
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
