//! Is it a streak, or a chain of point sources that a line happens to join?
//!
//! Method: docs/algorithm.md, "Judge".

use std::ops::Range;

use crate::backend::TrackProfile;
use crate::geometry::Segment;
use crate::pipeline::weigh::is_crowded;

/// How readily the field's sources form chains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ChainPrior {
    sigma_px: f64,
    /// S/N² that stands for the odds of a star within the PSF of a place.
    star_price: f64,
    /// S/N² that a point on a track must win before it is believed.
    point_price: f64,
    /// Square of the noise excess.
    excess2: f64,
    /// Of the S/N² that a trail needs to be significant, the part it must still explain when points compete.
    trail_share: f64,
    point_limit_snr: f64,
    crowded: bool,
}

/// In a row of points each has to stand just so, and be just so bright: S/N² that stands for a third of the places and
/// brightnesses within the PSF.
const JUST_SO_PRICE: f64 = 2.4;

/// That counts where stars are many; in a field of 300 a million pixels a star alone costs as much as this.
const SPARSE_PRICE: f64 = 11.0;

/// Where stars cost more than this, fewer than some 20 a million pixels at σ = 1.5 px, two of them side by side are no
/// matter.
const EMPTY_PRICE: f64 = 15.0;

/// Point sources tried at most on one track.
const MOST_POINTS: usize = 40;

/// How far beyond a trail's ends its profile should run, in PSF widths: a star there lights the end.
const BEYOND_SIGMAS: f64 = 3.0;

/// For every source that is bright enough to be weighed out, so many more in the same field are only just not.
const FAINTER_SOURCES: f64 = 2.0;

/// A frame in which no source was seen counts as one of so many: most such frames show no sky, and have no fainter ones.
const UNSEEN_SOURCES: f64 = 0.1;

/// Of the stars on or beside a trail there may be more than this and so many times the field's density.
const MOST_STARS: f64 = 1.0;
const MOST_STARS_TIMES: f64 = 3.0;

/// In the densest fields a point must still win this much to be more than noise.
const LEAST_PRICE: f64 = 6.0;

/// [`ChainPrior::trail_share`] where stars are few. What is forgiven, some 9 at the default threshold, is the odds of one
/// streak per frame against one false alarm in a hundred.
const TRAIL_SHARE: f64 = 0.75;

/// The same where a star costs no more than [`SPARSE_PRICE`], some 300 of all brightnesses a million pixels; beyond, it
/// falls to the other with the price. Rows of stars are more than streaks are: in 552 frames of 1000 and 3000 stars a million
/// pixels 776 streaks are found, and 19 false ones; at [`TRAIL_SHARE`] 792 and 52, at 0.9 754 and 13.
const MANY_STARS_TRAIL_SHARE: f64 = 0.85;

/// Where faint streaks are looked for, no place counts for more than a point source of this S/N. Sources just too
/// faint to be weighed out then make no line by twos and threes; a faint streak is even, and loses nothing.
const POINT_LIMIT_SNR: f64 = 5.0;

/// The same where stars are so many that they make lines by fours and fives: where one costs no more than
/// [`CROWDED_PRICE`]. Short bright streaks are cut by that (docs/accuracy.md, "Star fields").
const CROWDED_POINT_LIMIT_SNR: f64 = 3.0;

/// The limit falls from the first price of a star to the second: from 400 to 1000 sources that are weighed out a million
/// pixels, at σ = 1.5 px.
const CROWDING_PRICE: f64 = 9.0;
const CROWDED_PRICE: f64 = 7.0;

