//! Measure stage: where the ends of a trail are to be expected that is faint, or lies among stars.
//!
//! The end of a faint trail is a change point: its likelihood has several maxima, and the best of them may lie far
//! off. So may that of a brighter one with a star beside it, or the trail of one on it. The mean over the likelihood lies
//! nearer to the truth on average, and its spread says how near. Method: docs/algorithm.md, "Measure".

mod likelihood;
mod marginal;
mod shared;

use rayon::prelude::*;

use crate::Result;
use crate::backend::Backend;
use crate::detection::AlongIntervals;
use crate::geometry::{Point, Segment};
use crate::pipeline::along::{PHOTONS_ON_TRACK, Track};
use crate::pipeline::chain::ChainPrior;
use crate::pipeline::measure::{Trail, TrailFit};
use crate::pipeline::strip::Doubt;

use likelihood::{TrackLight, Which};
use marginal::{Marginal, ONE_SIGMA};

/// Places tried for either end: so many of its standard errors apart, no more than the second of these, and so many as the
/// first where that leaves it.
const STEP_ERRORS: f64 = 0.2;
const PLACES: (f64, f64) = (61.0, 201.0);

/// They reach so many standard errors to either side of the fitted end, where change points that far off are rare but not
/// unheard of: outwards to the border at most, inwards until the two ends would meet; where that leaves less inwards than the
/// second the fitted ends stay.
const REACH_ERRORS: f64 = 10.0;
const LEAST_REACH_ERRORS: f64 = 2.5;

/// Where the error of the change point is less than this many times the bound, the fitted end is as good or better, and
/// so is its error.
const LEAST_FLOOR: f64 = 1.0;

/// Among stars that is not so: one beside an end draws the fitted end to it. Less than this many times the bound, and the trail
/// is so bright that none does; places reach so many PSF widths further, across what is weighed out of it.
const LEAST_FLOOR_AMONG_STARS: f64 = 0.15;
const STAR_REACH_WIDTHS: f64 = 16.0;

/// Where a star has drawn the fit along, its reach may not hold the end: from ends that are this part of it off they are looked
/// for again, so often at most.
const MOVED: f64 = 0.5;
const ROUNDS: usize = 5;

/// An end is another one than the fitted where it is so many of its errors off, and of PSF widths.
const ELSEWHERE_ERRORS: f64 = 3.0;

/// Pairs of ends less likely than the best by this power of e are not counted.
const LEAST_LIKELY: f64 = 30.0;

/// A step of light is over so many PSF widths from its middle.
const STEP_WIDTHS: f64 = 4.0;

/// A trail whose ends are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) trail: Trail,
    pub(crate) snr: f64,
    /// What of it has been taken out of the residual image.
    pub(crate) taken_out: Option<Trail>,
    /// The same while the stars' trails were fitted.
    pub(crate) out_of_stars: Option<Trail>,
}

/// The frame, as far as ends are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndSetting<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// PSF width.
    pub(crate) sigma_px: f64,
    /// The field's stars.
    pub(crate) chains: &'a ChainPrior,
    /// What may lie at the ends of a trail.
    pub(crate) stars: Stars<'a>,
    /// Variance per unit of flux from a trail's own photons.
    pub(crate) photon_variance: f64,
}

/// What the stars of a frame may do to the ends of other trails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stars<'a> {
    /// It is not known; the trails may be those of stars themselves.
    Unknown,
    /// As points they look like a bit of a trail's light.
    Points,
    /// Their trails, which have been taken out, may have taken a part of a trail's light.
    Trails(&'a KnownStars),
}

/// Star trails that have been taken out of the residual image, and how well their light is known.
#[derive(Debug, Clone)]
pub(crate) struct KnownStars {
    pub(crate) fits: Vec<TrailFit>,
    pub(crate) doubt: Doubt,
    /// Trails that were out of the image while these were fitted.
    pub(crate) without: Vec<Trail>,
}

