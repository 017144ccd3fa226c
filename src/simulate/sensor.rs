//! From light to pixel values: sky, charge, its overflow, and the read-out.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Exp1, StandardNormal};
use rayon::prelude::*;

use super::SceneConfig;
use super::noise::generator;
use super::place::poisson;
use crate::{Point, Segment};

/// The sky as a function of the pixel.
pub(super) struct Sky {
    level_e: f64,
    centre: (f64, f64),
    /// Fraction of the level gained per pixel along x and y.
    slope: (f64, f64),
    /// Fraction of the level lost per squared pixel of distance from the centre.
    fall_off: f64,
}

impl Sky {
    pub(super) fn new(config: &SceneConfig) -> Self {
        let (width, height) = (config.width as f64, config.height as f64);
        let (s, c) = config.gradient_angle_rad.sin_cos();
        let per_px = config.gradient / (width * c.abs() + height * s.abs());
        let centre = (0.5 * (width - 1.0), 0.5 * (height - 1.0));
        let corner2 = 0.25 * (width * width + height * height);
        Self { level_e: config.sky_e, centre, slope: (per_px * c, per_px * s), fall_off: config.vignetting / corner2 }
    }

    /// Electrons expected in a pixel.
    pub(super) fn electrons(&self, x: usize, y: usize) -> f64 {
        let (dx, dy) = (x as f64 - self.centre.0, y as f64 - self.centre.1);
        let plane = 1.0 + self.slope.0 * dx + self.slope.1 * dy;
        self.level_e * plane * (1.0 - self.fall_off * (dx * dx + dy * dy))
    }
}

/// Turns expected electrons into counted ones; each row has a generator of its own.
pub(super) fn count_photons(electrons: &mut [f64], width: usize, seed: u64, ingredient: u32) {
    electrons.par_chunks_mut(width).enumerate().for_each(|(y, row)| {
        let mut rng = generator(seed, ingredient, y);
        for pixel in row {
            *pixel = poisson(*pixel, &mut rng) as f64;
        }
    });
}

/// Adds dark charge (electrons expected, mostly hundreds to thousands) to random pixels and gives [column, row] of each.
pub(super) fn add_hot_pixels(electrons: &mut [f64], config: &SceneConfig, rng: &mut ChaCha8Rng) -> Vec<[usize; 2]> {
    let n = (config.hot_pixels_per_mpix * electrons.len() as f64 / 1e6).round() as usize;
    let draw = |_| {
        let at = [rng.random_range(0..config.width), rng.random_range(0..config.height)];
        let exponential: f64 = rng.sample(Exp1);
        electrons[at[1] * config.width + at[0]] += 200.0 + 1500.0 * exponential;
        at
    };
    (0..n).map(draw).collect()
}

/// Adds the charge of particles, which no optics blurs, along short tracks, and gives the ends of each.
pub(super) fn add_cosmic_rays(electrons: &mut [f64], config: &SceneConfig, rng: &mut ChaCha8Rng) -> Vec<[f64; 4]> {
    let n = (config.cosmic_rays_per_mpix * electrons.len() as f64 / 1e6).round() as usize;
    let mut draw = |_| {
        let start = Point::new(rng.random_range(0.0..config.width as f64), rng.random_range(0.0..config.height as f64));
        let start = Point::new(start.x - 0.5, start.y - 0.5);
        let exponential: f64 = rng.sample(Exp1);
        let (s, c) = rng.random_range(0.0..std::f64::consts::TAU).sin_cos();
        // Most cross the sensor steeply; a grazing one leaves some tens of pixels.
        let length = (5.0 * exponential).min(60.0);
        let track = Segment::new(start, Point::new(start.x + length * c, start.y + length * s));
        // Minimum-ionising particles leave a few hundred electrons per pixel, a few leave far more.
        let charge_per_px = (300.0 / (1.0 - rng.random::<f64>())).min(2e4);
        let n_steps = (4.0 * length).ceil().max(1.0);
        for step in 0..n_steps as usize {
            let at = track.at((step as f64 + 0.5) / n_steps);
            let (x, y) = (at.x.round(), at.y.round());
            if x >= 0.0 && y >= 0.0 && x < config.width as f64 && y < config.height as f64 {
                let straggling = 0.5 + rng.random::<f64>();
                electrons[y as usize * config.width + x as usize] +=
                    (charge_per_px * length.max(1.0) / n_steps * straggling).round();
            }
        }
        [track.start.x, track.start.y, track.end.x, track.end.y]
    };
    (0..n).map(&mut draw).collect()
}