impl ChainPrior {
    /// For a field in which so many sources were weighed out. `noise_excess` as in
    /// [`Thresholds`](crate::pipeline::threshold::Thresholds).
    pub(crate) fn new(n_sources: usize, pixels: usize, sigma_px: f64, noise_excess: f64) -> Self {
        let density = (n_sources as f64).max(UNSEEN_SOURCES) * FAINTER_SOURCES / pixels as f64;
        let within_psf = density * std::f64::consts::TAU * sigma_px * sigma_px;
        let star_price = (-2.0 * within_psf.ln()).max(LEAST_PRICE);
        let excess2 = noise_excess.powi(2);
        // How far the price of a star has fallen from one to another.
        let fallen = |from: f64, to: f64| ((from - star_price) / (from - to)).clamp(0.0, 1.0);
        let lowered = fallen(CROWDING_PRICE, CROWDED_PRICE);
        let crowding = fallen(SPARSE_PRICE + JUST_SO_PRICE, SPARSE_PRICE);
        Self {
            sigma_px,
            star_price: star_price * excess2,
            point_price: star_price.max((star_price + JUST_SO_PRICE).min(SPARSE_PRICE)) * excess2,
            excess2,
            trail_share: TRAIL_SHARE + crowding * (MANY_STARS_TRAIL_SHARE - TRAIL_SHARE),
            point_limit_snr: POINT_LIMIT_SNR + lowered * (CROWDED_POINT_LIMIT_SNR - POINT_LIMIT_SNR),
            crowded: is_crowded(n_sources, pixels),
        }
    }

    /// PSF width.
    pub(crate) fn sigma_px(&self) -> f64 {
        self.sigma_px
    }

    pub(crate) fn noise_excess(&self) -> f64 {
        self.excess2.sqrt()
    }

    /// S/N² that stands for the odds of a star within the PSF of a place.
    pub(crate) fn star_price(&self) -> f64 {
        self.star_price
    }

    /// What is left of a bright trail's S/N under the limit, over what is left under the one where stars are few.
    pub(crate) fn share_under_limit(&self) -> f64 {
        self.point_limit_snr / POINT_LIMIT_SNR
    }

    /// S/N of a point source that no place may exceed where faint streaks are looked for, in the frame's own noise.
    pub(crate) fn point_limit_snr(&self) -> f64 {
        self.point_limit_snr * self.noise_excess()
    }

    /// Whether a short trail that explains so much more S/N² than stars at this price is rather a few stars.
    pub(crate) fn are_few_stars(&self, gain: f64, snr: f64, threshold_snr: f64) -> bool {
        if !self.has_stars() {
            return false;
        }
        let blend = if self.crowded { BLEND_MARGIN * snr.powi(2) } else { 0.0 };
        gain < blend.max(self.trail_share * threshold_snr.powi(2))
    }

    /// So many stars on so much of the sky are rather something of the trail's own.
    pub(crate) fn are_too_many(&self, n_stars: usize, area_px2: f64) -> bool {
        let density = (-0.5 * self.star_price / self.excess2).exp() / (std::f64::consts::TAU * self.sigma_px.powi(2));
        n_stars as f64 > MOST_STARS + MOST_STARS_TIMES * density * area_px2
    }

