//! The sky measured again, once what is no sky has been weighed out or taken out: it is where the mean of the filtered
//! light is zero.
//!
//! Method: docs/algorithm.md, "Background".

use super::surface::Surface;
use super::{
    BackgroundMap, CLIP_SIGMAS, MIN_TILE_PIXELS, Mesh, TileStatistics, believed_tiles, fill_from_neighbours,
    median_filter, unclipped_sd,
};
use crate::Result;
use crate::backend::{Backend, TileSource};

/// Part of Gaussian noise that clipping takes.
const CLIPPED_FRACTION: f64 = 0.003_13;

/// What trails have added to a tile's noise is no more than this leaves. Of coarse integers a residual's clipped scatter
/// may see one step alone, and next to no noise.
const LEAST_NOISE_LEFT: f32 = 0.7;

/// A line of 2000 px gains a tenth of its noise from this mean light, in units of the filtered noise, at σ = 1.5 px.
const LEAST_LIGHT: f32 = 0.005;

impl BackgroundMap {
    /// The sky measured again, where sources have been weighed out or taken out of the residual: what they held back
    /// or bent is mended. None where no tile can be believed.
    ///
    /// The level makes the mean of the filtered image zero (`filtered`, half of the rows, in units of the noise): noise
    /// with a tail on one side (hot pixels of an undarkened frame) and the clipping shift it, and it is the mean that
    /// adds up along a line. The noise is that of the residual, where that is given, else it stays.
    pub(crate) fn measured_again(
        &self,
        filtered: &[TileStatistics],
        residual: Option<&[TileStatistics]>,
    ) -> Option<Self> {
        let (mesh, looked_at) = (self.mesh, self.mesh.with_half_of_rows());
        let believed = believed_tiles(looked_at, filtered);
        if !believed.contains(&true) {
            return None;
        }
        let clipped = clipped_light(filtered, &believed);
        let level =
            |i: usize| self.tile_level[i] + (filtered_mean(looked_at, i, &filtered[i]) + clipped) * self.tile_noise[i];
        let level = fill_from_neighbours(mesh, (0..mesh.len()).map(|i| believed[i].then(|| level(i))).collect());
        let noise = match residual {
            Some(tiles) => {
                let seen = believed_tiles(mesh, tiles);
                let of = |i: usize| {
                    let least = LEAST_NOISE_LEFT * self.tile_noise[i];
                    if seen[i] { unclipped_sd(&tiles[i]).max(least) } else { self.tile_noise[i] }
                };
                median_filter(mesh, &(0..mesh.len()).map(of).collect::<Vec<f32>>())
            }
            None => self.tile_noise.clone(),
        };
        let errors: Vec<f32> =
            (0..mesh.len()).map(|i| noise[i] / pixels_told_of(mesh, i, &filtered[i]).sqrt()).collect();
        Some(Self::of(mesh, &Surface::through(mesh, &level, &errors, &noise), noise))
    }

    /// The sky raised so that a filtered image (half of its rows) has no mean light left, where that would count along
    /// a line; none where it would not.
    pub(crate) fn raised(&self, filtered: &[TileStatistics]) -> Option<Self> {
        let looked_at = self.mesh.with_half_of_rows();
        let believed = believed_tiles(looked_at, filtered);
        let mut usable = filtered.to_vec();
        for (i, tile) in usable.iter_mut().enumerate().filter(|(i, _)| believed[*i]) {
            tile.mean = filtered_mean(looked_at, i, tile);
        }
        let light =
            mean_of(&middle_half(&usable, &believed, |t| t.mean), |t| t.mean) + clipped_light(&usable, &believed);
        let noise = mean_of(&middle_half(&usable, &believed, |t| t.sd), |t| t.sd);
        if light.abs() <= LEAST_LIGHT * noise {
            return None;
        }
        let raised = |to: &[f32], noise: &[f32]| to.iter().zip(noise).map(|(l, n)| l + light * n).collect();
        Some(Self {
            level: raised(&self.level, &self.noise),
            tile_level: raised(&self.tile_level, &self.tile_noise),
            ..self.clone()
        })
    }