/// Where the ends of those trails are to be expected that are faint enough or lie among stars, and not within some PSF widths
/// of the border.
/// All other trails are out of the residual image.
pub(crate) fn expected(
    backend: &mut dyn Backend,
    trails: &[Option<Subject>],
    setting: &EndSetting<'_>,
) -> Result<Vec<Option<ExpectedEnds>>> {
    let found = expected_near(backend, trails, setting, PLACES.1)?;
    Ok(found.into_iter().map(|found| found.map(|(_, ends)| ends)).collect())
}

/// The same roughly, for trails among stars: however far a star has drawn the end of a fit.
pub(crate) fn drawn(
    backend: &mut dyn Backend,
    trails: &[Option<Subject>],
    setting: &EndSetting<'_>,
) -> Result<Vec<Option<ExpectedEnds>>> {
    let mut ends = vec![None; trails.len()];
    if let Stars::Unknown = setting.stars {
        return Ok(ends);
    }
    let mut looked_at = trails.to_vec();
    for _ in 0..ROUNDS {
        for (i, found) in expected_near(backend, &looked_at, setting, PLACES.0)?.into_iter().enumerate() {
            let before = looked_at[i].take();
            let (Some((search, found)), Some(mut subject)) = (found, before) else { continue };
            if !search.among_stars {
                continue;
            }
            ends[i] = Some(found);
            if search.is_far_off(&found) {
                subject.trail = found.set_in(subject.trail);
                looked_at[i] = Some(subject);
            }
        }
        if looked_at.iter().all(Option::is_none) {
            break;
        }
    }
    Ok(ends)
}

/// The same within reach of the ends that the trails have, of so many places for either.
fn expected_near(
    backend: &mut dyn Backend,
    trails: &[Option<Subject>],
    setting: &EndSetting<'_>,
    most_places: f64,
) -> Result<Vec<Option<(EndSearch, ExpectedEnds)>>> {
    let searches: Vec<Option<EndSearch>> = trails
        .iter()
        .map(|t| {
            let Subject { trail, snr, .. } = t.as_ref()?;
            let of = |among_stars| {
                EndSearch::of(&trail.segment, *snr, setting.sigma_px, setting.width, setting.height, among_stars)
                    .map(|search| search.with_places(most_places))
            };
            let among_stars = match setting.stars {
                Stars::Unknown => None,
                Stars::Points => of(true).filter(|_| setting.chains.has_stars()),
                Stars::Trails(stars) => of(true)
                    .filter(|search| shared::near(&search.track, setting.sigma_px, &stars.fits).next().is_some()),
            };
            among_stars.or_else(|| of(false))
        })
        .collect();
    let tracks: Vec<Segment> = searches.iter().flatten().map(|search| search.track).collect();
    let mut profiles = backend.profiles(&tracks, setting.sigma_px as f32)?.into_iter();
    let with_profiles: Vec<_> = searches
        .into_iter()
        .zip(trails)
        .map(|(search, trail)| Some((search?, profiles.next()?, trail.as_ref()?)))
        .collect();
    let ends = with_profiles.into_par_iter().map(|seen| {
        let (search, profile, Subject { trail, taken_out, out_of_stars, .. }) = seen?;
        let photons = PHOTONS_ON_TRACK * setting.photon_variance * trail.flux.max(0.0) / trail.segment.length_px();
        let (segment, taken_out) = (search.track, taken_out.as_ref());
        let track = Track { segment, profile: &profile, taken_out, sigma_px: setting.sigma_px };
        let light = match setting.stars {
            Stars::Trails(stars) if search.among_stars => {
                TrackLight::among(&track, photons, stars, out_of_stars.as_ref(), &search.places())
            }
            _ => TrackLight::of(&track, photons),
        };
        Some((search, search.expected(light, setting.chains, setting.stars)?))
    });
    Ok(ends.collect())
}