    /// Stars are not so rare that two side by side, or one at the end of a trail, are no matter.
    pub(crate) fn has_stars(&self) -> bool {
        self.star_price <= EMPTY_PRICE * self.excess2
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// The track whose profile the test wants.
    pub(crate) fn track(&self, trail: &Segment) -> Segment {
        let beyond = BEYOND_SIGMAS * self.sigma_px;
        trail.extended(beyond, beyond)
    }

    /// Whether the light along a track is rather that of point sources than of a trail, which would need
    /// `threshold_snr` to be significant.
    ///
    /// A trail, even with points on it or of varying brightness, is compared with points alone: what it explains more
    /// must be nearly as much as the threshold asks for. No model fits a bright trail to its noise: there it is enough
    /// when the trail alone comes as near to the points as `misfit` allows, and points are too many to lie in a row by
    /// chance. `profile` is that of [`track`](Self::track).
    pub(crate) fn is_chain(&self, profile: &TrackProfile, length_px: f64, threshold_snr: f64, misfit: Misfit) -> bool {
        let track = Track::new(profile, BEYOND_SIGMAS * self.sigma_px, self);
        let shape = track.even_trail(length_px);
        let points = track.take_points(track.signal.clone());
        let by_points = track.explained(&points.light, &points);
        let piecewise = track.explained_piecewise(length_px);
        let with_points = track.explained_by_trail_and_points(&shape);
        // In a crowded field blends of a few bright stars outnumber short streaks, and no model fits them to the noise.
        let could_be_blend = self.crowded && length_px < BLEND_SIGMAS * self.sigma_px;
        let blend = if could_be_blend { BLEND_MARGIN * by_points } else { 0.0 };
        let share = if misfit == Misfit::Coarse { TRAIL_SHARE } else { self.trail_share };
        let needed = blend.max(share * threshold_snr.powi(2));
        if with_points.max(piecewise) - by_points >= needed {
            return false;
        }
        let alone = track.explained_by_trail(&shape).max(piecewise);
        let forgiven = match misfit {
            Misfit::Coarse => 0.3,
            Misfit::Fitted if points.count < MANY_POINTS || could_be_blend => return true,
            Misfit::Fitted => 0.15,
        };
        alone < BRIGHT_POWER * self.excess2 || alone < (1.0 - forgiven) * by_points
    }

    /// What the light along a trail has in excess of an even one and of noise, bin by bin: reduced χ² less one and three
    /// standard errors of chance. `profile` is that of [`track`](Self::track).
    pub(crate) fn misfit_along(&self, profile: &TrackProfile, length_px: f64) -> f64 {
        let track = Track::new(profile, BEYOND_SIGMAS * self.sigma_px, self);
        let shape = track.even_trail(length_px);
        let amplitude = track.amplitude(&shape, &vec![0.0; shape.len()]);
        let seen = (0..shape.len()).filter(|b| track.variance[*b] > 0.0);
        let left =
            seen.map(|b| (track.signal[b] - amplitude * shape[b] * track.variance[b]).powi(2) / track.variance[b]);
        let (n, chi2) = left.fold((0.0, 0.0), |(n, sum), v| (n + 1.0, sum + v));
        (chi2 / f64::max(n, 1.0) - 1.0 - 3.0 * (2.0 / f64::max(n, 1.0)).sqrt()).max(0.0)
    }

    /// Where stars stand out of a trail of a S/N, and of what lies before and behind it, by more than chance: distances
    /// from the trail's start, px. `profile` is that of the trail made longer by `beyond_px` at either end.
    pub(crate) fn stars_along(&self, profile: &TrackProfile, beyond_px: f64, length_px: f64, snr: f64) -> Vec<f64> {
        let track = Track::new(profile, beyond_px, self);
        let shape = track.even_trail(length_px);
        let weight: f64 = shape.iter().zip(&track.variance).map(|(g, v)| g * g * v).sum();
        // The S/N may be that of limited values; half of the track is brighter than this.
        let mut lit: Vec<f64> = (0..shape.len())
            .filter(|b| shape[*b] > 0.5 && track.variance[*b] > 0.0)
            .map(|b| track.signal[b] / track.variance[b])
            .collect();
        lit.sort_unstable_by(f64::total_cmp);
        let median = lit.get(lit.len() / 2).copied().unwrap_or(0.0);
        let trail = (snr / weight.sqrt()).max(median);
        let left = (0..shape.len()).map(|b| track.signal[b] - trail * shape[b] * track.variance[b]).collect();
        let points = track.take_points(left);
        let is_star = |(bin, gain): &&(usize, f64)| {
            *gain > STAR_PRICES * self.star_price && points.light[*bin] > STAR_CONTRAST * trail
        };
        points.taken.iter().filter(is_star).map(|(bin, _)| track.first_px + *bin as f64 * track.bin_px).collect()
    }
}

/// A star on or beside a trail has to win so many times its price before its pixels are given up.
const STAR_PRICES: f64 = 2.0;

/// It also has to stand out by so many times the trail's own brightness: a trail's light is uneven by noise, and goes on
/// beyond the ends of a rough guess.
const STAR_CONTRAST: f64 = 1.5;

/// How well the trail that is tested is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// A segment of the transform.
    Coarse,
    /// A fit.
    Fitted,
}

