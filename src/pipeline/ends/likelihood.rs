//! The light along a track, and how likely it makes a trail between two places, with stars wherever they explain more than
//! they cost.

use std::ops::Range;

use crate::backend::TrackProfile;
use crate::pipeline::along::Track;
use crate::pipeline::chain::{ChainPrior, FoundStars, Stretch};
use crate::pipeline::ends::STEP_WIDTHS;
use crate::pipeline::measure::{Trail, TrailFit};

use super::KnownStars;
use super::shared::{self, Bins, MOST_FREE, SharedLight, variance_of};

/// Stars in a band so many PSF widths wide around a trail's axis light its track.
const BAND_WIDTHS: f64 = 4.0;

/// Brightness of a trail and stars on it, in turns.
const TURNS: usize = 3;

/// Light along a track in bins of equal length.
pub(super) struct TrackLight {
    first_px: f64,
    bin_px: f64,
    sigma_px: f64,
    /// Light per length times inverse variance.
    signal: Vec<f64>,
    weight: Vec<f64>,
    /// What of it star trails may have a part in.
    shared: SharedLight,
}

impl TrackLight {
    /// `photons_per_px` is the variance that a trail's own photons add to its light per length, of a pixel's length.
    pub(super) fn of(track: &Track<'_>, photons_per_px: f64) -> Self {
        Self::with_variance(track, photons_per_px, &vec![0.0; track.profile.signal.len()])
    }

    /// On a track that star trails lie on, which have been taken out of the image. The trail's ends may lie at these places.
    pub(super) fn among(
        track: &Track<'_>,
        photons_per_px: f64,
        stars: &KnownStars,
        without: Option<&Trail>,
        places: &[Vec<f64>; 2],
    ) -> Self {
        let near: Vec<&TrailFit> = shared::near(&track.segment, track.sigma_px, &stars.fits).collect();
        let of_stars = variance_of(&near, track, &stars.doubt);
        let light = Self::with_variance(track, photons_per_px, &of_stars);
        let mut may_end = vec![false; light.signal.len()];
        for places in places {
            may_end[light.window(places)].fill(true);
        }
        let of_sky: Vec<f64> = track.profile.variance.iter().map(|w| f64::from(*w)).collect();
        let bins = Bins { track, of_sky: &of_sky, weight: &light.weight, may_end: &may_end };
        Self { shared: SharedLight::of(&near, &bins, without), ..light }
    }

    /// `more` adds to the variance of the light per length, bin by bin.
    fn with_variance(track: &Track<'_>, photons_per_px: f64, more: &[f64]) -> Self {
        let TrackProfile { bin_px, first_px, signal, variance } = track.whole();
        let seen = |w: f32, more: f64| 1.0 / (1.0 + f64::from(w) * (photons_per_px / bin_px + more));
        let seen: Vec<f64> = variance.iter().zip(more).map(|(w, more)| seen(*w, *more)).collect();
        Self {
            first_px,
            bin_px,
            sigma_px: track.sigma_px,
            signal: signal.iter().zip(&seen).map(|(s, seen)| f64::from(*s) * seen).collect(),
            weight: variance.iter().zip(&seen).map(|(w, seen)| f64::from(*w) * seen).collect(),
            shared: SharedLight::default(),
        }
    }

    /// Star trails may have a part in it.
    pub(super) fn is_shared(&self) -> bool {
        !self.shared.is_empty()
    }

    fn stretch(&self, bins: Range<usize>, chains: &ChainPrior) -> Stretch {
        Stretch::new(&self.signal[bins.clone()], &self.weight[bins], self.bin_px, chains)
    }

    /// Takes out stars between the ends of a trail, further than this from either; gives the trail's light per length. None
    /// where there are more on it than the field explains: the trail itself is uneven.
    pub(super) fn leave_out_stars_between(
        &mut self,
        [first_px, last_px]: [f64; 2],
        reach_px: f64,
        chains: &ChainPrior,
    ) -> Option<f64> {
        let trail: Vec<f64> =
            (0..self.signal.len()).map(|b| self.height(b, first_px) - self.height(b, last_px)).collect();
        let area_px2 = (last_px - first_px) * BAND_WIDTHS * self.sigma_px;
        // Where a star has drawn an end beyond a dark stretch, the mean is too faint, and what the trail has above it looks like
        // stars.
        let (brightness, stars) = [Self::mean_brightness, Self::median_brightness]
            .into_iter()
            .map(|brightness| self.trail_and_stars(&trail, brightness, chains))
            .find(|(_, stars)| {
                let n_stars = stars.bins.iter().filter(|b| trail[**b] > 0.5).count();
                !chains.are_too_many(n_stars, area_px2)
            })?;
        let (from, to) = (self.around(first_px, reach_px).end, self.around(last_px, reach_px).start);
        let inside = from..to.max(from);
        for ((signal, weight), star) in
            self.signal[inside.clone()].iter_mut().zip(&self.weight[inside.clone()]).zip(&stars.light[inside])
        {
            *signal -= weight * star;
        }
        Some(brightness)
    }

    /// Brightness of a trail and the stars on it, in turns.
    fn trail_and_stars(
        &self,
        trail: &[f64],
        brightness: fn(&Self, &[f64], &[f64]) -> f64,
        chains: &ChainPrior,
    ) -> (f64, FoundStars) {
        let all = self.stretch(0..self.signal.len(), chains);
        let with_stars = |stars: &[f64]| {
            let brightness = brightness(self, trail, stars);
            (brightness, all.stars_left_by(trail.iter().map(|t| brightness * t)))
        };
        let mut both = with_stars(&vec![0.0; trail.len()]);
        for _ in 1..TURNS {
            both = with_stars(&both.1.light);
        }
        both
    }

