//! Light on a track that may be a trail's, or that of star trails which lie on it.
//!
//! These have been taken out of the image, fitted as well as could be with the trail taken out as it was then. Had the trail
//! other ends, each would have more or less light, and lie elsewhere. So both are left free, as far as all pixels of the star
//! leave them. Method: docs/algorithm.md, "Measure".

use std::f64::consts::PI;

use crate::backend::TrackProfile;
use crate::geometry::Segment;
use crate::pipeline::along::{PHOTONS_ON_TRACK, Track};
use crate::pipeline::measure::{Trail, TrailFit};
use crate::pipeline::search::template_correlation;
use crate::pipeline::strip::Doubt;

/// No more than this is left free on one track.
pub(super) const MOST_FREE: usize = 16;

/// What is told by pixels elsewhere, but for this share, is known.
const LEAST_SHARE: f64 = 0.02;

/// A star that is known as badly as this without those before it is one with them.
const LEAST_OWN: f64 = 0.05;

/// Shifts that tell how a star's light changes, px.
const SHIFT_PX: f64 = 0.25;

/// Trails have light this many PSF widths beside their axes, and no more.
const REACH_WIDTHS: f64 = 4.0;

/// Trails that may have light on a track.
pub(super) fn near<'a>(track: &Segment, sigma_px: f64, stars: &'a [TrailFit]) -> impl Iterator<Item = &'a TrailFit> {
    let (track, reach_px) = (*track, REACH_WIDTHS * sigma_px);
    stars.iter().filter(move |star| {
        let [a, b] = [star.trail.segment.start, star.trail.segment.end].map(|p| track.along_across(p));
        let overlap = |a: f64, b: f64, from: f64, to: f64| a.min(b) < to + reach_px && a.max(b) > from - reach_px;
        overlap(a.0, b.0, 0.0, track.length_px()) && overlap(a.1, b.1, 0.0, 0.0)
    })
}

/// Variance that the stars' photons, and the doubt about their models, add to the light per length of each bin.
pub(super) fn variance_of(stars: &[&TrailFit], track: &Track<'_>, doubt: &Doubt) -> Vec<f64> {
    let TrackProfile { bin_px, ref signal, .. } = *track.profile;
    // A wrong model is wrong in the same way over some length, where noise would average.
    let wrong = doubt.model_error.powi(2) * 2.0 * PI.sqrt() * track.sigma_px / bin_px;
    let photons = PHOTONS_ON_TRACK * doubt.photon_variance / bin_px;
    let mut variance = vec![0.0; signal.len()];
    for star in stars {
        for (variance, light) in variance.iter_mut().zip(track.light_of(&star.trail)) {
            *variance += photons * light.max(0.0) + wrong * light * light;
        }
    }
    variance
}

/// What of the light on a track stars may have a part in.
///
/// With `W` the inverse variances of the bins, `d` their light, `b h` that of a trail, `m` that of the one which was out when
/// the stars were fitted, and `T` what a unit of each free quantity changes, of which all pixels tell `S`: the fit was best
/// with `m`, so the likelihood over all values of these is `b (h·Wd − Σ (v·h)(v·m)) − b²/2 (h·Wh − Σ (v·h)²)`, where `v`
/// are the rows of `L⁻¹ TᵀW` and `L` is the Cholesky factor of `S`.
#[derive(Debug, Default)]
pub(super) struct SharedLight {
    /// `v`, bin by bin.
    shapes: Vec<Vec<f64>>,
    /// `v·m`.
    taken_out: [f64; MOST_FREE],
}

/// The bins of a track, as far as light on it is shared.
pub(super) struct Bins<'a> {
    pub(super) track: &'a Track<'a>,
    /// Inverse variance of the noise alone, and with the photons and the doubt of all light.
    pub(super) of_sky: &'a [f64],
    pub(super) weight: &'a [f64],
    /// Those in which an end may lie.
    pub(super) may_end: &'a [bool],
}