/// So many stars hardly stand in a row, side by side.
const MANY_POINTS: usize = 4;

/// Blends of a few stars are no longer than this, in PSF widths.
const BLEND_SIGMAS: f64 = 14.0;

/// The part of a blend's S/N² by which its model may be wrong.
const BLEND_MARGIN: f64 = 0.03;

/// S/N² from which a trail is known better than its model.
const BRIGHT_POWER: f64 = 400.0;

/// Light along a track, bin by bin: `signal` is the data times the template and inverse variance, `variance` that of
/// the signal, so that an amplitude is the one over the other.
struct Track {
    signal: Vec<f64>,
    variance: Vec<f64>,
    /// Place of the first bin, and width of each, px from the trail's start.
    first_px: f64,
    bin_px: f64,
    prior: ChainPrior,
    /// A point source: its light in the bins around its own.
    point: Vec<f64>,
    /// Variance of a point source's amplitude at every bin.
    point_variance: Vec<f64>,
}

/// Stars on a stretch of track.
pub(crate) struct FoundStars {
    /// Their light, bin by bin.
    pub(crate) light: Vec<f64>,
    /// Where they are.
    pub(crate) bins: Vec<usize>,
    /// S/N² that they explain, less their price.
    pub(crate) explained: f64,
}

/// A star above this S/N costs so much more for each e-fold of its S/N²: 1 for its brightness and 1 for its place, which have
/// to be just those to a part of 1 / (S/N), and 0.75 because bright stars are rarer by that power of their light.
const COMMON_SNR: f64 = 5.0;
const PRICE_OF_BRIGHT: f64 = 2.75;

/// A stretch of track on which stars may lie.
pub(crate) struct Stretch(Track);

impl Stretch {
    /// Bin by bin, `bin_px` long: light times inverse variance, and inverse variance.
    pub(crate) fn new(signal: &[f64], weight: &[f64], bin_px: f64, prior: &ChainPrior) -> Self {
        Self(Track::of(signal.to_vec(), weight.to_vec(), 0.0, bin_px, prior))
    }

    /// All of a track.
    pub(crate) fn of(profile: &TrackProfile, prior: &ChainPrior) -> Self {
        Self(Track::new(profile, 0.0, prior))
    }

    /// The stars in what a trail of this light leaves.
    pub(crate) fn stars_left_by(&self, trail: impl Iterator<Item = f64>) -> FoundStars {
        let Self(track) = self;
        let left: Vec<f64> = track.signal.iter().zip(&track.variance).zip(trail).map(|((s, v), t)| s - v * t).collect();
        let before = left.clone();
        let points = track.take_points(left);
        let explained: f64 = (0..before.len()).map(|b| points.light[b] * (before[b] + points.rest[b])).sum();
        // The brighter the star, the better its place and brightness have to be just those.
        let just_so: f64 = points
            .taken
            .iter()
            .map(|(_, gain)| PRICE_OF_BRIGHT * (gain / (COMMON_SNR * COMMON_SNR * track.prior.excess2)).max(1.0).ln())
            .sum();
        let price = points.count as f64 * track.prior.point_price + just_so * track.prior.excess2;
        FoundStars {
            explained: explained - price,
            bins: points.taken.iter().map(|t| t.0).collect(),
            light: points.light,
        }
    }

    /// Stars that are well worth their price: their bins, their S/N² and their light per length.
    pub(crate) fn clear_stars(&self) -> impl Iterator<Item = (usize, f64, f64)> {
        let Self(track) = self;
        let points = track.take_points(track.signal.clone());
        let least = STAR_PRICES * track.prior.point_price;
        points
            .taken
            .into_iter()
            .filter(move |(_, gain)| *gain > least)
            .map(move |(bin, gain)| (bin, gain, points.light[bin]))
    }
}

