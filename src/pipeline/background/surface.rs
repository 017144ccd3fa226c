//! The sky level around every tile of a mesh, and its slope.
//!
//! Method: docs/algorithm.md, "Background".

use rayon::prelude::*;

use super::{Mesh, median_filter, neighbourhood};

/// The sky level as a quadratic surface around every tile, so far as it is one.
///
/// Each tile takes the least-squares surface through the largest neighbourhood (9 x 9 tiles, down to 3 x 3) that
/// such a surface describes within the tiles' errors, outliers left out. Where none does, or the tile differs from it
/// by more than half the noise (an edge of stray light, a dark border), the tile keeps its own value, or the median of
/// 3 x 3 if it is higher or lower than all around it. A plain 3 x 3 median would flatten every dome: 12 % of vignetting
/// over five tiles by a third of the noise. And a tile's mean is not the level at its centre where the sky is curved: the
/// surface knows the difference.
pub(super) struct Surface {
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
    pub(super) fn through(mesh: Mesh, level: &[f32], errors: &[f32], noise: &[f32]) -> Self {
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
    pub(super) fn value(&self, x: i64, y: i64) -> f32 {
        let nearest = self.mesh.nearest(x, y);
        let (dx, dy) = (x as f64 - (nearest % self.mesh.nx) as f64, y as f64 - (nearest / self.mesh.nx) as f64);
        let c = &self.tiles[nearest].surface;
        let at = c[0] + c[1] * dx + c[2] * dy + c[3] * dx * dx + c[4] * dx * dy + c[5] * dy * dy;
        (at - (c[3] + c[5]) / 12.0) as f32
    }

    /// Takes out of each tile's scatter what the slope of the sky across it has added: a twelfth of its square.
    pub(super) fn without_slope(&self, noise: &[f32]) -> Vec<f32> {
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
