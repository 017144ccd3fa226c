//! How a trail looks along its track: its light curve, and how far it bends.
//!
//! Method: docs/algorithm.md, "Measure".

use std::f64::consts::PI;
use std::ops::Range;

use crate::backend::TrackProfile;
use crate::detection::LightCurve;
use crate::geometry::{Point, Segment};
use crate::pipeline::measure::Trail;

/// The tracks for one trail.
pub(crate) const N_TRACKS: usize = 3;

/// A bin of the light curve is at least so many PSF widths long, and there are no more than so many.
const BIN_WIDTHS: f64 = 2.0;
const MOST_BINS: f64 = 100.0;

/// S/N that a part of the trail has on average where its place across is looked at, and how many parts there may be.
const PART_SNR: f64 = 6.0;
const PARTS: (f64, f64) = (3.0, 24.0);

/// A part fainter than this tells no place.
const LEAST_PART_SNR: f64 = 3.0;

/// Correlation of the light on two tracks two PSF widths apart: exp(−1).
const CORRELATION: f64 = 0.367_879;

/// Nearer to ±1 than this the contrast of two tracks no longer tells how far off the light is.
const MOST_CONTRAST: f64 = 0.95;

/// How far a track bends, px, positive towards its direction turned from +x to +y.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bend {
    pub(crate) sagitta_px: f64,
    pub(crate) err_px: f64,
}

impl Bend {
    /// Nothing is known of it.
    pub(crate) const UNKNOWN: Self = Self { sagitta_px: 0.0, err_px: f64::INFINITY };

    /// More than noise, and than the pixels and the optics do to a straight one.
    pub(crate) fn is_clear(&self) -> bool {
        self.sagitta_px.abs() > (4.0 * self.err_px).max(0.3)
    }
}

/// Variance of a trail's light on its own track per flux in a length, in units of that of its photons: these are weighted by
/// the square of the transverse profile, ∫G³ / (∫G²)² = 2/√3.
pub(crate) const PHOTONS_ON_TRACK: f64 = 1.154_700_538;

/// A trail, with the light on its own track and on one to either side, a PSF width away.
pub(crate) struct AlongTrack<'a> {
    /// From end to end, inside the frame.
    pub(crate) segment: Segment,
    /// The last fit.
    pub(crate) trail: &'a Trail,
    /// What had been taken out of the image before the profiles were summed.
    pub(crate) taken_out: Option<&'a Trail>,
    /// PSF width of the profiles.
    pub(crate) sigma_px: f64,
    /// One for each of [`tracks`](Self::tracks).
    pub(crate) profiles: &'a [TrackProfile],
    pub(crate) snr: f64,
    /// Variance per unit of flux from the source's own photons.
    pub(crate) photon_variance: f64,
}

/// Light per length in a part of a track, and its variance.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Light {
    pub(crate) per_px: f64,
    pub(crate) variance: f64,
}