/// What points explain of a signal.
struct Points {
    /// Their light, and what of the signal it leaves.
    light: Vec<f64>,
    rest: Vec<f64>,
    count: usize,
    /// Their bins, and the S/N² that each had won when it was taken.
    taken: Vec<(usize, f64)>,
}

impl Track {
    /// Of a trail that begins `beyond_px` after the profile does.
    fn new(profile: &TrackProfile, beyond_px: f64, prior: &ChainPrior) -> Self {
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|v| f64::from(*v)).collect() };
        let (signal, variance) = (wide(&profile.signal), wide(&profile.variance));
        Self::of(signal, variance, profile.first_px - beyond_px, profile.bin_px, prior)
    }

    fn of(signal: Vec<f64>, variance: Vec<f64>, first_px: f64, bin_px: f64, prior: &ChainPrior) -> Self {
        let reach = (3.5 * prior.sigma_px / bin_px).ceil() as usize;
        let light = |bins: usize| (-0.5 * (bins as f64 * bin_px / prior.sigma_px).powi(2)).exp();
        let point: Vec<f64> = (0..=2 * reach).map(|b| light(b.abs_diff(reach))).collect();
        let squares: Vec<f64> = point.iter().map(|g| g * g).collect();
        let mut point_variance = vec![0.0; variance.len()];
        correlate(&squares, &variance, 0, &mut point_variance);
        Self { point_variance, signal, variance, first_px, bin_px, prior: *prior, point }
    }

    fn places(&self) -> impl Iterator<Item = f64> + '_ {
        (0..self.signal.len()).map(|b| self.first_px + b as f64 * self.bin_px)
    }

    /// The bins a point source lights.
    fn lit(&self, bin: usize) -> Range<usize> {
        let reach = self.point.len() / 2;
        bin.saturating_sub(reach)..(bin + reach + 1).min(self.signal.len())
    }

    /// Its light in those bins.
    fn light_of(&self, bin: usize) -> &[f64] {
        let (reach, lit) = (self.point.len() / 2, self.lit(bin));
        &self.point[lit.start + reach - bin..lit.end + reach - bin]
    }

    /// Light of an even trail between the track's ends.
    fn even_trail(&self, length_px: f64) -> Vec<f64> {
        // Most bins are further from either end than light is spread.
        let step = |t: f64| match t / (self.prior.sigma_px * std::f64::consts::SQRT_2) {
            t if t > DONE => 1.0,
            t if t < -DONE => 0.0,
            t => 0.5 * (1.0 + libm::erf(t)),
        };
        self.places().map(|u| step(u) - step(u - length_px)).collect()
    }

    /// Amplitude with which a shape explains most of what other light leaves.
    fn amplitude(&self, shape: &[f64], other: &[f64]) -> f64 {
        let weight: f64 = shape.iter().zip(&self.variance).map(|(g, v)| g * g * v).sum();
        let fitted: f64 = (0..shape.len()).map(|b| shape[b] * (self.signal[b] - self.variance[b] * other[b])).sum();
        if weight > 0.0 { (fitted / weight).max(0.0) } else { 0.0 }
    }

    fn explained_by_trail(&self, shape: &[f64]) -> f64 {
        let amplitude = self.amplitude(shape, &vec![0.0; shape.len()]);
        (0..shape.len()).map(|b| amplitude * shape[b] * self.signal[b]).sum()
    }

    /// The even trail, and points, in turns.
    fn explained_by_trail_and_points(&self, shape: &[f64]) -> f64 {
        let mut light = vec![0.0; shape.len()];
        let mut best = 0.0_f64;
        for _ in 0..TURNS {
            let amplitude = self.amplitude(shape, &light);
            let left = (0..shape.len()).map(|b| self.signal[b] - amplitude * shape[b] * self.variance[b]).collect();
            let points = self.take_points(left);
            let both: Vec<f64> = points.light.iter().zip(shape).map(|(p, g)| p + amplitude * g).collect();
            best = best.max(self.explained(&both, &points));
            light = points.light;
        }
        best
    }

    /// S/N² of a model that leaves what its points leave: `Σ (2 s m − v m²)` with `rest = s − v m`, less their price.
    fn explained(&self, light: &[f64], points: &Points) -> f64 {
        let power: f64 = (0..light.len()).map(|b| light[b] * (self.signal[b] + points.rest[b])).sum();
        power - points.count as f64 * self.prior.point_price
    }

    /// S/N² explained by a trail whose brightness varies from piece to piece, less the price of its pieces.
    fn explained_piecewise(&self, length_px: f64) -> f64 {
        let n_pieces = (length_px / (PIECE_SIGMAS * self.prior.sigma_px)).round().max(1.0);
        let mut pieces = vec![(0.0, 0.0); n_pieces as usize];
        for (bin, place) in self.places().enumerate() {
            if (0.0..length_px).contains(&place) {
                let (s, v) = &mut pieces[(place / length_px * n_pieces) as usize];
                (*s, *v) = (*s + self.signal[bin], *v + self.variance[bin]);
            }
        }
        let lit = pieces.iter().filter(|(s, v)| *s > 0.0 && *v > 0.0);
        lit.map(|(s, v)| s * s / v).sum::<f64>() - PIECE_PRICE * n_pieces
    }

    /// Takes points out of a signal, the one that explains most first, while they pay for themselves.
    fn take_points(&self, signal: Vec<f64>) -> Points {
        let n = signal.len();
        let mut points = Points { light: vec![0.0; n], rest: signal, count: 0, taken: Vec::new() };
        let matched = |rest: &[f64], bin: usize| -> f64 {
            self.light_of(bin).iter().zip(&rest[self.lit(bin)]).map(|(g, rest)| g * rest).sum()
        };
        let mut sums = vec![0.0; n];
        correlate(&self.point, &points.rest, 0, &mut sums);
        let mut amplitudes = vec![0.0; n];
        let mut taken: Vec<usize> = Vec::new();
        let gain = |sums: &[f64], bin: usize| {
            let (s, v) = (sums[bin], self.point_variance[bin]);
            if s > 0.0 && v > 0.0 { s * s / v } else { 0.0 }
        };
        let best_of = |sums: &[f64], bins: Range<usize>| {
            bins.map(|bin| (bin, gain(sums, bin))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
        };
        let stretch = |k: usize| k * STRETCH..((k + 1) * STRETCH).min(n);
        let mut best: Vec<(usize, f64)> = (0..n.div_ceil(STRETCH)).map(|k| best_of(&sums, stretch(k))).collect();
        while taken.len() < MOST_POINTS {
            let best_of_all = best.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
            let Some((new, won)) = best_of_all.filter(|(_, gain)| *gain > self.prior.point_price) else { break };
            taken.push(new);
            points.taken.push((new, won));
            points.count += 1;
            // Neighbours that overlap share their light anew, none of them negative.
            let around = self.lit(new);
            let near: Vec<usize> = taken
                .iter()
                .copied()
                .filter(|t| self.lit(*t).start < around.end && around.start < self.lit(*t).end)
                .collect();
            let (mut first, mut last) = (n, 0);
            for _ in 0..if near.len() > 1 { SWEEPS } else { 1 } {
                for &bin in &near {
                    let change = (matched(&points.rest, bin) / self.point_variance[bin]).max(-amplitudes[bin]);
                    amplitudes[bin] += change;
                    for (b, g) in self.lit(bin).zip(self.light_of(bin)) {
                        let light = change * g;
                        points.light[b] += light;
                        points.rest[b] -= light * self.variance[b];
                    }
                    (first, last) = (first.min(self.lit(bin).start), last.max(self.lit(bin).end));
                }
            }
            let touched = self.lit(first).start..self.lit(last - 1).end;
            correlate(&self.point, &points.rest, touched.start, &mut sums[touched.clone()]);
            let changed = touched.start / STRETCH..touched.end.div_ceil(STRETCH);
            for (k, best) in changed.clone().zip(&mut best[changed]) {
                *best = best_of(&sums, stretch(k));
            }
        }
        points
    }
}