/// The ends of one trail, and the track on which its light is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
struct EndSearch {
    /// From some way before the first fitted end to some way beyond the second.
    track: Segment,
    /// Places of the fitted ends along it.
    fitted_px: [f64; 2],
    /// Places tried for either lie so far inwards of it at most, and outwards of each.
    inwards_px: f64,
    outwards_px: [f64; 2],
    step_px: f64,
    /// Stars may lie at the ends.
    among_stars: bool,
    /// The ends have to be looked for without any star as well.
    is_faint: bool,
    /// PSF width.
    sigma_px: f64,
}

impl EndSearch {
    /// None where the fitted ends and their errors are as good: bright trails, and those that end near the border.
    fn of(fitted: &Segment, snr: f64, sigma_px: f64, width: usize, height: usize, among_stars: bool) -> Option<Self> {
        let length = fitted.length_px();
        let bound = (2.0 * std::f64::consts::PI.sqrt() * sigma_px * length).sqrt() / snr;
        let floor = 26_f64.sqrt() * length / (snr * snr);
        let (error, most) = (bound.hypot(floor), 0.5 * length - STEP_WIDTHS * sigma_px);
        let (least_floor, more_reach_px) =
            if among_stars { (LEAST_FLOOR_AMONG_STARS, STAR_REACH_WIDTHS * sigma_px) } else { (LEAST_FLOOR, 0.0) };
        if floor < least_floor * bound || most < LEAST_REACH_ERRORS * error {
            return None;
        }
        let reach_px = REACH_ERRORS * error + more_reach_px;
        let inwards_px = reach_px.min(most);
        let beyond = reach_px + STEP_WIDTHS * sigma_px;
        let wanted = fitted.extended(beyond, beyond);
        let track = wanted.clipped_to(width, height)?;
        let fitted_px = [fitted.start, fitted.end].map(|p| track.along_across(p).0);
        let outwards_px = [fitted_px[0], track.length_px() - fitted_px[1]].map(|inside| inside.min(reach_px));
        // So near the border it is not seen to end.
        if outwards_px.iter().any(|reach| *reach < STEP_WIDTHS * sigma_px) {
            return None;
        }
        let is_faint = floor >= LEAST_FLOOR * bound;
        let shortest = outwards_px[0].min(outwards_px[1]) + inwards_px;
        let step_px = (STEP_ERRORS * bound).min(shortest / (PLACES.0 - 1.0));
        let search = Self { track, fitted_px, inwards_px, outwards_px, step_px, among_stars, is_faint, sigma_px };
        Some(search.with_places(PLACES.1))
    }

    fn with_places(self, most: f64) -> Self {
        let longest = self.outwards_px[0].max(self.outwards_px[1]) + self.inwards_px;
        Self { step_px: self.step_px.max(longest / (most - 1.0)), ..self }
    }

