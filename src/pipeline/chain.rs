//! Is it a streak, or a chain of point sources that a line happens to join?
//!
//! Method: docs/algorithm.md, "Judge".

mod stretch;
mod track;

pub(crate) use self::stretch::{FoundStars, Stretch};
use self::track::Track;
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

    /// The same of several stars in a row: of more than two each has to stand just so, however few there are.
    pub(crate) fn price_of_row(&self, n_stars: usize) -> f64 {
        let just_so = if n_stars > 2 { JUST_SO_PRICE * self.excess2 } else { 0.0 };
        n_stars as f64 * (self.star_price + just_so)
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
