//! Robust statistics of tiles. GPU twin: shaders/background.wgsl.

mod band;
mod core;
mod picked;
mod ranked;

use std::ops::Range;

use rayon::prelude::*;

use self::band::Band;
use self::core::{Core, Within};
use self::ranked::{Memory, Ranked};
use crate::pipeline::background::{CLIP_SIGMAS, MAX_CLIP_ROUNDS, Mesh, TileStatistics};

/// Robust statistics of the usable pixels (weight > 0) of every tile.
pub(super) fn tile_statistics(values: &[f32], weights: &[f32], mesh: Mesh) -> Vec<TileStatistics> {
    let together = band::tiles_together(mesh);
    let bands = mesh.nx.div_ceil(together);
    let of_band = |scratch: &mut Scratch, i: usize| {
        let first = i % bands * together;
        let Scratch { band, usable, work } = scratch;
        band.read(values, weights, mesh, i / bands, first..(first + together).min(mesh.nx));
        let mut statistics = Vec::with_capacity(together);
        band.for_each_tile(weights, mesh.width, usable, |pixels| statistics.push(clipped_statistics(pixels, work)));
        statistics
    };
    (0..bands * mesh.ny).into_par_iter().map_init(Scratch::default, of_band).flatten_iter().collect()
}

/// Memory of one thread, kept from band to band.
#[derive(Debug, Default)]
struct Scratch {
    band: Band,
    /// The usable pixels of one tile.
    usable: Vec<f32>,
    work: Work,
}

/// What one tile needs.
#[derive(Debug, Default)]
struct Work {
    ranking: Memory,
    core: Core,
}

/// Clips at ±3 standard deviations around the median until nothing more is clipped.
fn clipped_statistics(usable: &[f32], scratch: &mut Work) -> TileStatistics {
    if usable.is_empty() {
        return TileStatistics::default();
    }
    let Work { ranking, core } = scratch;
    let ranked = &mut Ranked::new(usable, ranking);
    // Sums relative to the first median keep single precision exact on integer frames.
    let pivot = ranked.at((usable.len() - 1) / 2);
    let half_width = pivot - ranked.at(((usable.len() - 1) as f64 * LOWER_QUANTILE) as usize);
    // Where more than a third of the pixels are equal that width is zero, and nothing is clipped at first.
    let around = |widths: f32| if half_width > 0.0 { widths * half_width } else { f32::INFINITY };
    core.take(usable, pivot - around(CORE_WIDTHS), pivot + around(CORE_WIDTHS), pivot);
    let (mut low, mut high) = (pivot - around(FIRST_CLIP_WIDTHS), pivot + around(FIRST_CLIP_WIDTHS));
    let mut statistics = TileStatistics::default();
    let mut kept_before = 0..0;
    for _ in 0..MAX_CLIP_ROUNDS {
        if low > core.low || high < core.high {
            core.take(usable, low, high, pivot);
        }
        let Within { ranks: kept, sum, squares } = core.within(usable.len(), low, high, pivot);
        if kept.is_empty() {
            break;
        }
        let n = kept.len() as f64;
        let mean = sum / n;
        let sd = (squares / n - mean * mean).max(0.0).sqrt();
        let settled = statistics.n_clipped == kept.len() as u32;
        let median = if kept == kept_before { statistics.median } else { grouped_median(ranked, kept.clone()) };
        statistics = TileStatistics {
            n_usable: usable.len() as u32,
            n_clipped: kept.len() as u32,
            mean: (f64::from(pivot) + mean) as f32,
            median,
            sd: sd as f32,
        };
        if settled {
            break;
        }
        kept_before = kept;
        low = statistics.median - CLIP_SIGMAS * statistics.sd;
        high = statistics.median + CLIP_SIGMAS * statistics.sd;
    }
    statistics
}

/// First limits, in lower half-widths: those stars leave alone.
const FIRST_CLIP_WIDTHS: f32 = 4.0;

/// Values this near, in half-widths, are summed once: of Gaussian noise no later round clips any of them.
const CORE_WIDTHS: f32 = 2.5;

/// Φ(−1): one standard deviation below the median.
const LOWER_QUANTILE: f64 = 0.158_655;