    /// Where the ends are to be expected by the light on the track. None where there is none, or the fitted ends are as good.
    fn expected(&self, mut light: TrackLight, chains: &ChainPrior, stars: Stars<'_>) -> Option<ExpectedEnds> {
        let brightness = match stars {
            Stars::Points if self.among_stars => light.leave_out_stars_between(self.fitted_px, self.inwards_px, chains),
            _ => None,
        };
        let among_stars = brightness.is_some() || light.is_shared();
        if !among_stars && !self.is_faint {
            return None;
        }
        let stars = brightness.map(|b| (b, chains));
        let places = self.places();
        let of_first = light.ends(&places[0], Which::First, stars);
        let of_last = light.ends(&places[1], Which::Last, stars);
        let excess2 = chains.noise_excess().powi(2);
        let pairs: Vec<f64> = of_first
            .iter()
            .flat_map(|first| of_last.iter().map(|last| light.log_likelihood(first, last, excess2)))
            .collect();
        let best = pairs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !best.is_finite() {
            return None;
        }
        // Of the first end, the second, their sum and their difference.
        let [n_first, n_last] = [of_first.len(), of_last.len()];
        let mut likelihoods = [n_first, n_last, n_first + n_last, n_first + n_last].map(|n| vec![0.0; n]);
        for (pair, log) in pairs.into_iter().enumerate().filter(|(_, log)| best - log < LEAST_LIKELY) {
            let (a, b) = (pair / n_last, pair % n_last);
            let likelihood = (log - best).exp();
            for (of, k) in likelihoods.iter_mut().zip([a, b, a + b, n_first + b - a]) {
                of[k] += likelihood;
            }
        }
        let step_px = self.step_px;
        let [a, b] = places.map(|places| places[0]);
        let from_px = [a, b, a + b, b - a - n_first as f64 * step_px];
        let marginal = |k: usize| Marginal { from_px: from_px[k], step_px, likelihood: &likelihoods[k] };
        let [start, end] = [0, 1].map(|k| marginal(k).mean());
        let expected = [(0, start), (1, end), (2, start + end), (3, end - start)];
        let half_68 = expected.map(|(k, at)| marginal(k).half_width(at, ONE_SIGMA));
        let errors = expected.map(|(k, at)| marginal(k).error_at(at));
        let [first, last, sum, difference] = errors.map(|e| e * e);
        let most = 0.95 * errors[0] * errors[1];
        let between = (0.25 * (sum - difference)).clamp(-most, most);
        Some(ExpectedEnds {
            among_stars,
            segment: self.segment([start, end]),
            along: AlongErrors {
                covariance_px2: [[first, between], [between, last]],
                half_68_px: AlongIntervals {
                    start_px: half_68[0],
                    end_px: half_68[1],
                    midpoint_px: 0.5 * half_68[2],
                    length_px: half_68[3],
                },
            },
        })
    }

    /// Whether an end lies so far from the one that was fitted that another look around it may find it further still.
    fn is_far_off(&self, ends: &ExpectedEnds) -> bool {
        let along = |p: Point| self.track.along_across(p).0;
        let outwards = [self.fitted_px[0] - along(ends.segment.start), along(ends.segment.end) - self.fitted_px[1]];
        let far = |(moved, reach): (f64, f64)| moved > MOVED * reach || -moved > MOVED * self.inwards_px;
        outwards.into_iter().zip(self.outwards_px).any(far)
    }

    fn segment(&self, [first_px, last_px]: [f64; 2]) -> Segment {
        let length = self.track.length_px();
        Segment::new(self.track.at(first_px / length), self.track.at(last_px / length))
    }

    fn places(&self) -> [Vec<f64>; 2] {
        let from_px = [self.fitted_px[0] - self.outwards_px[0], self.fitted_px[1] - self.inwards_px];
        [0, 1].map(|end| {
            let n_places = ((self.outwards_px[end] + self.inwards_px) / self.step_px) as usize + 1;
            (0..n_places).map(|k| from_px[end] + k as f64 * self.step_px).collect()
        })
    }
}

/// The ends to be expected, and how well they are known along the track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ExpectedEnds {
    /// They are those of the trail without the light of stars, which may have drawn or cut the fit.
    pub(crate) among_stars: bool,
    pub(crate) segment: Segment,
    pub(crate) along: AlongErrors,
}

impl ExpectedEnds {
    /// Whether an end of a trail is another one, by its errors and by PSF widths.
    pub(crate) fn are_elsewhere(&self, trail: &Segment, sigma_px: f64) -> bool {
        let [first, last] = [0, 1].map(|k| self.along.covariance_px2[k][k].sqrt());
        let ends = [(self.segment.start, trail.start, first), (self.segment.end, trail.end, last)];
        ends.into_iter().any(|(a, b, error)| a.distance(b) > ELSEWHERE_ERRORS * error.max(sigma_px))
    }