impl AlongTrack<'_> {
    /// The tracks whose profiles are wanted.
    pub(crate) fn tracks(segment: &Segment, sigma_px: f64) -> [Segment; N_TRACKS] {
        [-sigma_px, 0.0, sigma_px].map(|offset| segment.moved_across(offset))
    }

    /// Flux per length in equal bins from the start to the end.
    pub(crate) fn light_curve(&self) -> LightCurve {
        let length = self.segment.length_px();
        let n = (length / (BIN_WIDTHS * self.sigma_px)).floor().clamp(1.0, MOST_BINS) as usize;
        let bin_px = length / n as f64;
        let sky = self.trail.background * 2.0 * PI.sqrt() * self.sigma_px;
        // Of a trail wider than the profile's PSF, that sees too little, and the other way round.
        let width2 = self.sigma_px.powi(2) + self.trail.sigma_eff_px.powi(2);
        let seen = (2.0 * self.sigma_px.powi(2) / width2).sqrt();
        let (flux_per_px, flux_per_px_err) = self
            .parts(1, n)
            .map(|light| {
                let per_px = (light.per_px - sky) / seen;
                let photons = PHOTONS_ON_TRACK * self.photon_variance * per_px.max(0.0) / bin_px;
                (per_px, (light.variance / (seen * seen) + photons).sqrt())
            })
            .unzip();
        LightCurve { bin_px, flux_per_px, flux_per_px_err }
    }

    /// A parabola through the places across of the track's parts.
    pub(crate) fn bend(&self) -> Bend {
        let n = (self.snr / PART_SNR).powi(2).clamp(PARTS.0, PARTS.1) as usize;
        let width2 = self.sigma_px.powi(2) + self.trail.sigma_eff_px.powi(2);
        let photons = self.photons_of_difference(width2) * n as f64 / self.segment.length_px();
        // (place along from −1 to 1, place across, weight)
        let places: Vec<(f64, f64, f64)> = self
            .parts(0, n)
            .zip(self.parts(2, n))
            .enumerate()
            .filter_map(|(k, (before, beyond))| {
                let sum = before.per_px + beyond.per_px;
                let variance = 0.5 * (before.variance + beyond.variance);
                let contrast = (beyond.per_px - before.per_px) / sum;
                let known = sum > LEAST_PART_SNR * (2.0 * variance * (1.0 + CORRELATION)).sqrt();
                (known && contrast.abs() < MOST_CONTRAST).then(|| {
                    // Light at δ gives tanh(δ · offset / width²).
                    let scale = width2 / self.sigma_px;
                    let slope = scale / (sum * (1.0 - contrast * contrast));
                    let of_difference = 2.0 * variance * (1.0 - CORRELATION) + photons * sum;
                    let weight = 1.0 / (slope * slope * of_difference);
                    ((2 * k + 1) as f64 / n as f64 - 1.0, scale * contrast.atanh(), weight)
                })
            })
            .collect();
        parabola(&places)
    }

    /// Variance that the source's own photons give to the difference of the light per length on the outer tracks, times
    /// length, per sum of both: ∫(G₊ − G₋)² I / (∫G²)² over the light I of a trail between them.
    fn photons_of_difference(&self, width2: f64) -> f64 {
        let sigma2 = self.sigma_px.powi(2);
        let spread2 = 0.5 * sigma2 + self.trail.sigma_eff_px.powi(2);
        let normal = 1.0 / (2.0 * PI * spread2).sqrt();
        let own_less_shared = ((-0.5 * sigma2 / spread2).exp() - CORRELATION) * normal;
        // What each of them sees of the light.
        let seen = (2.0 * sigma2 / width2).sqrt() * (-0.5 * sigma2 / width2).exp();
        self.photon_variance * 2.0 * PI.sqrt() * self.sigma_px * own_less_shared / seen
    }

    /// Light in equal parts of one of the tracks.
    fn parts(&self, track: usize, n: usize) -> impl Iterator<Item = Light> {
        let Self { taken_out, sigma_px, .. } = *self;
        let segment = Self::tracks(&self.segment, sigma_px)[track];
        Track { segment, profile: &self.profiles[track], taken_out, sigma_px }.parts(n)
    }
}

/// The light on one track.
#[derive(Clone, Copy)]
pub(crate) struct Track<'a> {
    pub(crate) segment: Segment,
    pub(crate) profile: &'a TrackProfile,
    /// What had been taken out of the image before the profile was summed.
    pub(crate) taken_out: Option<&'a Trail>,
    /// PSF width of the profile.
    pub(crate) sigma_px: f64,
}

impl<'a> Track<'a> {
    /// Light in equal parts; without weight its variance is infinite.
    pub(crate) fn parts(self, n: usize) -> impl Iterator<Item = Light> + use<'a> {
        let profile = self.profile;
        let part_px = self.segment.length_px() / n as f64;
        let bins = move |k: usize| -> Range<usize> {
            let bin_at = |u: f64| ((u - profile.first_px) / profile.bin_px).ceil().max(0.0) as usize;
            let (from, to) = (bin_at(k as f64 * part_px), bin_at((k + 1) as f64 * part_px));
            let to = if k + 1 == n { profile.signal.len() } else { to.min(profile.signal.len()) };
            from.min(to)..to
        };
        (0..n).map(move |k| {
            let (mut signal, mut variance) = (0.0, 0.0);
            for bin in bins(k) {
                let weight = f64::from(profile.variance[bin]);
                let u = profile.first_px + bin as f64 * profile.bin_px;
                signal += f64::from(profile.signal[bin]) + weight * self.taken_out_at(u);
                variance += weight;
            }
            if variance > 0.0 {
                Light { per_px: signal / variance, variance: 1.0 / variance }
            } else {
                Light { per_px: 0.0, variance: f64::INFINITY }
            }
        })
    }

    /// The profile with what had been taken out.
    pub(crate) fn whole(&self) -> TrackProfile {
        let mut whole = self.profile.clone();
        for (bin, (signal, weight)) in whole.signal.iter_mut().zip(&whole.variance).enumerate() {
            let u = whole.first_px + bin as f64 * whole.bin_px;
            *signal += (f64::from(*weight) * self.taken_out_at(u)) as f32;
        }
        whole
    }

    /// Light per length in each bin of the profile, as it would see a trail.
    pub(crate) fn light_of(&self, trail: &Trail) -> Vec<f64> {
        let TrackProfile { bin_px, first_px, ref signal, .. } = *self.profile;
        (0..signal.len()).map(|bin| self.light_at(first_px + bin as f64 * bin_px, trail)).collect()
    }

    /// Light per length, as the profile would have seen it, of what had been taken out.
    fn taken_out_at(&self, u: f64) -> f64 {
        self.taken_out.map_or(0.0, |trail| self.light_at(u, trail))
    }

    /// Light per length of a trail, as the profile would see it.
    fn light_at(&self, u: f64, trail: &Trail) -> f64 {
        let (c, s) = self.segment.direction();
        let start = self.segment.start;
        let (along, across) = trail.segment.along_across(Point::new(start.x + u * c, start.y + u * s));
        let (length, (trail_c, trail_s)) = (trail.segment.length_px(), trail.segment.direction());
        // The profile sees what lies beside the track, where a trail at an angle is elsewhere along itself, and across.
        let beside2 = |cosine: f64| trail.sigma_eff_px.powi(2) + (self.sigma_px * cosine).powi(2);
        let (width2, end2) = (beside2(c * trail_c + s * trail_s), beside2(c * trail_s - s * trail_c));
        let step = |t: f64| 0.5 * (1.0 + libm::erf(t / (2.0 * end2).sqrt()));
        let overlap = (2.0 * self.sigma_px.powi(2) / width2).sqrt() * (-0.5 * across * across / width2).exp();
        trail.flux / length.max(1.0) * (step(along) - step(along - length)) * overlap
    }
}