    /// Brightness with which a trail explains most of what stars leave.
    fn mean_brightness(&self, trail: &[f64], stars: &[f64]) -> f64 {
        let lit = |b: usize| trail[b] * (self.signal[b] - self.weight[b] * stars[b]);
        let power: f64 = (0..trail.len()).map(|b| trail[b] * trail[b] * self.weight[b]).sum();
        ((0..trail.len()).map(lit).sum::<f64>() / power.max(1e-30)).max(0.0)
    }

    /// Half of what stars leave along a trail is brighter.
    fn median_brightness(&self, trail: &[f64], stars: &[f64]) -> f64 {
        let seen = (0..trail.len()).filter(|b| trail[*b] > 0.5 && self.weight[*b] > 0.0);
        let mut lit: Vec<f64> = seen.map(|b| self.signal[b] / self.weight[b] - stars[b]).collect();
        lit.sort_unstable_by(f64::total_cmp);
        lit.get(lit.len() / 2).copied().unwrap_or(0.0).max(0.0)
    }

    /// What is seen of a trail that begins or ends at each of some places; with stars that explain most of what it leaves,
    /// where its brightness is given and they are at hand.
    pub(super) fn ends(&self, places: &[f64], which: Which, stars: Option<(f64, &ChainPrior)>) -> Vec<End> {
        let window = self.window(places);
        let stars = stars.map(|(brightness, chains)| (brightness, self.stretch(window.clone(), chains)));
        // Of all bins from each on: beyond a step its height is 1.
        let mut beyond = vec![End::default(); self.signal.len() + 1];
        for b in (window.start..self.signal.len()).rev() {
            let End { signal, weight, mut shared, .. } = beyond[b + 1];
            let (signal, weight) = (signal + self.signal[b], weight + self.weight[b]);
            self.shared.add(&mut shared, b, 1.0);
            beyond[b] = End { signal, weight, power: weight, shared, ..End::default() };
        }
        let end = |at_px: &f64| {
            let step = self.around(*at_px, STEP_WIDTHS * self.sigma_px + self.bin_px);
            let mut end = beyond[step.end];
            for b in step.start.max(window.start)..step.end {
                let height = self.height(b, *at_px);
                end.signal += height * self.signal[b];
                end.weight += height * self.weight[b];
                end.power += height * height * self.weight[b];
                self.shared.add(&mut end.shared, b, height);
            }
            let Some((brightness, stretch)) = &stars else { return end };
            let trail = |b: usize| match which {
                Which::First => self.height(b, *at_px),
                Which::Last => 1.0 - self.height(b, *at_px),
            };
            let stars = stretch.stars_left_by(window.clone().map(|b| brightness * trail(b)));
            end.explained = stars.explained;
            for (b, star) in window.clone().zip(stars.light) {
                let light = self.weight[b] * star;
                end.stars_signal += trail(b) * light;
                // From what stars explain of the light that the trail leaves, to what they explain of all of it.
                end.explained += 2.0 * brightness * trail(b) * light;
            }
            end
        };
        places.iter().map(end).collect()
    }

    /// Of a plateau between two steps, over all brightnesses.
    pub(super) fn log_likelihood(&self, a: &End, b: &End, excess2: f64) -> f64 {
        let (of_signal, of_power) = self.shared.part_in(a.shared.iter().zip(&b.shared).map(|(a, b)| a - b));
        let signal = a.signal - b.signal - a.stars_signal - b.stars_signal - of_signal;
        // The second step begins where the first is over: their product is the second.
        let power = a.power + b.power - 2.0 * b.weight - of_power;
        if power <= 0.0 || signal <= 0.0 {
            return f64::NEG_INFINITY;
        }
        0.5 * (signal * signal / power + a.explained + b.explained) / excess2 - 0.5 * power.ln()
    }

    /// Light in a bin of a step that begins at a place.
    fn height(&self, bin: usize, at_px: f64) -> f64 {
        let t = (self.first_px + bin as f64 * self.bin_px - at_px) / self.sigma_px;
        if t > STEP_WIDTHS {
            1.0
        } else if t < -STEP_WIDTHS {
            0.0
        } else {
            0.5 * (1.0 + libm::erf(t / std::f64::consts::SQRT_2))
        }
    }

    /// The bins in which a step at one of some places may have light.
    fn window(&self, places: &[f64]) -> Range<usize> {
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return 0..0 };
        self.around(0.5 * (first + last), 0.5 * (last - first) + STEP_WIDTHS * self.sigma_px)
    }

    fn around(&self, at_px: f64, reach_px: f64) -> Range<usize> {
        let bin = |u: f64| (((u - self.first_px) / self.bin_px).round().max(0.0) as usize).min(self.signal.len());
        bin(at_px - reach_px)..bin(at_px + reach_px)
    }
}

/// Which end of a trail, along its track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    First,
    Last,
}

/// What a step of unit light per length would see, and what stars around it explain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct End {
    signal: f64,
    weight: f64,
    power: f64,
    /// See [`SharedLight::add`].
    shared: [f64; MOST_FREE],
    /// What of the signal of the trail is that of stars.
    stars_signal: f64,
    /// S/N² of the light that is there, less the price of the stars.
    explained: f64,
}
