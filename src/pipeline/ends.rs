//! Measure stage: where the ends of a faint trail are to be expected.
//!
//! The end of a faint trail is a change point: its likelihood has several maxima, and the best of them may lie far
//! off. The mean over the likelihood lies nearer to the truth on average, and its spread says how near. Method: docs/algorithm.md, "Measure".

use crate::geometry::Segment;
use crate::pipeline::along::{Light, Track};

/// Places tried for either end.
const PLACES: usize = 61;

/// They reach so many standard errors to either side of the fitted end: less where the two ends would meet, and where that
/// leaves less than the second the fitted ends stay.
const REACH_ERRORS: f64 = 4.0;
const LEAST_REACH_ERRORS: f64 = 2.0;

/// Where the error of the change point is less than this many times the bound, the fitted end is as good or better.
const LEAST_FLOOR: f64 = 1.0;

/// A step of light is over so many PSF widths from its middle.
const STEP_WIDTHS: f64 = 4.0;

/// The ends of one trail, and the track on which its light is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EndSearch {
    /// From some way before the first fitted end to some way beyond the second.
    pub(crate) track: Segment,
    /// Places of the fitted ends along it.
    fitted_px: [f64; 2],
    reach_px: f64,
    /// PSF width.
    sigma_px: f64,
}

impl EndSearch {
    /// None where the fitted ends are as good: bright trails, and those that end near the border.
    pub(crate) fn of(fitted: &Segment, snr: f64, sigma_px: f64, width: usize, height: usize) -> Option<Self> {
        let length = fitted.length_px();
        let bound = (2.0 * std::f64::consts::PI.sqrt() * sigma_px * length).sqrt() / snr;
        let floor = 26_f64.sqrt() * length / (snr * snr);
        let (error, most) = (bound.hypot(floor), 0.5 * length - STEP_WIDTHS * sigma_px);
        if floor < LEAST_FLOOR * bound || most < LEAST_REACH_ERRORS * error {
            return None;
        }
        let reach_px = (REACH_ERRORS * error).min(most);
        let beyond = reach_px + STEP_WIDTHS * sigma_px;
        let wanted = fitted.extended(beyond, beyond);
        let track = wanted.clipped_to(width, height)?;
        let fitted_px = [fitted.start, fitted.end].map(|p| track.along_across(p).0);
        // As far inwards as outwards, or the mean is drawn away from the border.
        let inside = fitted_px[0] >= reach_px && track.length_px() - fitted_px[1] >= reach_px;
        inside.then_some(Self { track, fitted_px, reach_px, sigma_px })
    }

    /// Where the ends are to be expected. `noise_excess` is the noise along the track over that of the weights.
    pub(crate) fn expected(&self, track: Track<'_>, noise_excess: f64) -> ExpectedEnds {
        let length = self.track.length_px();
        let n = (length / track.profile.bin_px).floor().max(1.0) as usize;
        let lights: Vec<Light> = track.parts(n).collect();
        let part_px = length / n as f64;
        let places = self.fitted_px.map(|at| self.places(at, length));
        let [of_first, of_last] = places
            .each_ref()
            .map(|places| -> Vec<Step> { places.iter().map(|a| self.step(*a, &lights, part_px)).collect() });
        let likelihood_of = |(a, b): (usize, usize)| log_likelihood(of_first[a], of_last[b], noise_excess);
        let pairs = || (0..PLACES).flat_map(|a| (0..PLACES).map(move |b| (a, b)));
        let best = pairs().map(likelihood_of).fold(f64::NEG_INFINITY, f64::max);
        if !best.is_finite() {
            return ExpectedEnds { segment: self.segment(self.fitted_px), along_px2: None };
        }
        let (mut marginals, mut product) = ([[0.0; PLACES]; 2], 0.0);
        for (a, b) in pairs() {
            let likelihood = (likelihood_of((a, b)) - best).exp();
            marginals[0][a] += likelihood;
            marginals[1][b] += likelihood;
            product += likelihood * places[0][a] * places[1][b];
        }
        let total: f64 = marginals[0].iter().sum();
        let of_end = |end: usize| Marginal::new(&places[end], &marginals[end]);
        let [first, last] = [of_end(0), of_end(1)];
        let correlation = (product / total - first.mean * last.mean) / (first.sd * last.sd).max(1e-12);
        let between = correlation.clamp(-0.99, 0.99) * first.half_width * last.half_width;
        ExpectedEnds {
            segment: self.segment([first.mean, last.mean]),
            along_px2: Some([[first.half_width.powi(2), between], [between, last.half_width.powi(2)]]),
        }
    }

