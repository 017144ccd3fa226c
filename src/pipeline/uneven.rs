//! Where the background map is no description of the sky: edges of shadows and of stray light, vignetted corners, nebulae. What
//! such light makes along a line is as significant as it is wide, and is told from a streak by its brightness alone.
//!
//! Method: docs/algorithm.md, "Judge".

use crate::Result;
use crate::backend::{Backend, TileSource};
use crate::geometry::{Point, Segment};
use crate::pipeline::background::{BackgroundMap, Mesh, TileStatistics};

/// Side of the blocks, px: the map follows less.
const BLOCK: usize = 32;

/// A streak through the middle of a block, along its diagonal, moves its median by so much for each pixel of its width in
/// units of its ridge (√(2π) · √2 / 32 is its light in the block's mean; what is brighter than the noise moves a median
/// more), and by no more than this.
const OWN_LIGHT: f64 = 0.14;
const MOST_OWN_LIGHT: f64 = 0.75;

/// A level below this, in units of the noise, may be that of faint stars; or below so many times its own error, a median's; or
/// so many times what half of the blocks are off: then that is the frame's noise, which the threshold knows.
const LEAST_LEVEL: f32 = 0.5;
const SIGNIFICANT: f32 = 6.0;
const UNCOMMON: f32 = 3.0;
const ERROR_OF_MEDIAN: f32 = 1.25;

/// Beside a block that is off the map's spline swings, by this part of it in the next block, and so on for so many blocks.
const SWING: f32 = 0.25;
const SWINGS: usize = 3;

/// Light above the sky is that of a streak where its ridge is so many times brighter than the level around is off, the
/// streak's own part of that left out.
const BRIGHTER: f64 = 8.0;

/// Places along a streak that are looked at; the middle one counts.
const PLACES: usize = 11;

/// How far the level is off, block by block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UnevenSky {
    mesh: Mesh,
    /// In units of the noise; 0 where chance explains it.
    off: Vec<f32>,
    is_even: bool,
}

impl UnevenSky {
    /// Of a residual from which sources have been weighed out, normalised by this map. A block counts where another one beside it
    /// is off as well: one alone is a star's.
    pub(crate) fn measure(backend: &mut dyn Backend, sky: &BackgroundMap) -> Result<Self> {
        let Mesh { width, height, .. } = sky.mesh;
        let mesh = Mesh::new(width, height, BLOCK).with_half_of_rows();
        let tiles = backend.tile_statistics(mesh, TileSource::Values)?;
        let noise = sky.means_over(Mesh { half_of_rows: false, ..mesh }).map(|(_, noise)| noise);
        let all: Vec<f32> = tiles.iter().zip(noise).map(|(tile, noise)| tile.median.abs() / noise).collect();
        let mut sorted: Vec<f32> =
            all.iter().zip(&tiles).filter(|(_, t)| t.n_clipped > 1).map(|(off, _)| *off).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let typical = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        let clear = |(off, tile): (&f32, &TileStatistics)| {
            let error = ERROR_OF_MEDIAN / (tile.n_clipped.max(1) as f32).sqrt();
            if *off >= LEAST_LEVEL.max(SIGNIFICANT * error).max(UNCOMMON * typical) { *off } else { 0.0 }
        };
        let alone: Vec<f32> = all.iter().zip(&tiles).map(clear).collect();
        let together = |i: usize| if greatest_beside(mesh, &alone, i) > 0.0 { alone[i] } else { 0.0 };
        let mut off: Vec<f32> = (0..mesh.len()).map(together).collect();
        for _ in 0..SWINGS {
            off = (0..mesh.len()).map(|i| off[i].max(SWING * greatest_beside(mesh, &off, i))).collect();
        }
        Ok(Self::of(mesh, off))
    }

    fn of(mesh: Mesh, off: Vec<f32>) -> Self {
        Self { mesh, is_even: off.iter().all(|v| *v == 0.0), off }
    }

    /// The map describes all of it.
    #[cfg(test)]
    pub(crate) fn none(width: usize, height: usize) -> Self {
        let mesh = Mesh::new(width, height, BLOCK);
        Self::of(mesh, vec![0.0; mesh.len()])
    }

    /// The greatest of the levels in a block and around it.
    fn around(&self, place: Point) -> f32 {
        let block = |at: f64, n: usize, side: usize| (at.max(0.0) as usize).min(side - 1) * n / side;
        let Mesh { width, height, nx, ny, .. } = self.mesh;
        let i = block(place.y, ny, height) * nx + block(place.x, nx, width);
        self.off[i].max(greatest_beside(self.mesh, &self.off, i))
    }

