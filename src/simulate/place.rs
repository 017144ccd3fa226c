//! Where the sources of a scene are, and how bright.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson};

use super::{Brightness, RandomStreaks, SceneConfig, StarSpec, StreakSpec, unit_stamp};
use crate::{Error, Point, Result, Segment};

/// Tries before a random streak is said to have no room.
const MAX_TRIES: usize = 2000;

/// The given stars and the random ones, as tracks and fluxes (e-).
///
/// Random ones are drawn over the frame and a border around it, so that light from outside comes in.
pub(super) fn place_stars(config: &SceneConfig, rng: &mut ChaCha8Rng) -> Vec<(Segment, f64)> {
    let (length, angle) = config.star_trail.map_or((0.0, 0.0), |trail| (trail.length_px, trail.angle_rad));
    let border = 20.0 + 0.5 * length;
    let (width, height) = (config.width as f64 + 2.0 * border, config.height as f64 + 2.0 * border);
    let expected = config.stars_per_mpix * width * height / 1e6;
    let faintest_e = config.star_min_snr * config.noise_e() / trailed_norm(config.psf_sigma_px, length, angle);
    // N(> F) goes as F to the power -slope / 0.4, because a magnitude is 0.4 dex.
    let exponent = -0.4 / config.star_slope_dex_per_mag;
    let random = (0..poisson(expected, rng)).map(|_| StarSpec {
        x: rng.random_range(0.0..width) - border,
        y: rng.random_range(0.0..height) - border,
        flux_e: (faintest_e * (1.0 - rng.random::<f64>()).powf(exponent)).min(config.star_max_flux_e),
    });
    let random: Vec<_> = random.collect();
    let tracked = |star: StarSpec| (Segment::around(Point::new(star.x, star.y), length, angle), star.flux_e);
    config.stars.iter().copied().chain(random).map(tracked).collect()
}

/// `√Σt²` of a trail anywhere inside a frame.
fn trailed_norm(sigma_px: f64, length_px: f64, angle_rad: f64) -> f64 {
    let side = length_px + 20.0 * sigma_px + 2.0;
    let trail = Segment::around(Point::new(0.5 * side, 0.5 * side), length_px, angle_rad);
    unit_stamp(&trail, sigma_px, side as usize + 1, side as usize + 1).norm()
}

/// A draw from a Poisson distribution, whose mean may be zero.
pub(super) fn poisson(mean: f64, rng: &mut ChaCha8Rng) -> u64 {
    Poisson::new(mean).map_or(0, |distribution| distribution.sample(rng) as u64)
}

/// The given streaks and the random ones.
pub(super) fn place_streaks(config: &SceneConfig, rng: &mut ChaCha8Rng) -> Result<Vec<StreakSpec>> {
    let mut streaks = config.streaks.clone();
    for random in &config.random_streaks {
        for k in 0..random.n {
            let streak = (0..MAX_TRIES)
                .map(|_| draw_streak(random, config, rng))
                .find(|s| fits(&s.segment, random, config) && is_clear(&s.segment, random.guard_px, &streaks))
                .ok_or_else(|| {
                    Error::Config(format!(
                        "no room for random streak {} of {} in {} x {} pixels, {} px from the border and {} px apart",
                        k + 1,
                        random.n,
                        config.width,
                        config.height,
                        random.margin_px,
                        random.guard_px
                    ))
                })?;
            streaks.push(streak);
        }
    }
    Ok(streaks)
}

fn draw_streak(random: &RandomStreaks, config: &SceneConfig, rng: &mut ChaCha8Rng) -> StreakSpec {
    let mut uniform = |[low, high]: [f64; 2]| low + (high - low) * rng.random::<f64>();
    let brightness = Brightness::Snr(uniform(random.snr));
    let (length, angle) = (uniform(random.length_px), uniform(random.angle_rad));
    let midpoint = Point::new(uniform([0.0, config.width as f64 - 1.0]), uniform([0.0, config.height as f64 - 1.0]));
    StreakSpec { segment: Segment::around(midpoint, length, angle), brightness }
}

fn fits(segment: &Segment, random: &RandomStreaks, config: &SceneConfig) -> bool {
    let margin = random.margin_px;
    let (right, bottom) = (config.width as f64 - 1.0 - margin, config.height as f64 - 1.0 - margin);
    [segment.start, segment.end].iter().all(|p| (margin..=right).contains(&p.x) && (margin..=bottom).contains(&p.y))
}

fn is_clear(segment: &Segment, guard_px: f64, others: &[StreakSpec]) -> bool {
    others.iter().all(|other| distance(segment, &other.segment) >= guard_px)
}

/// Least distance between two segments, px.
fn distance(a: &Segment, b: &Segment) -> f64 {
    let sides = |line: &Segment, of: &Segment| {
        line.along_across(of.start).1.signum() * line.along_across(of.end).1.signum() < 0.0
    };
    if a.length_px() > 0.0 && b.length_px() > 0.0 && sides(a, b) && sides(b, a) {
        return 0.0;
    }
    // Segments that do not cross are nearest at an end of one of them.
    [a.distance_to(b.start), a.distance_to(b.end), b.distance_to(a.start), b.distance_to(a.end)]
        .into_iter()
        .fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_between_segments() {
        let a = Segment::from_coordinates(0.0, 0.0, 10.0, 0.0);
        assert_eq!(distance(&a, &Segment::from_coordinates(5.0, -3.0, 5.0, 9.0)), 0.0);
        assert_eq!(distance(&a, &Segment::from_coordinates(13.0, 4.0, 13.0, 9.0)), 5.0);
        assert_eq!(distance(&a, &Segment::from_coordinates(2.0, 8.0, 9.0, 8.0)), 8.0);
        assert_eq!(distance(&a, &Segment::from_coordinates(5.0, 2.0, 5.0, 2.0)), 2.0);
    }
}
