//! Is a short trail rather two or three stars side by side? Fitted as such, pixel by pixel.
//!
//! Method: docs/algorithm.md, "Judge".

use std::cmp::Ordering;

use crate::Result;
use crate::backend::Backend;
use crate::geometry::Segment;
use crate::pipeline::chain::ChainPrior;
use crate::pipeline::measure::{FitRequest, FitSettings, Shape, Trail, TrailFit, UNCLIPPED_SIGMAS};
use crate::pipeline::turns::{again, in_turns, met_before, replace};

/// Trails that could be a few stars, and how many of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Doubles {
    /// Trails of this S/N and more, and less than the next.
    pub(crate) snr: [f64; 2],
    /// They are no longer than this, in PSF widths: longer ones take more stars, in a row.
    pub(crate) longest_sigmas: f64,
    /// Numbers of stars that are tried.
    stars: &'static [usize],
    /// A star may lie on the trail.
    with_star: bool,
}

/// Four stars as near to each other as to pass for a trail are rare, unless bright ones are many: then even those whose
/// lack of light between them would be plain.
pub(crate) const DOUBLES: [Doubles; 2] = [
    Doubles { snr: [0.0, 20.0], longest_sigmas: 16.0, stars: &[2, 3], with_star: false },
    Doubles { snr: [20.0, f64::INFINITY], longest_sigmas: 24.0, stars: &[2, 3, 4], with_star: true },
];

/// The outer stars begin this part of the length inside the ends.
const INSET: f64 = 0.1;

/// Every star is fitted so often at most with the others taken out: of two that are two widths apart each then has its own
/// light.
const ROUNDS: usize = 12;

/// Once no star moves by more than this any more, in PSF widths, they have shared the light.
const SETTLED_WIDTHS: f64 = 0.003;

/// Trails further apart than this, in PSF widths, share no light.
const APART_WIDTHS: f64 = 6.0;

/// Where on a trail a star is looked for, in parts of its length.
const PLACES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// A PSF may differ from the frame's by this factor, as it may where trails are told apart.
const WIDTH_FREEDOM: f64 = 1.08;

/// How much more each trail explains than the best few stars in its place do, in S/N²; a bright one with a star on it as well.
/// The trails' light has to be in the residual image.
pub(crate) fn gains_over_stars(
    backend: &mut dyn Backend,
    trails: &[Trail],
    doubles: &Doubles,
    sigma_eff_px: f64,
    chains: &ChainPrior,
) -> Result<Vec<f64>> {
    let settings = |shape: Shape| FitSettings {
        shape,
        free_background: false,
        free_sigma: true,
        sigma_range: (sigma_eff_px / WIDTH_FREEDOM, sigma_eff_px * WIDTH_FREEDOM),
        sigma_prior: None,
        reach_px: 5.0 * sigma_eff_px + 2.0,
        // One metric for both: that of the background's noise.
        photon_variance: 0.0,
        clip_sigmas: UNCLIPPED_SIGMAS,
        max_iterations: 20,
    };
    let requests: Vec<FitRequest> = trails
        .iter()
        .map(|t| FitRequest { start: Trail { sigma_eff_px, background: 0.0, ..*t }, subtracted: false })
        .collect();
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let as_trails = backend.fit(&requests, &settings(Shape::Trail))?;
    let mut own: Vec<f64> = as_trails.iter().map(|trail| trail.snr.powi(2)).collect();
    if doubles.with_star {
        for (own, trail) in own.iter_mut().zip(&as_trails) {
            let with_star = with_a_star(backend, trail, &settings(Shape::Trail), &settings(Shape::Point))?;
            *own = own.max(with_star - chains.star_price());
        }
    }
    // Stars of two trails side by side would pass their light on for ever.
    let reach_px = APART_WIDTHS * sigma_eff_px;
    let places: Vec<Segment> = trails.iter().map(|t| t.segment).collect();
    let turns = in_turns(&met_before(&places, reach_px, |_, _| true));
    let mut gains = vec![f64::INFINITY; trails.len()];
    for (turn, &n) in turns.iter().flat_map(|turn| doubles.stars.iter().map(move |n| (turn, n))) {
        let starts: Vec<Trail> = turn.iter().flat_map(|&i| row_of_stars(&requests[i].start, n)).collect();
        let explained = explained_by_stars(backend, starts, n, &settings(Shape::Point))?;
        for (&i, explained) in turn.iter().zip(explained) {
            gains[i] = gains[i].min(own[i] - (explained - chains.price_of_row(n)));
        }
    }
    Ok(gains)
}