    /// What normalises a residual that `before` has normalised as this map would have.
    pub(crate) fn after(&self, before: &Self) -> Self {
        let level = self.level.iter().zip(&before.level).map(|(a, b)| a - b).collect();
        Self { level, ..self.clone() }
    }
}

/// Measures the sky again on the backend's filtered residual, and normalises that anew; none where it cannot be.
pub(crate) fn measure_again(
    backend: &mut dyn Backend,
    sky: &BackgroundMap,
    noise_too: bool,
) -> Result<Option<BackgroundMap>> {
    let filtered = backend.tile_statistics(sky.mesh.with_half_of_rows(), TileSource::Filtered)?;
    let residual = if noise_too { Some(backend.tile_statistics(sky.mesh, TileSource::Values)?) } else { None };
    let again = sky.measured_again(&filtered, residual.as_deref());
    if let Some(again) = &again {
        backend.normalise(&again.after(sky))?;
    }
    Ok(again)
}

/// Mean light that clipping took off filtered tiles: where it took more pixels than noise has, these are sources too
/// faint to be weighed out. The tiles whose scatter is in the middle half tell: streaks cover few, which are not among
/// them. They are counted together, since most tiles of pure noise have no such pixels.
fn clipped_light(filtered: &[TileStatistics], believed: &[bool]) -> f32 {
    let middle = middle_half(filtered, believed, |t| t.sd);
    let sum = |f: &dyn Fn(&TileStatistics) -> u32| middle.iter().map(|t| f64::from(f(t))).sum::<f64>();
    let n_usable = sum(&|t| t.n_usable);
    if n_usable == 0.0 {
        return 0.0;
    }
    let excess = 1.0 - sum(&|t| t.n_clipped) / n_usable - CLIPPED_FRACTION;
    CLIP_SIGMAS * mean_of(&middle, |t| t.sd) * excess as f32
}

/// The believed tiles of which a quarter has less of something, and a quarter more.
fn middle_half(
    tiles: &[TileStatistics],
    believed: &[bool],
    of: impl Fn(&TileStatistics) -> f32,
) -> Vec<TileStatistics> {
    let mut known: Vec<TileStatistics> = tiles.iter().zip(believed).filter(|(_, b)| **b).map(|(t, _)| *t).collect();
    known.sort_unstable_by(|a, b| of(a).total_cmp(&of(b)));
    let quarter = known.len() / 4;
    known[quarter..known.len() - quarter].to_vec()
}

fn mean_of(tiles: &[TileStatistics], of: impl Fn(&TileStatistics) -> f32) -> f32 {
    tiles.iter().map(of).sum::<f32>() / tiles.len().max(1) as f32
}

/// Pixels of a tile that half of its filtered rows tell of: those between have their light in these.
fn pixels_told_of(mesh: Mesh, i: usize, filtered: &TileStatistics) -> f32 {
    let rows = mesh.area(i) as f32 / mesh.with_half_of_rows().area(i) as f32;
    (rows * filtered.n_clipped as f32).max(MIN_TILE_PIXELS as f32)
}

/// Mean of a filtered tile's usable pixels: those of weight zero are nearly zeros there, and pull its mean down.
fn filtered_mean(mesh: Mesh, i: usize, tile: &TileStatistics) -> f32 {
    tile.mean * mesh.area(i) as f32 / tile.n_usable as f32
}

#[cfg(test)]
mod tests {
    use super::super::CLIPPED_SD;
    use super::super::tests::tile;
    use super::*;

    /// A tile of which half of the rows were looked at.
    fn tile_of_rows() -> TileStatistics {
        let tile = tile(0.0);
        TileStatistics { n_usable: tile.n_usable / 2, n_clipped: tile.n_clipped / 2, ..tile }
    }