impl SharedLight {
    /// Of some star trails on a track, fitted while another trail was taken out.
    pub(super) fn of(stars: &[&TrailFit], bins: &Bins<'_>, taken_out: Option<&Trail>) -> Self {
        let quantities = [Quantity::Flux, Quantity::Across, Quantity::Along];
        let free = stars.iter().flat_map(|star| quantities.map(|quantity| Free::of(star, quantity, bins)));
        let mut free: Vec<Free<'_>> = free.filter(|free| free.share_at_ends > LEAST_SHARE).collect();
        free.sort_by(|a, b| b.share_at_ends.total_cmp(&a.share_at_ends));
        free.truncate(MOST_FREE);
        let taken_out = taken_out.map(|trail| bins.track.light_of(trail)).unwrap_or_default();
        let mut shared = Self::default();
        // With the rows of L.
        let mut known: Vec<(Free<'_>, Vec<f64>)> = Vec::new();
        for free in free {
            let mut row: Vec<f64> = Vec::new();
            for (before, of_before) in &known {
                let in_common: f64 = row.iter().zip(of_before).map(|(a, b)| a * b).sum();
                row.push((free.told_with(before, bins.weight) - in_common) / of_before[row.len()]);
            }
            let told = free.told_with(&free, bins.weight);
            let own = told - row.iter().map(|a| a * a).sum::<f64>();
            if own < LEAST_OWN * told {
                continue;
            }
            let mut shape: Vec<f64> = free.changes.iter().zip(bins.weight).map(|(t, w)| t * w).collect();
            for (a, before) in row.iter().zip(&shared.shapes) {
                shape.iter_mut().zip(before).for_each(|(s, b)| *s -= a * b);
            }
            row.push(own.sqrt());
            shape.iter_mut().for_each(|s| *s /= own.sqrt());
            shared.taken_out[shared.shapes.len()] = shape.iter().zip(&taken_out).map(|(s, m)| s * m).sum();
            shared.shapes.push(shape);
            known.push((free, row));
        }
        shared
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }

    /// Adds `v·h` of light of some height in a bin.
    pub(super) fn add(&self, sums: &mut [f64; MOST_FREE], bin: usize, height: f64) {
        sums.iter_mut().zip(&self.shapes).for_each(|(sum, shape)| *sum += height * shape[bin]);
    }

    /// What of the signal `h·Wd` and of the power `h·Wh` is the stars'.
    pub(super) fn part_in(&self, sums: impl Iterator<Item = f64>) -> (f64, f64) {
        sums.take(self.shapes.len())
            .zip(&self.taken_out)
            .fold((0.0, 0.0), |(signal, power), (v, m)| (signal + v * m, power + v * v))
    }
}

/// What may be another in the light of a star.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Quantity {
    /// In units of the flux that was fitted.
    Flux,
    /// Place, px.
    Across,
    Along,
}

/// A quantity of a star that is left free.
struct Free<'a> {
    star: &'a TrailFit,
    quantity: Quantity,
    /// What a unit of it changes in each bin.
    changes: Vec<f64>,
    /// Inverse variance that pixels elsewhere give it.
    told_elsewhere: f64,
    /// Share of what tells it that lies where an end of the trail may.
    share_at_ends: f64,
}