/// What stars explain together, in S/N², `n` at a time from where they start: one of each row after the other is fitted with
/// those beside it taken out, until they have shared the light.
fn explained_by_stars(
    backend: &mut dyn Backend,
    starts: Vec<Trail>,
    n: usize,
    settings: &FitSettings,
) -> Result<Vec<f64>> {
    backend.add_trails(&starts, -1.0)?;
    let mut fits: Vec<TrailFit> = starts.into_iter().map(TrailFit::unfitted).collect();
    let mut before = Vec::new();
    for _ in 0..ROUNDS {
        before.clone_from(&fits);
        for k in 0..n {
            let requests: Vec<FitRequest> = before.iter().skip(k).step_by(n).map(again).collect();
            let now = backend.fit(&requests, settings)?;
            let [old, new]: [Vec<Trail>; 2] =
                [requests.iter().map(|r| r.start).collect(), now.iter().map(|f| f.trail).collect()];
            replace(backend, &old, &new)?;
            fits.iter_mut().skip(k).step_by(n).zip(now).for_each(|(fit, now)| *fit = now);
        }
        let moved = |(before, fit): (&TrailFit, &TrailFit)| {
            before.trail.segment.start.distance(fit.trail.segment.start) / fit.trail.sigma_eff_px
        };
        if before.iter().zip(&fits).map(moved).fold(0.0, f64::max) < SETTLED_WIDTHS {
            break;
        }
    }
    backend.add_trails(&fits.iter().map(|f| f.trail).collect::<Vec<_>>(), 1.0)?;
    Ok(before.chunks(n).zip(fits.chunks(n)).map(|(before, stars)| power(before, stars)).collect())
}

/// What a trail and a star on it explain together, in S/N²; each is fitted with the other taken out, until they have shared
/// the light.
fn with_a_star(
    backend: &mut dyn Backend,
    alone: &TrailFit,
    as_trail: &FitSettings,
    as_star: &FitSettings,
) -> Result<f64> {
    let mut trail = *alone;
    backend.add_trails(&[trail.trail], -1.0)?;
    let star_at = |part: &f64| {
        let place = trail.trail.segment.at(*part);
        let start = Trail { segment: Segment::new(place, place), flux: 0.0, ..trail.trail };
        FitRequest { start, subtracted: false }
    };
    let stars = backend.fit(&PLACES.iter().map(star_at).collect::<Vec<_>>(), as_star)?;
    let brightest = stars.into_iter().filter(|s| s.trail.flux > 0.0).max_by(|a, b| a.snr.total_cmp(&b.snr));
    let Some(mut star) = brightest else {
        backend.add_trails(&[trail.trail], 1.0)?;
        return Ok(0.0);
    };
    for _ in 0..ROUNDS {
        backend.add_trails(&[star.trail], -1.0)?;
        let again = backend.fit(&[FitRequest { start: trail.trail, subtracted: true }], as_trail)?;
        backend.add_trails(&[star.trail, trail.trail], 1.0)?;
        trail = again.first().copied().unwrap_or(trail);
        backend.add_trails(&[trail.trail], -1.0)?;
        let again = backend.fit(&[FitRequest { start: star.trail, subtracted: false }], as_star)?;
        let before = star;
        star = again.first().copied().unwrap_or(star);
        let moved_px = before.trail.segment.start.distance(star.trail.segment.start);
        if moved_px < SETTLED_WIDTHS * star.trail.sigma_eff_px {
            break;
        }
    }
    backend.add_trails(&[trail.trail], 1.0)?;
    if trail.trail.flux <= 0.0 || star.trail.flux <= 0.0 {
        return Ok(0.0);
    }
    // The trail's product with the data, the star's light among them.
    let whole = FitRequest { start: trail.trail, subtracted: false };
    let seen = backend.fit(&[whole], &FitSettings { max_iterations: 0, ..*as_trail })?;
    let with_data = trail.snr * seen.first().map_or(0.0, |seen| seen.snr);
    Ok(2.0 * with_data - trail.snr.powi(2) + star.snr.powi(2))
}

/// So many stars of equal light where a trail is.
fn row_of_stars(trail: &Trail, n: usize) -> impl Iterator<Item = Trail> {
    let trail = *trail;
    (0..n).map(move |i| {
        let place = trail.segment.at(INSET + (1.0 - 2.0 * INSET) * i as f64 / (n - 1) as f64);
        Trail { segment: Segment::new(place, place), flux: trail.flux / n as f64, ..trail }
    })
}

/// What stars explain together, in S/N²: twice their light's product with the data less the square of their light. Each was
/// fitted with those after it as they were `before`. Stars of which one takes light away explain nothing.
fn power(before: &[TrailFit], stars: &[TrailFit]) -> f64 {
    if stars.iter().chain(before).any(|s| s.trail.flux <= 0.0) {
        return 0.0;
    }
    let product = |a: &TrailFit, b: &TrailFit| a.snr * b.snr * overlap(&a.trail, &b.trail);
    let pairs = (0..stars.len()).flat_map(|i| (0..stars.len()).map(move |j| (i, j)));
    pairs
        .map(|(i, j)| {
            let with_data = match j.cmp(&i) {
                Ordering::Less => product(&stars[j], &stars[i]),
                Ordering::Equal => stars[i].snr.powi(2),
                Ordering::Greater => product(&before[j], &stars[i]),
            };
            2.0 * with_data - product(&stars[i], &stars[j])
        })
        .sum()
}