/// Sums of values under a template around each of some bins, the first of them given; nothing lies beyond the ends.
fn correlate(template: &[f64], values: &[f64], first: usize, sums: &mut [f64]) {
    // Side by side, so that the sums are vectors; each of them in the order of the bins.
    const LANES: usize = 8;
    let reach = template.len() / 2;
    let at = |i: usize| i.checked_sub(reach).and_then(|b| values.get(b)).copied().unwrap_or(0.0);
    for (block, sums) in sums.chunks_mut(LANES).enumerate() {
        let from = first + block * LANES;
        let mut lanes = [0.0; LANES];
        match from.checked_sub(reach).and_then(|from| values.get(from..from + template.len() + LANES - 1)) {
            Some(values) => {
                for (g, values) in template.iter().zip(values.windows(LANES)) {
                    lanes.iter_mut().zip(values).for_each(|(sum, v)| *sum += g * v);
                }
            }
            None => {
                for (i, g) in template.iter().enumerate() {
                    lanes.iter_mut().enumerate().for_each(|(k, sum)| *sum += g * at(from + i + k));
                }
            }
        }
        sums.copy_from_slice(&lanes[..sums.len()]);
    }
}

/// The error function is one from here on, to the last bit.
const DONE: f64 = 6.0;

/// Bins whose best is looked for anew when one of them changes.
const STRETCH: usize = 64;

