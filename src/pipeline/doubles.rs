//! Is a short trail rather two or three stars side by side? Fitted as such, pixel by pixel.
//!
//! Method: docs/algorithm.md, "Judge".

use crate::Result;
use crate::backend::Backend;
use crate::geometry::Segment;
use crate::pipeline::measure::{FitRequest, FitSettings, Shape, Trail, TrailFit, UNCLIPPED_SIGMAS};

/// Trails that could be a few stars, and how many of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Doubles {
    /// Trails of this S/N and more, and less than the next.
    pub(crate) snr: [f64; 2],
    /// They are no longer than this, in PSF widths: longer ones take more stars, in a row.
    pub(crate) longest_sigmas: f64,
    /// Numbers of stars that are tried.
    stars: &'static [usize],
}

/// Four stars as near to each other as to pass for a trail are rare, unless bright ones are many: then even those whose
/// lack of light between them would be plain.
pub(crate) const DOUBLES: [Doubles; 2] = [
    Doubles { snr: [0.0, 20.0], longest_sigmas: 16.0, stars: &[2, 3] },
    Doubles { snr: [20.0, f64::INFINITY], longest_sigmas: 24.0, stars: &[2, 3, 4] },
];

/// The outer stars begin this part of the length inside the ends.
const INSET: f64 = 0.1;

/// Every star is fitted so often at most with the others taken out: of two that are two widths apart each then has its own
/// light.
const ROUNDS: usize = 12;

/// Once no star moves by more than this any more, in PSF widths, they have shared the light.
const SETTLED_WIDTHS: f64 = 0.003;

/// A PSF may differ from the frame's by this factor, as it may where trails are told apart.
const WIDTH_FREEDOM: f64 = 1.08;

/// How much more each trail explains than the best few stars in its place do, in S/N². Every star costs `price`. The
/// trails' light has to be in the residual image.
pub(crate) fn gains_over_stars(
    backend: &mut dyn Backend,
    trails: &[Trail],
    doubles: &Doubles,
    sigma_eff_px: f64,
    price: f64,
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
    let mut gains = vec![f64::INFINITY; trails.len()];
    for &n in doubles.stars {
        let mut stars: Vec<Trail> = requests.iter().flat_map(|r| row_of_stars(&r.start, n)).collect();
        backend.add_trails(&stars, -1.0)?;
        let (mut before, mut fits) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let again: Vec<FitRequest> = stars.iter().map(|&start| FitRequest { start, subtracted: true }).collect();
            before = std::mem::replace(&mut fits, backend.fit(&again, &settings(Shape::Point))?);
            backend.add_trails(&stars, 1.0)?;
            let moved = |(star, fit): (&Trail, &TrailFit)| star.segment.start.distance(fit.trail.segment.start);
            let most_px = stars.iter().zip(&fits).map(moved).fold(0.0, f64::max);
            stars = fits.iter().map(|f| f.trail).collect();
            backend.add_trails(&stars, -1.0)?;
            if most_px < SETTLED_WIDTHS * sigma_eff_px {
                break;
            }
        }
        backend.add_trails(&stars, 1.0)?;
        for ((gain, trail), (before, stars)) in
            gains.iter_mut().zip(&as_trails).zip(before.chunks(n).zip(fits.chunks(n)))
        {
            *gain = gain.min(trail.snr.powi(2) - (power(before, stars) - n as f64 * price));
        }
    }
    Ok(gains)
}

/// So many stars of equal light where a trail is.
fn row_of_stars(trail: &Trail, n: usize) -> impl Iterator<Item = Trail> {
    let trail = *trail;
    (0..n).map(move |i| {
        let place = trail.segment.at(INSET + (1.0 - 2.0 * INSET) * i as f64 / (n - 1) as f64);
        Trail { segment: Segment::new(place, place), flux: trail.flux / n as f64, ..trail }
    })
}

/// What stars explain together, in S/N²: twice their light's product with the data less the square of their light. Each
/// was fitted with the others as they were `before`. Stars of which one takes light away explain nothing.
fn power(before: &[TrailFit], stars: &[TrailFit]) -> f64 {
    if stars.iter().chain(before).any(|s| s.trail.flux <= 0.0) {
        return 0.0;
    }
    let product = |a: &TrailFit, b: &TrailFit| a.snr * b.snr * overlap(&a.trail, &b.trail);
    let pairs = (0..stars.len()).flat_map(|i| (0..stars.len()).map(move |j| (i, j)));
    pairs
        .map(|(i, j)| {
            let with_data = if i == j { stars[i].snr.powi(2) } else { product(&before[j], &stars[i]) };
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