/// Scalar product of two stars' unit-norm images.
fn overlap(a: &Trail, b: &Trail) -> f64 {
    let widths2 = a.sigma_eff_px.powi(2) + b.sigma_eff_px.powi(2);
    let apart = a.segment.start.distance(b.segment.start);
    2.0 * a.sigma_eff_px * b.sigma_eff_px / widths2 * (-apart * apart / (2.0 * widths2)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::geometry::Point;
    use crate::pipeline::background::{self, Mesh};
    use crate::pipeline::psf::effective_sigma;
    use crate::{Frame, simulate};

    const SIGMA: f64 = 1.5;
    const TRACK: Segment = Segment::new(Point::new(60.3, 70.8), Point::new(84.0, 82.0));

    /// Gain of a bright trail along the track over stars in its place, where there is this much light on it, and stars at parts
    /// of its length and some way beside it, all in units of the noise.
    fn gain(streak_snr: f64, stars: &[(f64, f64, f64)]) -> f64 {
        let (width, height) = (150, 140);
        let mut pixels = simulate::gaussian_frame(width, height, 7, 1.0);
        let unit = 2.0 * std::f64::consts::PI.sqrt() * SIGMA;
        let streak_flux = streak_snr * (unit * TRACK.length_px()).sqrt();
        simulate::add_streak(&mut pixels, width, &TRACK, SIGMA, streak_flux);
        let (c, s) = TRACK.direction();
        for (part, across, snr) in stars {
            let on_axis = TRACK.at(*part);
            let place = Point::new(on_axis.x - across * s, on_axis.y + across * c);
            simulate::add_streak(&mut pixels, width, &Segment::new(place, place), SIGMA, snr * unit);
        }
        let mut backend = CpuBackend::default();
        backend.prepare(width, height).unwrap();
        backend.ingest(&Frame::new(&pixels, width, height).unwrap()).unwrap();
        background::draw_map(&mut backend, Mesh::new(width, height, 64)).unwrap().unwrap();
        let flux = streak_flux + stars.iter().map(|(_, _, snr)| snr * unit).sum::<f64>();
        let sigma_eff_px = effective_sigma(SIGMA);
        let trail = Trail { segment: TRACK, flux, background: 0.0, sigma_eff_px };
        let chains = ChainPrior::new(13, width * height, sigma_eff_px, 1.0);
        gains_over_stars(&mut backend, &[trail], &DOUBLES[1], sigma_eff_px, &chains).unwrap()[0]
    }

    #[test]
    fn a_streak_is_no_row_of_stars_even_with_a_star_on_it() {
        let alone = gain(35.0, &[]);
        assert!(alone > 100.0, "{alone}");
        for star in [(0.3, 0.5, 30.0), (0.8, -1.5, 25.0), (1.0, 2.0, 30.0)] {
            let with_star = gain(35.0, &[star]);
            assert!(with_star > 0.5 * alone, "{with_star} of {alone}, {star:?}");
        }
    }

    #[test]
    fn stars_in_a_row_are_no_streak_with_a_star_on_it() {
        for stars in [
            &[(0.1, 0.5, 25.0), (0.9, -0.5, 25.0)][..],
            &[(0.1, 0.5, 25.0), (0.45, 0.0, 14.0), (0.9, -0.5, 30.0)],
            &[(0.0, 0.5, 25.0), (0.3, -0.5, 20.0), (0.6, 0.3, 14.0), (1.0, -0.5, 30.0)],
        ] {
            let gain = gain(0.0, stars);
            assert!(gain < 0.0, "{gain}: {stars:?}");
        }
    }

    /// On a galaxy stars would pass on ever more light if all were fitted at once.
    #[test]
    fn the_image_is_as_it_was() {
        let (width, height) = (80, 70);
        let mut pixels = simulate::gaussian_frame(width, height, 7, 1.0);
        let segments = [0.3, 0.7, 1.9].map(|angle| Segment::around(Point::new(40.0, 35.0), 14.0, angle));
        segments.iter().for_each(|s| simulate::add_streak(&mut pixels, width, s, 2.5 * SIGMA, 8000.0));
        let mut backend = CpuBackend::default();
        backend.prepare(width, height).unwrap();
        backend.ingest(&Frame::new(&pixels, width, height).unwrap()).unwrap();
        background::draw_map(&mut backend, Mesh::new(width, height, 64)).unwrap().unwrap();
        let sigma_eff_px = effective_sigma(SIGMA);
        let rows: Vec<Segment> = (20..50).map(|y| Segment::from_coordinates(20.0, y.into(), 60.0, y.into())).collect();
        let before = backend.profiles(&rows, 0.05).unwrap();
        let trails = segments.map(|segment| Trail { segment, flux: 8000.0, background: 0.0, sigma_eff_px });
        let chains = ChainPrior::new(13, width * height, sigma_eff_px, 1.0);
        let gains = gains_over_stars(&mut backend, &trails, &DOUBLES[1], sigma_eff_px, &chains).unwrap();
        assert!(gains.iter().all(|gain| gain.is_finite()), "{gains:?}");
        for (before, after) in before.iter().zip(backend.profiles(&rows, 0.05).unwrap()) {
            for ((a, b), w) in before.signal.iter().zip(&after.signal).zip(&before.variance) {
                assert!((a - b).abs() <= 0.01 * w.sqrt(), "{a} {b}");
            }
        }
    }
}