    fn segment(&self, [first_px, last_px]: [f64; 2]) -> Segment {
        let length = self.track.length_px();
        Segment::new(self.track.at(first_px / length), self.track.at(last_px / length))
    }

    fn places(&self, around_px: f64, length_px: f64) -> Vec<f64> {
        let (from, to) = ((around_px - self.reach_px).max(0.0), (around_px + self.reach_px).min(length_px));
        (0..PLACES).map(|k| from + (to - from) * k as f64 / (PLACES - 1) as f64).collect()
    }

    /// Sums of a step of light that begins at a place.
    fn step(&self, at_px: f64, lights: &[Light], part_px: f64) -> Step {
        let mut step = Step::default();
        for (k, light) in lights.iter().enumerate() {
            let t = ((k as f64 + 0.5) * part_px - at_px) / self.sigma_px;
            let height = if t > STEP_WIDTHS {
                1.0
            } else if t < -STEP_WIDTHS {
                continue;
            } else {
                0.5 * (1.0 + libm::erf(t / std::f64::consts::SQRT_2))
            };
            let weight = 1.0 / light.variance;
            step.signal += height * weight * light.per_px;
            step.weight += height * weight;
            step.power += height * height * weight;
        }
        step
    }
}

/// The ends to be expected, and how well they are known along the track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ExpectedEnds {
    pub(crate) segment: Segment,
    /// Covariance of both ends along the track, of intervals that hold 68 %; none where there is no light.
    pub(crate) along_px2: Option<[[f64; 2]; 2]>,
}

/// What the likelihood says of one end, the other being anywhere.
struct Marginal {
    mean: f64,
    sd: f64,
    /// So far to either side of the mean lies the share of a normal variable's standard deviation: less than `sd` of a
    /// likelihood with long tails.
    half_width: f64,
}

impl Marginal {
    fn new(places: &[f64], likelihood: &[f64]) -> Self {
        let total: f64 = likelihood.iter().sum();
        let mean = places.iter().zip(likelihood).map(|(p, l)| p * l).sum::<f64>() / total;
        let variance = places.iter().zip(likelihood).map(|(p, l)| (p - mean).powi(2) * l).sum::<f64>() / total;
        // Every place stands for the stretch around it.
        let step = places[1] - places[0];
        let within = |half_width: f64| -> f64 {
            let share = |p: f64| {
                let (from, to) = ((p - 0.5 * step).max(mean - half_width), (p + 0.5 * step).min(mean + half_width));
                (to - from).max(0.0) / step
            };
            places.iter().zip(likelihood).map(|(p, l)| share(*p) * l).sum::<f64>() / total
        };
        let (mut low, mut high) = (0.0, places[places.len() - 1] - places[0] + step);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if within(middle) < ONE_SIGMA { low = middle } else { high = middle }
        }
        Self { mean, sd: variance.sqrt(), half_width: high }
    }
}

/// Share of a normal variable within its standard deviation.
const ONE_SIGMA: f64 = 0.682_689;

/// Halvings of an interval: to a thousandth of a step between places.
const HALVINGS: usize = 16;

/// What a step of unit light per length would see.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    signal: f64,
    weight: f64,
    power: f64,
}