    /// Whether the sky along a streak is so far off that it explains light of this S/N.
    pub(crate) fn explains(&self, s: &Segment, snr: f64, sigma_eff_px: f64) -> bool {
        if self.is_even {
            return false;
        }
        let mut off: Vec<f32> = (0..PLACES).map(|i| self.around(s.at(i as f64 / (PLACES - 1) as f64))).collect();
        off.sort_unstable_by(f32::total_cmp);
        // Of the S/N of a long streak: F / (σ_n √(2√π σ L)); the ridge is F / (√(2π) σ L). None is shorter than its width.
        let area = sigma_eff_px * s.length_px().max(2.0 * sigma_eff_px);
        let ridge = std::f64::consts::PI.powf(-0.25) * snr / area.sqrt();
        let own_light = (OWN_LIGHT * sigma_eff_px).min(MOST_OWN_LIGHT) * ridge;
        ridge < BRIGHTER * (f64::from(off[PLACES / 2]) - own_light)
    }
}

/// The greatest value of the blocks around one.
fn greatest_beside(mesh: Mesh, values: &[f32], i: usize) -> f32 {
    let beside = |at: usize, n: usize| at.saturating_sub(1)..(at + 2).min(n);
    let (xs, ys) = (beside(i % mesh.nx, mesh.nx), beside(i / mesh.nx, mesh.ny));
    let around = ys.flat_map(|y| xs.clone().map(move |x| y * mesh.nx + x)).filter(|j| *j != i);
    around.map(|j| values[j]).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streak_is_brighter_than_what_is_uneven() {
        let mesh = Mesh::new(320, 320, BLOCK);
        let mut off = vec![0.0; mesh.len()];
        (0..10).for_each(|y| off[y * 10 + 4] = 2.0);
        let sky = UnevenSky::of(mesh, off);
        let beside = Segment::from_coordinates(150.0, 20.0, 152.0, 300.0);
        // A ridge of 16 / (1 + 8 · 0.14 · 1.5) times the noise: S/N is that · π^¼ · √(1.5 · 280).
        let least = 5.970 * 1.3313 * (1.5_f64 * 280.0).sqrt();
        assert!(sky.explains(&beside, 0.99 * least, 1.5) && !sky.explains(&beside, 1.01 * least, 1.5));
        let across = Segment::from_coordinates(10.0, 100.0, 310.0, 120.0);
        assert!(!sky.explains(&across, 8.0, 1.5), "most of it lies elsewhere");
        assert!(!sky.explains(&Segment::from_coordinates(290.0, 20.0, 292.0, 300.0), 8.0, 1.5));
    }

    #[test]
    fn an_edge_is_uneven_and_a_streak_is_not() {
        use crate::backend::cpu::CpuBackend;
        use crate::{Frame, simulate};
        let (width, height) = (400, 300);
        let seen = |with: &dyn Fn(&mut [f32])| {
            let mut pixels = simulate::gaussian_frame(width, height, 5, 10.0);
            with(&mut pixels);
            let mut backend = CpuBackend::default();
            backend.prepare(width, height).unwrap();
            backend.ingest(&Frame::new(&pixels, width, height).unwrap()).unwrap();
            let sky = crate::pipeline::background::draw_map(&mut backend, Mesh::new(width, height, 64)).unwrap();
            UnevenSky::measure(&mut backend, &sky.unwrap()).unwrap()
        };
        // Wide and narrow, faint and bright, along an axis, a diagonal, and neither, through the middles of blocks.
        let diagonal = Segment::from_coordinates(48.0, 16.0, 304.0, 272.0);
        let tracks = [
            diagonal,
            Segment::from_coordinates(30.0, 144.0, 380.0, 144.0),
            Segment::from_coordinates(40.0, 60.0, 350.0, 200.0),
        ];
        for (track, sigma, ridge) in tracks
            .into_iter()
            .flat_map(|track| [1.5, 2.5, 4.0, 6.0].map(|sigma| (track, sigma)))
            .flat_map(|(track, sigma)| [0.5, 1.0, 2.0, 6.0, 20.0].map(|ridge| (track, sigma, ridge)))
        {
            let flux = ridge * 10.0 * (2.0 * std::f64::consts::PI).sqrt() * sigma * track.length_px();
            let sky = seen(&|pixels| simulate::add_streak(pixels, width, &track, sigma, flux));
            let snr = ridge * std::f64::consts::PI.powf(0.25) * (sigma * track.length_px()).sqrt();
            assert!(!sky.explains(&track, snr, sigma), "{track:?} of width {sigma}, ridge {ridge}: {sky:?}");
        }
        let edge = seen(&|pixels| {
            for (i, pixel) in pixels.iter_mut().enumerate() {
                *pixel += if 3 * (i % width) + (i / width) > 700 { 60.0 } else { 0.0 };
            }
        });
        let (along, off) = (
            Segment::from_coordinates(231.0, 10.0, 136.0, 295.0),
            Segment::from_coordinates(380.0, 10.0, 382.0, 290.0),
        );
        assert!(edge.explains(&along, 30.0, 1.5) && !edge.explains(&off, 8.0, 1.5), "{edge:?}");
    }
}
