//! Where the background map is no description of the sky: edges of shadows and of stray light, vignetted corners, nebulae. What
//! such light makes along a line is as significant as it is wide, and is told from a streak by its brightness alone.
//!
//! Method: docs/algorithm.md, "Judge".

use crate::Result;
use crate::backend::{Backend, TileSource};
use crate::geometry::{Point, Segment};
use crate::pipeline::background::{BackgroundMap, Mesh};

/// Side of the blocks, px: the map follows less, and a streak covers little of one.
const BLOCK: usize = 32;

/// A streak diagonally through a block moves its median by so much for each pixel of its width, in units of its ridge:
/// √(2π) · √2 / 32 is the light of its profile in the block's mean.
const OWN_LIGHT: f64 = 0.11;

/// Of each block so many rows and columns are looked at: they know its level to an eighth of a pixel's noise.
const MOST_PX: usize = 16;

/// A block with fewer usable pixels tells nothing.
const LEAST_PIXELS: u32 = 64;

/// A level below this, in units of the noise, may be that of faint stars, or chance (six times its error) and a streak.
const LEAST_LEVEL: f32 = 0.5;

/// Beside a block that is off the map's spline swings, by this part of it in the next block, and so on for so many blocks.
const SWING: f32 = 0.35;
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
    /// Of a residual from which sources have been weighed out, normalised by this map.
    pub(crate) fn measure(backend: &mut dyn Backend, sky: &BackgroundMap) -> Result<Self> {
        let Mesh { width, height, .. } = sky.mesh;
        let mesh = Mesh { most_px: MOST_PX, ..Mesh::new(width, height, BLOCK) };
        let tiles = backend.tile_statistics(mesh, TileSource::Values)?;
        let off = tiles.iter().zip(sky.means_over(mesh)).map(|(tile, (_, noise))| {
            let off = tile.median.abs() / noise;
            if tile.n_clipped >= LEAST_PIXELS && off >= LEAST_LEVEL { off } else { 0.0 }
        });
        let mut off: Vec<f32> = off.collect();
        for _ in 0..SWINGS {
            off = (0..mesh.len()).map(|i| off[i].max(SWING * two_greatest_around(mesh, &off, i)[0])).collect();
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

    /// The second of the levels in a block and around it: one alone may be a star's.
    fn around(&self, place: Point) -> f32 {
        let block = |at: f64, n: usize, side: usize| ((at.max(0.0) as usize).min(side - 1) * n / side) as i64;
        let (x, y) = (block(place.x, self.mesh.nx, self.mesh.width), block(place.y, self.mesh.ny, self.mesh.height));
        two_greatest_around(self.mesh, &self.off, self.mesh.nearest(x, y))[1]
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
        ridge < BRIGHTER * (f64::from(off[PLACES / 2]) - OWN_LIGHT * sigma_eff_px * ridge)
    }
}

/// The greatest values of a block and of those around it.
fn two_greatest_around(mesh: Mesh, values: &[f32], i: usize) -> [f32; 2] {
    let (x, y) = ((i % mesh.nx) as i64, (i / mesh.nx) as i64);
    let near = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (x + dx, y + dy)));
    near.map(|(x, y)| values[mesh.nearest(x, y)])
        .fold([0.0; 2], |[first, second], v| [first.max(v), second.max(first.min(v))])
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
        // A ridge of 16 / (1 + 8 · 0.11 · 1.5) times the noise: S/N is that · π^¼ · √(1.5 · 280).
        let least = 6.897 * 1.3313 * (1.5_f64 * 280.0).sqrt();
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
        let streak = seen(&|pixels| {
            let track = Segment::from_coordinates(40.0, 60.0, 350.0, 200.0);
            simulate::add_streak(pixels, width, &track, 4.0, 60_000.0);
        });
        // Ridge: 60 000 / (√(2π) · 4 · 340) of 10 ADU of noise.
        let (track, ridge) = (Segment::from_coordinates(40.0, 60.0, 350.0, 200.0), 1.76);
        let snr = ridge * 1.3313 * (4.0 * track.length_px()).sqrt();
        assert!(streak.off.iter().any(|v| *v > 0.3) && !streak.explains(&track, snr, 4.0), "{streak:?}");
        let edge = seen(&|pixels| {
            for (i, pixel) in pixels.iter_mut().enumerate() {
                *pixel += if 3 * (i % width) + (i / width) > 700 { 60.0 } else { 0.0 };
            }
        });
        let (along, off) = (
            Segment::from_coordinates(231.0, 10.0, 136.0, 295.0),
            Segment::from_coordinates(330.0, 10.0, 340.0, 290.0),
        );
        assert!(edge.explains(&along, 30.0, 1.5) && !edge.explains(&off, 8.0, 1.5), "{edge:?}");
    }
}