/// Of a plateau between two steps, over all brightnesses.
fn log_likelihood(a: Step, b: Step, noise_excess: f64) -> f64 {
    let signal = a.signal - b.signal;
    // The second step begins where the first is over: their product is the second.
    let power = a.power + b.power - 2.0 * b.weight;
    if power <= 0.0 || signal <= 0.0 {
        return f64::NEG_INFINITY;
    }
    0.5 * signal * signal / (power * noise_excess * noise_excess) - 0.5 * power.ln()
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
        let search = EndSearch::of(fitted, 10.0, SIGMA, 300, 100).unwrap();
        let profile = profile(&search.track, per_px, noise);
        search.expected(Track { segment: search.track, profile: &profile, taken_out: None, sigma_px: SIGMA }, 1.0)
    }

    #[test]
    fn without_noise_the_true_ends_are_expected() {
        // Fitted 6 px too short at one end, 4 px too long at the other.
        let ends = expected(&Segment::from_coordinates(106.0, 50.0, 204.0, 50.0), 3.0, |_| 0.0);
        assert!((ends.start.x - 100.0).abs() < 0.7 && (ends.end.x - 200.0).abs() < 0.7, "{ends:?}");
        assert_eq!((ends.start.y, ends.end.y), (50.0, 50.0));
    }

    #[test]
    fn a_doubtful_stretch_counts_in_part() {
        // Ten dark pixels 15 px before the end: the light beyond them may be noise.
        let fitted = Segment::from_coordinates(100.0, 50.0, 200.0, 50.0);
        let from = EndSearch::of(&fitted, 10.0, SIGMA, 300, 100).unwrap().track.start.x;
        let dark = |k: usize| if (175.0..193.0).contains(&(k as f64 + from)) { -1.0 } else { 0.0 };
        let ends = expected(&fitted, 1.0, dark);
        assert!((ends.start.x - 100.0).abs() < 2.0 && (178.0..198.0).contains(&ends.end.x), "{ends:?}");
    }

    #[test]
    fn errors_are_the_spread_of_the_likelihood() {
        let fitted = Segment::from_coordinates(100.0, 50.0, 200.0, 50.0);
        let from = EndSearch::of(&fitted, 10.0, SIGMA, 300, 100).unwrap().track.start.x;
        let errors = |noise: &dyn Fn(usize) -> f64| {
            let [[a, _], [_, b]] = expected_with_errors(&fitted, 1.0, noise).along_px2.unwrap();
            [a.sqrt(), b.sqrt()]
        };
        let clear = errors(&|_| 0.0);
        assert!((clear[0] / clear[1] - 1.0).abs() < 0.02, "{clear:?}");
        // A dark stretch before the end: it may lie on either side.
        let doubtful = errors(&|k| if (175.0..193.0).contains(&(k as f64 + from)) { -1.0 } else { 0.0 });
        assert!(doubtful[1] > 3.0 * clear[1] && doubtful[0] < 1.2 * clear[0], "{doubtful:?} {clear:?}");
    }

    #[test]
    fn half_widths_hold_68_percent() {
        let places: Vec<f64> = (0..61).map(|k| 0.2 * f64::from(k)).collect();
        let of = |likelihood: &dyn Fn(f64) -> f64| {
            Marginal::new(&places, &places.iter().map(|p| likelihood(p - 6.0)).collect::<Vec<f64>>())
        };
        let normal = of(&|t| (-0.5 * t * t).exp());
        assert!((normal.mean - 6.0).abs() < 1e-9 && (normal.half_width - 1.0).abs() < 0.01);
        assert!((normal.sd - 1.0).abs() < 0.01);
        // 68 % of a two-sided exponential lie within 1.148 of its scale, of standard deviation √2.
        let peaked = of(&|t| (-t.abs() / 0.6).exp());
        assert!((peaked.half_width / 0.6 - 1.148).abs() < 0.03 && (peaked.sd / 0.6 - 1.414).abs() < 0.03);
    }

    #[test]
    fn bright_trails_and_those_at_the_border_keep_their_ends() {
        let middle = Segment::from_coordinates(100.0, 50.0, 200.0, 50.0);
        assert!(EndSearch::of(&middle, 10.0, SIGMA, 300, 100).is_some());
        assert_eq!(EndSearch::of(&middle, 200.0, SIGMA, 300, 100), None);
        let at_border = Segment::from_coordinates(3.0, 50.0, 103.0, 50.0);
        assert_eq!(EndSearch::of(&at_border, 10.0, SIGMA, 300, 100), None);
        let points = [[0.0; 2]; 2].map(|[x, y]| crate::Point::new(x, y));
        assert_eq!(EndSearch::of(&Segment::new(points[0], points[1]), 10.0, SIGMA, 300, 100), None);
        let short = Segment::from_coordinates(100.0, 50.0, 114.0, 50.0);
        assert_eq!(EndSearch::of(&short, 7.0, SIGMA, 300, 100), None, "its ends would meet");
    }
}
