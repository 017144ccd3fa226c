//! Background: statistics of tiles, and the map evaluated at every pixel. GPU twins: shaders/background.wgsl,
//! shaders/normalise.wgsl.

use rayon::prelude::*;

use crate::pipeline::background::{BackgroundMap, CLIP_SIGMAS, MAX_CLIP_ROUNDS, Mesh, TileStatistics};

/// Robust statistics of the usable pixels (weight > 0) of every tile.
pub(super) fn tile_statistics(values: &[f32], weights: &[f32], mesh: Mesh) -> Vec<TileStatistics> {
    (0..mesh.len())
        .into_par_iter()
        .map_init(Vec::new, |usable, i| {
            usable.clear();
            for y in mesh.rows(i / mesh.nx) {
                let columns = mesh.columns(i % mesh.nx);
                let row = y * mesh.width;
                let pixels = values[row + columns.start..row + columns.end].iter();
                let weights = &weights[row + columns.start..row + columns.end];
                usable.extend(pixels.zip(weights).filter(|(_, w)| **w > 0.0).map(|(v, _)| *v));
            }
            clipped_statistics(usable)
        })
        .collect()
}

/// Clips at ±3 standard deviations around the median until nothing more is clipped.
fn clipped_statistics(values: &mut [f32]) -> TileStatistics {
    if values.is_empty() {
        return TileStatistics::default();
    }
    values.sort_unstable_by(f32::total_cmp);
    // Sums relative to the first median keep single precision exact on integer frames.
    let pivot = values[(values.len() - 1) / 2];
    let (mut low, mut high) = first_clip(values);
    let mut statistics = TileStatistics::default();
    for _ in 0..MAX_CLIP_ROUNDS {
        let kept = &values[values.partition_point(|v| *v < low)..values.partition_point(|v| *v <= high)];
        if kept.is_empty() {
            break;
        }
        let n = kept.len() as f64;
        let (sum, squares) = kept.iter().fold((0.0_f64, 0.0_f64), |(s, q), v| {
            let d = f64::from(v - pivot);
            (s + d, q + d * d)
        });
        let mean = sum / n;
        let sd = (squares / n - mean * mean).max(0.0).sqrt();
        let settled = statistics.n_clipped == kept.len() as u32;
        statistics = TileStatistics {
            n_usable: values.len() as u32,
            n_clipped: kept.len() as u32,
            mean: (f64::from(pivot) + mean) as f32,
            median: grouped_median(kept),
            sd: sd as f32,
        };
        if settled {
            break;
        }
        low = statistics.median - CLIP_SIGMAS * statistics.sd;
        high = statistics.median + CLIP_SIGMAS * statistics.sd;
    }
    statistics
}

/// First limits: four times the lower half-width, which stars leave alone. Where more than a third of the pixels are
/// equal that width is zero, and nothing is clipped at first.
fn first_clip(sorted: &[f32]) -> (f32, f32) {
    let n = sorted.len();
    let median = sorted[(n - 1) / 2];
    let lower = median - sorted[((n - 1) as f64 * LOWER_QUANTILE) as usize];
    if lower > 0.0 { (median - 4.0 * lower, median + 4.0 * lower) } else { (f32::NEG_INFINITY, f32::INFINITY) }
}

/// Φ(−1): one standard deviation below the median.
const LOWER_QUANTILE: f64 = 0.158_655;

/// Median of grouped data: among equal values, the fraction of the group that lies below the middle counts, so that
/// the median of integers is not bound to integers.
fn grouped_median(sorted: &[f32]) -> f32 {
    let n = sorted.len();
    let middle = sorted[(n - 1) / 2];
    let below = sorted.partition_point(|v| *v < middle);
    let not_above = sorted.partition_point(|v| *v <= middle);
    if not_above - below == 1 {
        return 0.5 * (middle + sorted[n / 2]);
    }
    // The group's width is the distance to its neighbours' midpoints.
    let previous = if below > 0 { sorted[below - 1] } else { middle };
    let next = if not_above < n { sorted[not_above] } else { middle };
    let (low, high) = (0.5 * (previous + middle), 0.5 * (middle + next));
    let fraction = (0.5 * n as f32 - below as f32) / (not_above - below) as f32;
    low + fraction * (high - low)
}

/// Value − sky level, and weights to inverse variances; a saturated pixel keeps its negative sign.
pub(super) fn normalise(values: &mut [f32], weights: &mut [f32], map: &BackgroundMap) {
    let mesh = map.mesh;
    let stride = mesh.nx + 4;
    let columns: Vec<(usize, [f32; 4])> =
        (0..mesh.width).map(|x| BackgroundMap::spline_weights(x, mesh.width, mesh.nx)).collect();
    values.par_chunks_mut(mesh.width).zip(weights.par_chunks_mut(mesh.width)).enumerate().for_each(
        |(y, (values, weights))| {
            let (iy, wy) = BackgroundMap::spline_weights(y, mesh.height, mesh.ny);
            let blend = |coefficients: &[f32]| -> Vec<f32> {
                (0..stride).map(|i| (0..4).map(|j| wy[j] * coefficients[(iy + j) * stride + i]).sum()).collect()
            };
            let (level, noise) = (blend(&map.level), blend(&map.noise));
            for ((v, w), (ix, wx)) in values.iter_mut().zip(weights).zip(&columns) {
                let along = |line: &[f32]| -> f32 { (0..4).map(|i| wx[i] * line[ix + i]).sum() };
                *v -= along(&level);
                let sd = along(&noise).max(map.noise_floor);
                *w = w.signum() * f32::from(*w != 0.0) / (sd * sd);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_leaves_stars_out() {
        // A triangle-shaped sky of 2001 values around 100, and 150 bright pixels.
        let mut values: Vec<f32> = (0..2001).map(|i| 100.0 + ((i * 37 % 2001) as f32 - 1000.0) / 250.0).collect();
        values.extend(std::iter::repeat_n(500.0, 150));
        let s = clipped_statistics(&mut values);
        assert_eq!((s.n_usable, s.n_clipped), (2151, 2001));
        assert!((s.median - 100.0).abs() < 0.01 && (s.mean - 100.0).abs() < 0.01);
    }

    #[test]
    fn the_median_of_integers_is_not_an_integer() {
        // 30 % at 4, 50 % at 5, 20 % at 6: the middle lies 40 % into the group of fives.
        let mut values = Vec::new();
        for (v, n) in [(4.0, 300), (5.0, 500), (6.0, 200)] {
            values.extend(std::iter::repeat_n(v, n));
        }
        assert!((grouped_median(&values) - 4.9).abs() < 1e-6);
    }

    #[test]
    fn empty_and_constant_tiles() {
        assert_eq!(clipped_statistics(&mut []), TileStatistics::default());
        let s = clipped_statistics(&mut [7.0; 50]);
        assert_eq!((s.n_clipped, s.mean, s.median, s.sd), (50, 7.0, 7.0, 0.0));
    }
}