    #[test]
    fn what_a_trail_has_bent_is_mended_without_it() {
        let mesh = Mesh::new(320, 320, 64);
        // Light in half of the tiles: too much of it for outliers.
        let lit = |i: usize| if i % 5 > 2 { 1.5 } else { 0.0 };
        let before =
            BackgroundMap::from_tiles(mesh, &(0..25).map(|i| tile(100.0 + lit(i))).collect::<Vec<_>>()).unwrap();
        let noise = before.tile_noise[0];
        let filtered: Vec<_> = (0..25)
            .map(|i| TileStatistics { mean: (100.0 - before.tile_level[i]) / noise, sd: 0.18, ..tile_of_rows() })
            .collect();
        let quieter: Vec<_> = (0..25).map(|_| TileStatistics { sd: 1.9, ..tile(0.0) }).collect();
        let again = before.measured_again(&filtered, Some(&quieter)).unwrap();
        let (level, sd) = again.evaluate();
        assert!(level.iter().all(|v| (v - 100.0).abs() < 0.02));
        assert!(sd.iter().all(|v| (f64::from(*v) - 1.9 / CLIPPED_SD).abs() < 1e-3));
        // The step leads from one to the other, and the noise stays where it is not measured.
        let step = again.after(&before).evaluate().0;
        assert!((step[5000] + before.evaluate().0[5000] - level[5000]).abs() < 1e-3);
        assert_eq!(before.measured_again(&filtered, None).unwrap().tile_noise, before.tile_noise);
    }

    #[test]
    fn half_of_the_rows_tell_of_all() {
        let told = |side: usize, height: usize, n_clipped: u32| {
            pixels_told_of(Mesh::new(side, height, side), 0, &TileStatistics { n_clipped, ..tile(0.0) })
        };
        assert_eq!(told(64, 64, 2048), 4096.0);
        assert_eq!(told(512, 512, 512 * 256), 512.0 * 512.0);
        // Of five rows three are looked at, and a single one is all there is.
        assert_eq!(told(60, 5, 180), 300.0);
        assert_eq!(told(60, 1, 60), 60.0);
        assert_eq!(told(64, 64, 3), MIN_TILE_PIXELS as f32);
    }

    #[test]
    fn light_that_clipping_took_is_told_from_noise() {
        let of = |fraction: f64| {
            let n_clipped = (4096.0 * (1.0 - fraction)) as u32;
            // What is not clipped of a streak widens the scatter.
            TileStatistics { n_clipped, sd: if fraction > 0.1 { 0.25 } else { 0.2 }, ..tile(0.0) }
        };
        let believed = [true; 100];
        assert!(clipped_light(&[of(CLIPPED_FRACTION); 100], &believed).abs() < 1e-3 * 0.2);
        // Sources over all tiles, and streaks over a few of them.
        let crowded: Vec<TileStatistics> = (0..100).map(|i| of(if i % 5 == 0 { 0.3 } else { 0.02 })).collect();
        let light = clipped_light(&crowded, &believed);
        assert!((f64::from(light) - 3.0 * 0.2 * (0.02 - CLIPPED_FRACTION)).abs() < 1e-3 * 0.2, "{light}");
        assert_eq!(clipped_light(&crowded, &[false; 100]), 0.0);
        // In noise most tiles have none, and some many: what hangs together.
        let clustered: Vec<TileStatistics> =
            (0..100).map(|i| of(if i % 10 == 3 { 10.0 * CLIPPED_FRACTION } else { 0.0 })).collect();
        assert!(clipped_light(&clustered, &believed).abs() < 2e-3 * 0.2);
    }