/// Lets charge above the full well flow along its column, half each way, and gives the columns where it did.
pub(super) fn bleed(electrons: &mut [f64], width: usize, full_well_e: f64) -> Vec<usize> {
    let mut overfull: Vec<usize> =
        (0..electrons.len()).filter(|&i| electrons[i] > full_well_e).map(|i| i % width).collect();
    overfull.sort_unstable();
    overfull.dedup();
    for &x in &overfull {
        let mut column: Vec<f64> = electrons[x..].iter().step_by(width).copied().collect();
        bleed_column(&mut column, full_well_e);
        electrons[x..].iter_mut().step_by(width).zip(column).for_each(|(pixel, charge)| *pixel = charge);
    }
    overfull
}

/// Charge that finds the column full up to its end turns back; only a column without any room loses some.
fn bleed_column(column: &mut [f64], full_well_e: f64) {
    let half_excess: Vec<f64> = column.iter().map(|charge| 0.5 * (charge - full_well_e).max(0.0)).collect();
    column.iter_mut().for_each(|charge| *charge = charge.min(full_well_e));
    let mut carried = 0.0;
    let mut pour = |charge: &mut f64, more: f64| {
        carried += more;
        let taken = f64::min(carried, full_well_e - *charge);
        *charge += taken;
        carried -= taken;
    };
    column.iter_mut().zip(&half_excess).for_each(|(charge, more)| pour(charge, *more));
    column.iter_mut().zip(&half_excess).rev().for_each(|(charge, more)| pour(charge, *more));
    column.iter_mut().for_each(|charge| pour(charge, 0.0));
}

/// Reads the charge out: read noise, gain, bias, 16 bits.
pub(super) fn digitise(electrons: &[f64], config: &SceneConfig, ingredient: u32) -> Vec<u16> {
    let mut pixels = vec![0; electrons.len()];
    let rows = pixels.par_chunks_mut(config.width).zip(electrons.par_chunks(config.width));
    rows.enumerate().for_each(|(y, (row, charges))| {
        let mut rng = generator(config.seed, ingredient, y);
        for (pixel, charge) in row.iter_mut().zip(charges) {
            let deviate: f64 = rng.sample(StandardNormal);
            let adu = config.bias_adu + (charge + config.read_noise_e * deviate) / config.gain_e_per_adu;
            // The conversion saturates at both ends, as the converter does.
            *pixel = adu.round() as u16;
        }
    });
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bleeding_conserves_charge() {
        let mut image = vec![10.0; 5 * 41];
        image[20 * 5 + 2] = 1000.0;
        let before: f64 = image.iter().sum();
        assert_eq!(bleed(&mut image, 5, 100.0), [2]);
        assert!((image.iter().sum::<f64>() - before).abs() < 1e-9);
        let column: Vec<f64> = image[2..].iter().step_by(5).copied().collect();
        assert!(column.iter().all(|&charge| charge <= 100.0));
        // 900 e- too many, 90 e- of room in each pixel: five full pixels on either side.
        assert_eq!(column.iter().filter(|&&charge| charge > 99.9).count(), 11);
        assert!((0..20).all(|i| (column[20 - i] - column[20 + i]).abs() < 1e-9));
    }

    #[test]
    fn charge_turns_back_at_the_border() {
        let mut column = [500.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        bleed_column(&mut column, 100.0);
        assert_eq!(column, [100.0, 100.0, 100.0, 100.0, 100.0, 0.0]);
        let mut column = [900.0, 0.0];
        bleed_column(&mut column, 100.0);
        assert_eq!(column, [100.0, 100.0]);
    }

    #[test]
    fn sky_changes_by_the_gradient_across_the_frame() {
        let config = SceneConfig {
            width: 101,
            height: 51,
            gradient: 0.2,
            gradient_angle_rad: 0.0,
            vignetting: 0.0,
            ..SceneConfig::default()
        };
        let sky = Sky::new(&config);
        assert!((sky.electrons(50, 25) - 400.0).abs() < 1e-9);
        assert!((sky.electrons(100, 3) - sky.electrons(0, 40) - 400.0 * 0.2 * 100.0 / 101.0).abs() < 1e-9);
    }
}