/// Least squares for the last of 1, t and 1 − t².
fn parabola(places: &[(f64, f64, f64)]) -> Bend {
    if places.len() < PARTS.0 as usize {
        return Bend::UNKNOWN;
    }
    let mean = |value: &dyn Fn(f64) -> f64| -> f64 {
        let total: f64 = places.iter().map(|(t, _, w)| w * value(*t)).sum();
        total / places.iter().map(|(_, _, w)| w).sum::<f64>()
    };
    let middle = mean(&|t| t);
    let spread = mean(&|t| (t - middle).powi(2));
    let bow = |t: f64| 1.0 - t * t;
    let (level, slope) = (mean(&bow), mean(&|t| (t - middle) * bow(t)) / spread);
    // What of the bow no straight line takes.
    let rest = |t: f64| bow(t) - level - slope * (t - middle);
    let power: f64 = places.iter().map(|(t, _, w)| w * rest(*t).powi(2)).sum();
    let sagitta_px = places.iter().map(|(t, v, w)| w * rest(*t) * v).sum::<f64>() / power;
    if power > 0.0 { Bend { sagitta_px, err_px: 1.0 / power.sqrt() } } else { Bend::UNKNOWN }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGMA: f64 = 1.5;

    /// A trail of 100 px along x whose light per length, and place across, are given; unit variance in every bin.
    fn measure(light: impl Fn(f64) -> f64, across: impl Fn(f64) -> f64, snr: f64) -> (LightCurve, Bend) {
        let segment = Segment::from_coordinates(10.0, 50.0, 110.0, 50.0);
        let trail = Trail { segment, flux: 100.0, background: 0.0, sigma_eff_px: SIGMA };
        let profiles = [-SIGMA, 0.0, SIGMA].map(|offset| {
            let seen = |u: f64| light(u) * (-0.25 * ((across(u) - offset) / SIGMA).powi(2)).exp();
            let signal = (0..=100).map(|u| seen(f64::from(u)) as f32).collect();
            TrackProfile { bin_px: 1.0, first_px: 0.0, signal, variance: vec![1.0; 101] }
        });
        let shape = AlongTrack {
            segment,
            trail: &trail,
            taken_out: None,
            sigma_px: SIGMA,
            profiles: &profiles,
            snr,
            photon_variance: 0.0,
        };
        (shape.light_curve(), shape.bend())
    }

    #[test]
    fn light_is_binned_along_the_track() {
        let (curve, bend) = measure(|u| if u < 50.0 { 4.0 } else { 1.0 }, |_| 0.3, 100.0);
        assert_eq!(curve.flux_per_px.len(), 33);
        assert!((curve.bin_px - 100.0 / 33.0).abs() < 1e-9);
        // A hundredth is lost 0.3 px beside the track.
        assert!((curve.flux_per_px[3] - 4.0).abs() < 0.06 && (curve.flux_per_px[25] - 1.0).abs() < 0.02);
        assert!((curve.flux_per_px_err[5] - (1.0 / 3.0_f64).sqrt()).abs() < 0.1);
        assert!(bend.sagitta_px.abs() < 0.02 && !bend.is_clear(), "{bend:?}");
    }

    #[test]
    fn a_bow_is_measured() {
        let bow = |u: f64| 2.0 * (1.0 - (u / 50.0 - 1.0).powi(2)) - 1.0;
        let (_, bend) = measure(|_| 5.0, bow, 60.0);
        assert!((bend.sagitta_px - 2.0).abs() < 0.1 && bend.is_clear(), "{bend:?}");
        let (_, faint) = measure(|_| 0.05, bow, 0.7);
        assert_eq!(faint, Bend::UNKNOWN);
    }

    #[test]
    fn trails_at_any_angle_are_seen_as_summed_by_hand() {
        let width = 1.2;
        let normal = |v: f64, sigma: f64| (-0.5 * (v / sigma).powi(2)).exp() / (sigma * (2.0 * PI).sqrt());
        let segment = Segment::from_coordinates(10.0, 50.0, 110.0, 50.0);
        let empty = TrackProfile { bin_px: 1.0, first_px: 0.0, signal: vec![0.0; 101], variance: vec![1.0; 101] };
        let track = Track { segment, profile: &empty, taken_out: None, sigma_px: SIGMA };
        for degrees in [0.0_f64, 17.0, 45.0, 90.0] {
            let star = Segment::around(Point::new(60.0, 51.0), 25.0, degrees.to_radians());
            let trail = Trail { segment: star, flux: 50.0, background: 0.0, sigma_eff_px: width };
            let image = |x: f64, y: f64| {
                let (along, across) = star.along_across(Point::new(x, y));
                let step = |t: f64| 0.5 * (1.0 + libm::erf(t / (width * std::f64::consts::SQRT_2)));
                2.0 * (step(along) - step(along - 25.0)) * normal(across, width)
            };
            let light = track.light_of(&trail);
            for (bin, light) in light.iter().enumerate().step_by(3) {
                let over = |f: &dyn Fn(f64) -> f64| (-400..=400).map(|k| 0.02 * f(0.02 * f64::from(k))).sum::<f64>();
                let expected = over(&|v| normal(v, SIGMA) * image(10.0 + bin as f64, 50.0 + v))
                    / over(&|v| normal(v, SIGMA).powi(2));
                // The product of two steps of one pixel is one step of both, but for some hundredths near the ends.
                assert!((light - expected).abs() < 0.04 * 2.0, "{degrees} {bin}: {light} {expected}");
            }
        }
    }

    #[test]
    fn photons_move_the_place_across() {
        // A trail wider than the profiles, its photons summed by hand over both of the outer tracks.
        let width = 2.0;
        let normal = |v: f64, sigma: f64| (-0.5 * (v / sigma).powi(2)).exp() / (sigma * (2.0 * PI).sqrt());
        let over = |f: &dyn Fn(f64) -> f64| (-2000..=2000).map(|k| 0.01 * f(0.01 * f64::from(k))).sum::<f64>();
        let norm = over(&|v| normal(v, SIGMA).powi(2));
        let tracks = |v: f64| [normal(v - SIGMA, SIGMA), normal(v + SIGMA, SIGMA)].map(|g| g / norm);
        let sum = over(&|v| tracks(v).iter().sum::<f64>() * normal(v, width));
        let of_difference = over(&|v| (tracks(v)[0] - tracks(v)[1]).powi(2) * normal(v, width));
        let segment = Segment::from_coordinates(10.0, 50.0, 110.0, 50.0);
        let trail = Trail { segment, flux: 100.0, background: 0.0, sigma_eff_px: width };
        let shape = AlongTrack {
            segment,
            trail: &trail,
            taken_out: None,
            sigma_px: SIGMA,
            profiles: &[],
            snr: 100.0,
            photon_variance: 0.7,
        };
        let stated = shape.photons_of_difference(SIGMA.powi(2) + width.powi(2));
        assert!((stated / (0.7 * of_difference / sum) - 1.0).abs() < 1e-3, "{stated} {of_difference} {sum}");
    }

    #[test]
    fn what_was_taken_out_is_put_back() {
        let segment = Segment::from_coordinates(10.0, 50.0, 110.0, 50.0);
        let trail = Trail { segment, flux: 300.0, background: 0.0, sigma_eff_px: SIGMA };
        let empty = TrackProfile { bin_px: 1.0, first_px: 0.0, signal: vec![0.0; 101], variance: vec![1.0; 101] };
        let profiles = [empty.clone(), empty.clone(), empty];
        let shape = AlongTrack {
            segment,
            trail: &trail,
            taken_out: Some(&trail),
            sigma_px: SIGMA,
            profiles: &profiles,
            snr: 30.0,
            photon_variance: 0.0,
        };
        let curve = shape.light_curve();
        assert!((curve.flux_per_px[10] - 3.0).abs() < 0.01, "{:?}", curve.flux_per_px);
    }
}