    #[test]
    fn the_sky_is_raised_by_light_in_units_of_its_noise() {
        let mesh = Mesh::new(320, 320, 64);
        // Noise that grows from one side to the other.
        let tiles: Vec<_> = (0..25).map(|i| TileStatistics { sd: 2.0 + (i % 5) as f32, ..tile(100.0) }).collect();
        let map = BackgroundMap::from_tiles(mesh, &tiles).unwrap();
        let n_clipped = (2048.0 * (1.0 - CLIPPED_FRACTION)) as u32;
        let filtered = |mean: f32| vec![TileStatistics { mean, sd: 0.2, n_clipped, ..tile_of_rows() }; 25];
        assert_eq!(map.raised(&filtered(0.0001)), None);
        assert_eq!(map.raised(&[TileStatistics::default(); 25]), None);
        let raised = map.raised(&filtered(0.02)).unwrap();
        let ((before, noise), (after, noise_after)) = (map.evaluate(), raised.evaluate());
        assert_eq!(noise, noise_after);
        for i in (0..before.len()).step_by(777) {
            assert!((after[i] - before[i] - 0.02 * noise[i]).abs() < 2e-3 * noise[i], "{i}");
        }
        assert!(noise[319] > 1.5 * noise[0]);
        // Of half the pixels masked the filtered mean is half of the light.
        let half_masked: Vec<_> =
            filtered(0.01).iter().map(|t| TileStatistics { n_usable: 1024, n_clipped: n_clipped / 2, ..*t }).collect();
        let again = map.raised(&half_masked).unwrap().evaluate().0;
        assert!((again[5000] - after[5000]).abs() < 2e-3 * noise[5000]);
    }

    // Images are read for comparisons of backends alone.
    #[cfg(feature = "gpu")]
    #[test]
    fn faint_sources_leave_the_filtered_light_no_mean() {
        use crate::backend::cpu::CpuBackend;
        use crate::pipeline::psf::PsfKernel;

        let (side, sigma, limit) = (512, 1.5_f32, 3.0);
        let mut pixels = crate::simulate::gaussian_frame(side, side, 21, 10.0);
        // 3000 a million pixels, S/N 2 to 5: too faint to be weighed out.
        let places = crate::simulate::gaussian_frame(3, 786, 22, 1.0);
        for place in places.chunks_exact(3) {
            let at = |v: f32| (side as f32 / 2.0 * (1.0 + (3.0 * v).sin())) as i64;
            let (x, y, snr) = (at(place[0]), at(place[1]), 3.5 + 1.5 * place[2].sin());
            let peak = snr * 10.0 / (std::f32::consts::PI.sqrt() * sigma);
            for (dy, dx) in (-6..=6).flat_map(|dy| (-6..=6).map(move |dx| (dy, dx))) {
                let inside = |v: i64| (0..side as i64).contains(&v);
                if inside(x + dx) && inside(y + dy) {
                    let light = peak * (-0.5 * (dx * dx + dy * dy) as f32 / sigma.powi(2)).exp();
                    pixels[(y + dy) as usize * side + (x + dx) as usize] += light;
                }
            }
        }
        let kernel = PsfKernel::new(f64::from(sigma));
        let mut backend = CpuBackend::default();
        backend.prepare(side, side).unwrap();
        backend.ingest(&crate::Frame::new(&pixels, side, side).unwrap()).unwrap();
        let mesh = Mesh::new(side, side, 64);
        let sky = BackgroundMap::from_tiles(mesh, &backend.tile_statistics(mesh, TileSource::Values).unwrap()).unwrap();
        backend.normalise(&sky).unwrap();
        backend.filter(&kernel, 6.0, false).unwrap();
        measure_again(&mut backend, &sky, false).unwrap();
        backend.filter(&kernel, 6.0, false).unwrap();
        let sd = kernel.white_noise_sd() as f32;
        let (filtered, _) = backend.read_filtered().unwrap();
        let mean = filtered.iter().map(|v| (v / sd).clamp(-limit, limit)).sum::<f32>() / (side * side) as f32;
        assert!(mean.abs() < 0.025, "{mean}");
    }
}