    /// The trail with these ends. Where stars may have drawn the fitted ones its light per length stays, else its flux.
    pub(crate) fn set_in(&self, trail: Trail) -> Trail {
        let share = if self.among_stars { self.segment.length_px() / trail.segment.length_px() } else { 1.0 };
        Trail { segment: self.segment, flux: share * trail.flux, ..trail }
    }
}

/// Errors of both ends along the track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AlongErrors {
    pub(crate) covariance_px2: [[f64; 2]; 2],
    pub(crate) half_68_px: AlongIntervals,
}

impl AlongErrors {
    /// As seen from the other end.
    pub(crate) fn turned(self) -> Self {
        let ([[a, ab], [_, b]], half) = (self.covariance_px2, self.half_68_px);
        let half_68_px = AlongIntervals { start_px: half.end_px, end_px: half.start_px, ..half };
        Self { covariance_px2: [[b, ab], [ab, a]], half_68_px }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::TrackProfile;

    const SIGMA: f64 = 1.5;

    /// Light along the row 50 of a frame of 300 columns, unit variance a pixel, of a plateau from 100 to 200.
    fn profile(track: &Segment, per_px: f64, noise: impl Fn(usize) -> f64) -> TrackProfile {
        let n = track.length_px().floor() as usize;
        let at = |k: usize| {
            let x = track.start.x + k as f64;
            let step = |t: f64| 0.5 * (1.0 + libm::erf(t / (SIGMA * std::f64::consts::SQRT_2)));
            (per_px * (step(x - 100.0) - step(x - 200.0)) + noise(k)) as f32
        };
        TrackProfile { bin_px: 1.0, first_px: 0.0, signal: (0..n).map(at).collect(), variance: vec![1.0; n] }
    }

    fn expected(fitted: &Segment, per_px: f64, noise: impl Fn(usize) -> f64) -> Segment {
        expected_with_errors(fitted, per_px, noise).segment
    }

    fn expected_with_errors(fitted: &Segment, per_px: f64, noise: impl Fn(usize) -> f64) -> ExpectedEnds {
        expected_among(0, fitted, per_px, noise)
    }

    /// In a field of so many sources.
    fn expected_among(n_sources: usize, fitted: &Segment, per_px: f64, noise: impl Fn(usize) -> f64) -> ExpectedEnds {
        let chains = ChainPrior::new(n_sources, 300 * 100, SIGMA, 1.0);
        let search = EndSearch::of(fitted, 10.0, SIGMA, 300, 100, chains.has_stars()).unwrap();
        let profile = profile(&search.track, per_px, noise);
        let track = Track { segment: search.track, profile: &profile, taken_out: None, sigma_px: SIGMA };
        search.expected(TrackLight::of(&track, 0.0), &chains, Stars::Points).unwrap()
    }

    #[test]
    fn a_star_beyond_an_end_may_be_one() {
        // Of S/N 6 in a trail's 10, 9 px beyond its end, which has drawn the fitted end to it.
        let fitted = Segment::from_coordinates(100.0, 50.0, 212.0, 50.0);
        let found = |n_sources: usize, star: f64| {
            let chains = ChainPrior::new(n_sources, 300 * 100, SIGMA, 1.0);
            let from = EndSearch::of(&fitted, 10.0, SIGMA, 300, 100, chains.has_stars()).unwrap().track.start.x;
            let light = |k: usize| star * (-0.5 * ((k as f64 + from - 209.0) / SIGMA).powi(2)).exp();
            let ExpectedEnds { segment, along, .. } = expected_among(n_sources, &fitted, 1.0, light);
            (segment.end.x - 200.0, along.covariance_px2[1][1].sqrt())
        };
        let (with_price, without, none) = (found(40, 3.6), found(0, 3.6), found(40, 0.0));
        assert!(without.0 > 4.0 && with_price.0 < 0.3 * without.0, "{with_price:?} {without:?}");
        assert!(none.0.abs() < 0.3 && with_price.1 > 1.2 * none.1, "{with_price:?} {none:?}");
        assert!((found(0, 0.0).0 - none.0).abs() < 1e-3, "where there is none they cost nothing");
    }

    #[test]
    fn an_uneven_trail_is_not_made_of_stars() {
        // Five glints as bright again as the trail, the last near its end.
        let fitted = Segment::from_coordinates(100.0, 50.0, 200.0, 50.0);
        let from = EndSearch::of(&fitted, 10.0, SIGMA, 300, 100, true).unwrap().track.start.x;
        let glint = |x: f64, at: f64| (-0.5 * ((x - at) / 2.0).powi(2)).exp();
        let light =
            |k: usize| [110.0, 130.0, 150.0, 170.0, 192.0].iter().map(|at| 4.0 * glint(k as f64 + from, *at)).sum();
        let ends = expected_among(10, &fitted, 3.0, light);
        assert!(!ends.among_stars && (ends.segment.end.x - 200.0).abs() < 2.0, "{ends:?}");
    }

    #[test]
    fn stars_that_are_not_there_cost_bright_trails_little() {
        // S/N 60: light of 6 a pixel for 100 px. The bound is 0.38 px.
        let fitted = Segment::from_coordinates(100.0, 50.0, 200.0, 50.0);
        let chains = ChainPrior::new(10, 300 * 100, SIGMA, 1.0);
        let search = EndSearch::of(&fitted, 60.0, SIGMA, 300, 100, true).unwrap();
        let noise = crate::simulate::gaussian_frame(search.track.length_px() as usize + 1, 1, 5, 1.0);
        let profile = profile(&search.track, 6.0, |k| f64::from(noise[k]));
        let track = Track { segment: search.track, profile: &profile, taken_out: None, sigma_px: SIGMA };
        let ends = search.expected(TrackLight::of(&track, 0.0), &chains, Stars::Points).unwrap();
        let errors = [0, 1].map(|k| ends.along.covariance_px2[k][k].sqrt());
        assert!(errors.iter().all(|e| *e < 1.0), "{errors:?}");
        assert!((ends.segment.end.x - 200.0).abs() < 1.2, "{ends:?}");
    }

    #[test]
    fn without_noise_the_true_ends_are_expected() {
        // Fitted 6 px too short at one end, 4 px too long at the other.
        let ends = expected(&Segment::from_coordinates(106.0, 50.0, 204.0, 50.0), 3.0, |_| 0.0);
        assert!((ends.start.x - 100.0).abs() < 0.7 && (ends.end.x - 200.0).abs() < 0.7, "{ends:?}");
        assert_eq!((ends.start.y, ends.end.y), (50.0, 50.0));
    }

    #[test]
    fn nearer_to_the_border_than_errors_reach_ends_are_as_well_known() {
        // Of a trail from 100 to 200 in an image that ends at 212: fewer places beyond the second end than beyond the first.
        let fitted = Segment::from_coordinates(103.0, 50.0, 198.0, 50.0);
        let chains = ChainPrior::new(0, 300 * 100, SIGMA, 1.0);
        let ends_in = |width: usize| {
            let search = EndSearch::of(&fitted, 10.0, SIGMA, width, 100, false).unwrap();
            let light = |k: usize| profile(&search.track, 1.0, |_| 0.0).signal[k];
            let n = search.track.length_px().floor() as usize;
            let profile = TrackProfile {
                bin_px: 1.0,
                first_px: 0.0,
                signal: (0..n).map(light).collect(),
                variance: vec![1.0; n],
            };
            let track = Track { segment: search.track, profile: &profile, taken_out: None, sigma_px: SIGMA };
            (
                search.places().map(|places| places.len()),
                search.expected(TrackLight::of(&track, 0.0), &chains, Stars::Points).unwrap(),
            )
        };
        let ([first, last], at_border) = ends_in(213);
        let ([_, all], inside) = ends_in(300);
        assert!(last < first && last < all, "{first} {last} {all}");
        for (one, other) in
            [(at_border.segment.start, inside.segment.start), (at_border.segment.end, inside.segment.end)]
        {
            assert!(one.distance(other) < 0.3, "{one:?} {other:?}");
        }
        assert!((at_border.segment.end.x - 200.0).abs() < 0.5, "{at_border:?}");
        let (near, far) = (at_border.along.half_68_px, inside.along.half_68_px);
        for (near, far) in
            [(near.end_px, far.end_px), (near.length_px, far.length_px), (near.midpoint_px, far.midpoint_px)]
        {
            assert!((near / far - 1.0).abs() < 0.1, "{near} {far}");
        }
        let [near, far] =
            [at_border, inside].map(|ends| ends.along.covariance_px2[0][1] / ends.along.covariance_px2[0][0]);
        assert!((near - far).abs() < 0.1, "{near} {far}");
    }

    #[test]
    fn a_doubtful_stretch_counts_in_part() {
        // Ten dark pixels 7 px before the end: the light beyond them may be noise.
        let fitted = Segment::from_coordinates(100.0, 50.0, 200.0, 50.0);
        let from = EndSearch::of(&fitted, 10.0, SIGMA, 300, 100, false).unwrap().track.start.x;
        let dark = |k: usize| if (183.0..193.0).contains(&(k as f64 + from)) { -1.0 } else { 0.0 };
        let ends = expected(&fitted, 1.0, dark);
        assert!((ends.start.x - 100.0).abs() < 2.0 && (184.0..194.0).contains(&ends.end.x), "{ends:?}");
    }

    #[test]
    fn errors_are_the_spread_of_the_likelihood() {
        let fitted = Segment::from_coordinates(100.0, 50.0, 200.0, 50.0);
        let from = EndSearch::of(&fitted, 10.0, SIGMA, 300, 100, false).unwrap().track.start.x;
        let errors = |noise: &dyn Fn(usize) -> f64| {
            let [[a, _], [_, b]] = expected_with_errors(&fitted, 1.0, noise).along.covariance_px2;
            [a.sqrt(), b.sqrt()]
        };
        let clear = errors(&|_| 0.0);
        assert!((clear[0] / clear[1] - 1.0).abs() < 0.02, "{clear:?}");
        // A dark stretch before the end, which may lie on either side of it.
        let doubtful = errors(&|k| if (183.0..193.0).contains(&(k as f64 + from)) { -1.0 } else { 0.0 });
        assert!(doubtful[1] > 1.5 * clear[1] && doubtful[0] < 1.2 * clear[0], "{doubtful:?} {clear:?}");
    }

    #[test]
    fn bright_trails_and_those_at_the_border_keep_their_ends() {
        let middle = Segment::from_coordinates(100.0, 50.0, 200.0, 50.0);
        assert!(EndSearch::of(&middle, 10.0, SIGMA, 300, 100, false).is_some());
        assert_eq!(EndSearch::of(&middle, 200.0, SIGMA, 300, 100, false), None);
        let at_border = |x: f64| {
            let trail = Segment::from_coordinates(x, 50.0, x + 100.0, 50.0);
            EndSearch::of(&trail, 10.0, SIGMA, 300, 100, false)
        };
        assert!(at_border(5.0).is_none() && at_border(7.0).is_some());
        let points = [[0.0; 2]; 2].map(|[x, y]| crate::Point::new(x, y));
        assert_eq!(EndSearch::of(&Segment::new(points[0], points[1]), 10.0, SIGMA, 300, 100, false), None);
        let short = Segment::from_coordinates(100.0, 50.0, 114.0, 50.0);
        assert_eq!(EndSearch::of(&short, 7.0, SIGMA, 300, 100, false), None, "its ends would meet");
    }
}