/// Median of the grouped data of some ranks: among equal values, the fraction of the group that lies below the middle
/// counts, so that the median of integers is not bound to integers.
fn grouped_median(ranked: &mut Ranked<'_>, ranks: Range<usize>) -> f32 {
    let n = ranks.len();
    let middle = ranked.at(ranks.start + (n - 1) / 2);
    let group = ranked.count_below(middle)..ranked.count_up_to(middle);
    if group.len() == 1 {
        return 0.5 * (middle + ranked.at(ranks.start + n / 2));
    }
    // The group's width is the distance to its neighbours' midpoints.
    let previous = if group.start > ranks.start { ranked.at(group.start - 1) } else { middle };
    let next = if group.end < ranks.end { ranked.at(group.end) } else { middle };
    let (from, to) = (0.5 * (previous + middle), 0.5 * (middle + next));
    let fraction = (0.5 * n as f32 - (group.start - ranks.start) as f32) / group.len() as f32;
    from + fraction * (to - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics_of(values: &[f32]) -> TileStatistics {
        clipped_statistics(values, &mut Work::default())
    }

    #[test]
    fn each_tile_has_its_own_usable_pixels() {
        // Tiles are read some at a time, the last ones of a row fewer, and large ones alone; of some only the middles are
        // looked at.
        for (width, nx, ny, most_px, half_of_rows) in [
            (150, 19, 2, 150, false),
            (1000, 130, 2, 1000, false),
            (2400, 3, 1, 2400, false),
            (2400, 3, 3, 2400, true),
            (2400, 1, 1, 2400, false),
            (1000, 130, 1, 5, false),
            (150, 1, 70, 40, false),
        ] {
            let height = 70;
            let values = crate::simulate::gaussian_frame(width, height, 3, 1.0);
            // Lines that are whole, those with holes on one side, and those with holes everywhere.
            let weight = |x: usize, y: usize| {
                let hole = (x + y).is_multiple_of(7) && (y % 3 == 2 || (y % 3 == 1 && x < width / 2));
                if hole { [0.0, -1.0][x % 2] } else { 1.0 }
            };
            let weights: Vec<f32> = (0..width * height).map(|i| weight(i % width, i / width)).collect();
            let mesh = Mesh { width, height, nx, ny, most_px, half_of_rows };
            let of_tile = |i: usize| {
                let rows = mesh.rows(i / nx);
                let lines = rows.clone().filter(|y| !half_of_rows || [0, 3].contains(&((y - rows.start) % 4)));
                let pixels = lines.flat_map(|y| mesh.columns(i % nx).map(move |x| y * width + x));
                let usable: Vec<f32> = pixels.filter(|p| weights[*p] > 0.0).map(|p| values[p]).collect();
                statistics_of(&usable)
            };
            let expected: Vec<TileStatistics> = (0..mesh.len()).map(of_tile).collect();
            assert_eq!(tile_statistics(&values, &weights, mesh), expected, "{mesh:?}");
        }
    }

    #[test]
    fn clipping_leaves_stars_out() {
        // A triangle-shaped sky of 2001 values around 100, and 150 bright pixels.
        let mut values: Vec<f32> = (0..2001).map(|i| 100.0 + ((i * 37 % 2001) as f32 - 1000.0) / 250.0).collect();
        values.extend(std::iter::repeat_n(500.0, 150));
        let s = statistics_of(&values);
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
        let statistics = statistics_of(&values);
        assert!((statistics.median - 4.9).abs() < 1e-6);
    }

    #[test]
    fn empty_and_constant_tiles() {
        assert_eq!(statistics_of(&[]), TileStatistics::default());
        let s = statistics_of(&[7.0; 50]);
        assert_eq!((s.n_clipped, s.mean, s.median, s.sd), (50, 7.0, 7.0, 0.0));
    }

    /// The same by sorting everything.
    fn by_sorting(values: &[f32]) -> TileStatistics {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let n = sorted.len();
        let median = sorted[(n - 1) / 2];
        let lower = match median - sorted[((n - 1) as f64 * LOWER_QUANTILE) as usize] {
            0.0 => f32::INFINITY,
            lower => lower,
        };
        let (mut low, mut high) = (median - 4.0 * lower, median + 4.0 * lower);
        let mut statistics = TileStatistics::default();
        for _ in 0..MAX_CLIP_ROUNDS {
            let kept: Vec<f32> = sorted.iter().copied().filter(|v| (low..=high).contains(v)).collect();
            let n = kept.len();
            let mean = kept.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            let sd = (kept.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
            let settled = statistics.n_clipped == n as u32;
            let median = 0.5 * (kept[(n - 1) / 2] + kept[n / 2]);
            statistics = TileStatistics {
                n_usable: values.len() as u32,
                n_clipped: n as u32,
                mean: mean as f32,
                median,
                sd: sd as f32,
            };
            if settled {
                break;
            }
            (low, high) = (median - CLIP_SIGMAS * sd as f32, median + CLIP_SIGMAS * sd as f32);
        }
        statistics
    }

    #[test]
    fn limits_within_the_core_clip_it() {
        // No width to begin with, so that all is core; a core of two steps that 3 sd do not reach; and limits that grow
        // again, since what lies above the median is five times as wide.
        let coarse = |i: usize| [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -1.0, 50.0][i * 7 % 10];
        let flat_topped = |i: usize| if i.is_multiple_of(5) { -1.0 } else { (i % 7) as f32 * 0.01 };
        let one_sided = |i: usize| (i / 2 % 100) as f32 * [-0.01, 0.05][i % 2];
        let all: [&dyn Fn(usize) -> f32; 3] = [&coarse, &flat_topped, &one_sided];
        for values in all.map(|value| (0..1000).map(value).collect::<Vec<f32>>()) {
            let (s, expected) = (statistics_of(&values), by_sorting(&values));
            assert_eq!((s.n_usable, s.n_clipped), (1000, expected.n_clipped));
            assert!((s.mean - expected.mean).abs() < 1e-6 && (s.sd - expected.sd).abs() < 1e-6, "{s:?} {expected:?}");
        }
    }

    #[test]
    fn binning_is_enough() {
        let mut noise = crate::simulate::gaussian_frame(64, 64, 5, 1.0);
        // In ascending order as well: the sample is taken in strides.
        noise[..2048].sort_unstable_by(f32::total_cmp);
        // Without outliers, with some, and with so many on one side that the middle moves away.
        for outliers in [0, 100, 1500] {
            let mut values: Vec<f32> = noise.clone();
            values[..outliers].iter_mut().for_each(|v| *v += 50.0);
            let expected = by_sorting(&values);
            let s = statistics_of(&values);
            assert_eq!((s.n_usable, s.n_clipped, s.median), (4096, expected.n_clipped, expected.median), "{outliers}");
            assert!((s.mean - expected.mean).abs() < 1e-6 && (s.sd - expected.sd).abs() < 1e-6, "{outliers}");
        }
    }
}