impl<'a> Free<'a> {
    fn of(star: &'a TrailFit, quantity: Quantity, bins: &Bins<'_>) -> Self {
        let Trail { segment, sigma_eff_px: sigma, .. } = star.trail;
        let slope = |moved: &dyn Fn(f64) -> Segment| -> Vec<f64> {
            let light = |by_px: f64| bins.track.light_of(&Trail { segment: moved(by_px), ..star.trail });
            light(SHIFT_PX).iter().zip(light(-SHIFT_PX)).map(|(a, b)| (a - b) / (2.0 * SHIFT_PX)).collect()
        };
        // The bounds on the errors of a long trail, of either end along it: docs/algorithm.md, "Measure".
        let (changes, of_light) = match quantity {
            Quantity::Flux => (bins.track.light_of(&star.trail), 1.0),
            Quantity::Across => (slope(&|by_px| segment.moved_across(by_px)), 0.5 / sigma.powi(2)),
            Quantity::Along => {
                let of_ends = 1.0 / (PI.sqrt() * sigma * segment.length_px());
                (slope(&|by_px| segment.extended(-by_px, by_px)), of_ends)
            }
        };
        let tells = |w: &[f64], which: &dyn Fn(usize) -> bool| -> f64 {
            (0..w.len()).filter(|bin| which(*bin)).map(|bin| changes[bin] * changes[bin] * w[bin]).sum()
        };
        let (on_track, at_ends) = (tells(bins.of_sky, &|_| true), tells(bins.of_sky, &|bin| bins.may_end[bin]));
        let told = (of_light * star.snr.powi(2)).max(on_track);
        // Elsewhere photons take as much of it as here.
        let of_photons = if on_track > 0.0 { tells(bins.weight, &|_| true) / on_track } else { 0.0 };
        Self {
            star,
            quantity,
            told_elsewhere: of_photons * (told - on_track),
            share_at_ends: if told > 0.0 { at_ends / told } else { 0.0 },
            changes,
        }
    }