/// Length of a piece of a trail of varying brightness, in PSF widths: a point source lights one or two.
const PIECE_SIGMAS: f64 = 4.0;

/// S/N² that a piece must win: its brightness is free, its place is not.
const PIECE_PRICE: f64 = 4.0;

/// A trail and the points on it are told apart in so many turns.
const TURNS: usize = 2;

/// Neighbouring points overlap little: this brings their fluxes to a percent.
const SWEEPS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of 300 stars on a million pixels.
    fn field() -> ChainPrior {
        ChainPrior::new(150, 1_000_000, 1.5, 1.0)
    }

    /// A profile in bins of a pixel, of unit variance, along a track of 60 px and what lies beyond it.
    fn profile(light: impl Fn(f64) -> f64) -> TrackProfile {
        let places = (0..=69).map(|i| f64::from(i) - 4.5);
        let signal: Vec<f32> = places.map(|u| light(u) as f32).collect();
        TrackProfile { bin_px: 1.0, first_px: 0.0, variance: vec![1.0; signal.len()], signal }
    }

    fn star(u: f64, at: f64, amplitude: f64) -> f64 {
        amplitude * (-0.5 * ((u - at) / 1.5).powi(2)).exp()
    }

    fn even(u: f64, amplitude: f64) -> f64 {
        if (0.0..60.0).contains(&u) { amplitude } else { 0.0 }
    }

    fn is_chain(light: impl Fn(f64) -> f64) -> bool {
        field().is_chain(&profile(light), 60.0, 6.2, Misfit::Fitted)
    }

    #[test]
    fn even_trails_are_no_chains() {
        // S/N 6.6, 15 and 77.
        for amplitude in [0.85, 2.0, 10.0] {
            assert!(!is_chain(|u| even(u, amplitude)), "{amplitude}");
        }
        // S/N 2000 along a track that the trail leaves a tenth of: nothing fits it to its noise.
        assert!(!is_chain(|u| if (0.0..54.0).contains(&u) { 300.0 } else { 0.0 }));
        // A star of S/N 50 on a trail of S/N 9.
        assert!(!is_chain(|u| star(u, 20.0, 30.0) + even(u, 1.2)));
        // Flux varying tenfold, where stars are few.
        let tumbling = profile(|u| even(u, if (u / 12.0) as i32 % 2 == 0 { 4.0 } else { 0.4 }));
        assert!(!ChainPrior::new(5, 1_000_000, 1.5, 1.0).is_chain(&tumbling, 60.0, 6.2, Misfit::Fitted));
    }

    #[test]
    fn stars_in_a_line_are_a_chain() {
        assert!(is_chain(|u| star(u, 2.0, 6.0) + star(u, 57.0, 6.0)));
        assert!(is_chain(|u| star(u, 2.0, 60.0) + star(u, 57.0, 60.0)), "bright ones too");
        assert!(is_chain(|u| star(u, 2.0, 4.0) + star(u, 30.0, 5.0) + star(u, 57.0, 4.0)));
        assert!(is_chain(|u| (0..6).map(|k| star(u, 10.0 * f64::from(k) + 4.0, 5.0)).sum()));
    }

    #[test]
    fn where_stars_are_many_a_trail_must_explain_more() {
        // S/N 7 along 60 px, of which three stars explain a part.
        let uneven = profile(|u| even(u, 0.59) + star(u, 8.0, 1.7) + star(u, 30.0, 1.7) + star(u, 52.0, 1.7));
        let is_chain = |n_stars: usize, misfit: Misfit| {
            ChainPrior::new(n_stars, 1_000_000, 1.5, 1.0).is_chain(&uneven, 60.0, 6.4, misfit)
        };
        assert!(!is_chain(20, Misfit::Fitted) && is_chain(150, Misfit::Fitted) && is_chain(1500, Misfit::Fitted));
        assert!(!is_chain(150, Misfit::Coarse), "its fit may explain more");
    }

    #[test]
    fn where_there_are_no_stars_a_short_trail_is_one() {
        let empty = ChainPrior::new(0, 512 * 512, 1.5, 1.0);
        let short = |amplitude: f64| profile(move |u| if (0.0..12.0).contains(&u) { amplitude } else { 0.0 });
        // S/N 6.9.
        assert!(!empty.is_chain(&short(2.0), 12.0, 6.1, Misfit::Fitted));
        assert!(
            ChainPrior::new(1500, 1_000_000, 1.5, 1.0).is_chain(&short(2.0), 12.0, 6.1, Misfit::Fitted),
            "of two stars in a crowd"
        );
    }

    #[test]
    fn points_count_for_less_where_stars_are_many() {
        let limit = |n_sources: usize| ChainPrior::new(n_sources, 1_000_000, 1.53, 1.0).point_limit_snr();
        assert_eq!([limit(0), limit(300), limit(1500)], [5.0, 5.0, 3.0]);
        assert!((3.5..4.5).contains(&limit(650)), "{}", limit(650));
        assert_eq!(ChainPrior::new(0, 1_000_000, 1.53, 1.2).point_limit_snr(), 6.0, "in the frame's own noise");
    }

    #[test]
    fn an_even_trail_of_any_brightness_has_no_stars_on_it() {
        let crowd = ChainPrior::new(1000, 1_000_000, 1.5, 1.0);
        // With the S/N that a limit of 3 may have left.
        for (amplitude, snr) in [(1.0, 7.0), (2.0, 9.0), (5.0, 9.0), (50.0, 9.0)] {
            let stars = crowd.stars_along(&profile(|u| even(u, amplitude)), 4.5, 60.0, snr);
            assert!(stars.is_empty(), "{amplitude}: {stars:?}");
        }
        let with_star = profile(|u| even(u, 2.0) + star(u, 20.0, 12.0));
        let stars = crowd.stars_along(&with_star, 4.5, 60.0, 9.0);
        assert!(stars.len() == 1 && (stars[0] - 20.0).abs() < 2.0, "{stars:?}");
    }

    #[test]
    fn what_was_not_seen_is_no_trail() {
        let mut dark = profile(|_| 0.0);
        dark.variance.fill(0.0);
        assert!(field().is_chain(&dark, 60.0, 6.2, Misfit::Fitted));
    }
}