    /// What all pixels tell of this and another one together: stars side by side share their light. How elsewhere their
    /// places share it is left out.
    fn told_with(&self, other: &Self, weight: &[f64]) -> f64 {
        let on_track: f64 = self.changes.iter().zip(&other.changes).zip(weight).map(|((a, b), w)| a * b * w).sum();
        let [a, b] = [self, other].map(|free| &free.star.trail);
        let in_common = match (self.quantity, other.quantity) {
            (Quantity::Flux, Quantity::Flux) => template_correlation(&a.segment, &b.segment, a.sigma_eff_px),
            (one, other) if one == other && a == b => 1.0,
            _ => 0.0,
        };
        on_track + in_common * (self.told_elsewhere * other.told_elsewhere).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGMA: f64 = 1.5;
    const N: usize = 120;

    fn trail(from: f64, to: f64, per_px: f64) -> Trail {
        let segment = Segment::from_coordinates(from, 50.0, to, 50.0);
        Trail { segment, flux: per_px * (to - from), background: 0.0, sigma_eff_px: SIGMA }
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// What is left of some values without shapes of which they may have any part.
    fn without(values: &[f64], shapes: &[Vec<f64>]) -> Vec<f64> {
        let mut values = values.to_vec();
        // In turns, as the shapes are not at right angles.
        for shape in shapes.iter().cycle().take(200 * shapes.len()) {
            let part = dot(&values, shape) / dot(shape, shape);
            values.iter_mut().zip(shape).for_each(|(v, s)| *v -= part * s);
        }
        values
    }

    /// S/N² of trails that were not out, by the shared light and by a fit of all at once; the light of all stars lies on the
    /// track but for a share.
    fn check(stars: &[Trail], told_elsewhere: f64) {
        let empty = TrackProfile { bin_px: 1.0, first_px: 0.0, signal: vec![0.0; N], variance: vec![1.0; N] };
        let segment = Segment::from_coordinates(0.0, 50.0, (N - 1) as f64, 50.0);
        let track = Track { segment, profile: &empty, taken_out: None, sigma_px: SIGMA };
        let bins = Bins { track: &track, of_sky: &[1.0; N], weight: &[1.0; N], may_end: &[true; N] };
        let out = trail(20.0, 70.0, 1.5);
        // S/N of which all is seen.
        let fits: Vec<TrailFit> = stars
            .iter()
            .map(|star| {
                let light = track.light_of(star);
                TrailFit { snr: (dot(&light, &light) * (1.0 + told_elsewhere)).sqrt(), ..TrailFit::unfitted(*star) }
            })
            .collect();
        let shared = SharedLight::of(&fits.iter().collect::<Vec<_>>(), &bins, Some(&out));
        let free: Vec<Free<'_>> = fits
            .iter()
            .flat_map(|star| [Quantity::Flux, Quantity::Along].map(|quantity| Free::of(star, quantity, &bins)))
            .collect();
        assert_eq!(shared.shapes.len(), free.len(), "the axis is where light across has no slope");
        // Pixels elsewhere are bins beyond the track, one for each quantity.
        let shapes: Vec<Vec<f64>> = free
            .iter()
            .enumerate()
            .map(|(k, f)| {
                let elsewhere = (0..free.len()).map(|j| if j == k { f.told_elsewhere.sqrt() } else { 0.0 });
                f.changes.iter().copied().chain(elsewhere).collect()
            })
            .collect();
        // The stars' fit was the best with that trail out: what is left has none of their shapes.
        let noise = crate::simulate::gaussian_frame(N + free.len(), 1, 4, 1.0);
        let left = without(&noise.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), &shapes);
        let padded = |light: Vec<f64>| light.into_iter().chain(vec![0.0; free.len()]).collect::<Vec<f64>>();
        let seen: Vec<f64> = left.iter().zip(padded(track.light_of(&out))).map(|(l, m)| l + m).collect();
        for (from, to) in [(20.0, 70.0), (20.0, 60.0), (25.0, 100.0), (62.0, 80.0), (20.0, 90.0)] {
            let h = padded(track.light_of(&trail(from, to, 1.0)));
            let mut sums = [0.0; MOST_FREE];
            (0..N).for_each(|bin| shared.add(&mut sums, bin, h[bin]));
            let (of_signal, of_power) = shared.part_in(sums.into_iter());
            let gain = (dot(&h, &seen) - of_signal).powi(2) / (dot(&h, &h) - of_power);
            let (h, seen) = (without(&h, &shapes), without(&seen, &shapes));
            let expected = dot(&h, &seen).powi(2) / dot(&h, &h);
            assert!((gain / expected - 1.0).abs() < 1e-3, "{from} to {to}: {gain} {expected}");
        }
    }

    #[test]
    fn it_is_what_a_fit_of_all_at_once_leaves() {
        check(&[trail(60.0, 85.0, 4.0)], 0.0);
        check(&[trail(60.0, 85.0, 4.0), trail(74.0, 99.0, 2.0)], 0.0);
    }

    #[test]
    fn what_pixels_elsewhere_tell_is_known() {
        check(&[trail(60.0, 85.0, 4.0)], 0.5);
        check(&[trail(40.0, 55.0, 4.0), trail(80.0, 105.0, 2.0)], 3.0);
    }

    #[test]
    fn those_beside_each_other_are_less_known_and_far_ones_not_at_all() {
        let empty = TrackProfile { bin_px: 1.0, first_px: 0.0, signal: vec![0.0; N], variance: vec![1.0; N] };
        let segment = Segment::from_coordinates(0.0, 50.0, (N - 1) as f64, 50.0);
        let track = Track { segment, profile: &empty, taken_out: None, sigma_px: SIGMA };
        let star = |across: f64| {
            let trail = trail(60.0, 85.0, 4.0);
            TrailFit { snr: 30.0, ..TrailFit::unfitted(Trail { segment: trail.segment.moved_across(across), ..trail }) }
        };
        let power = |across: &[f64], may_end: bool| {
            let stars: Vec<TrailFit> = across.iter().map(|v| star(*v)).collect();
            let near: Vec<&TrailFit> = near(&segment, SIGMA, &stars).collect();
            let bins = Bins { track: &track, of_sky: &[1.0; N], weight: &[1.0; N], may_end: &[may_end; N] };
            let shared = SharedLight::of(&near, &bins, None);
            let mut sums = [0.0; MOST_FREE];
            track.light_of(&trail(20.0, 100.0, 1.0)).iter().enumerate().for_each(|(b, h)| shared.add(&mut sums, b, *h));
            shared.part_in(sums.into_iter()).1
        };
        assert_eq!((power(&[20.0], true), power(&[0.0], false)), (0.0, 0.0));
        let (one, other, both) = (power(&[0.0], true), power(&[2.5], true), power(&[0.0, 2.5], true));
        assert!(other < one && both > one && both < one + other, "{one} {other} {both}");
        let same = power(&[0.0, 0.0], true);
        assert!((same / one - 1.0).abs() < 1e-9, "{same} {one}");
    }
}
