//! The frame, or a part of it, along the direction in which the stars trail: light on tracks side by side.
//!
//! With the stars' common vector known a star is one template, and its S/N at every place a sum along a track. Stars
//! are taken out of these sums as they are found, which costs next to nothing, and leave the image as it is. Method:
//! docs/algorithm.md, "Stars that trail".

mod light;
mod places;
mod slabs;
mod tracks;

pub(crate) use places::Peaks;
pub(crate) use tracks::Crossing;

use std::ops::Range;

use rayon::prelude::*;

use crate::backend::TrackProfile;
use crate::geometry::{Point, Segment};
use crate::pipeline::measure::Trail;

/// A template reaches so many PSF widths beyond its ends.
pub(crate) const REACH_SIGMAS: f64 = 3.0;

/// The light of a source is taken out to so many PSF widths: the two profiles' product is 1e-4 of its maximum there.
const SPREAD_SIGMAS: f64 = 6.0;

/// How far a star is moved when its neighbours have been taken out, in PSF widths.
const STRAY_SIGMAS: f64 = 1.5;

/// Bins asked of a backend at once, or looked at in strips: what they need stays below a few tens of MB.
pub(crate) const BINS_AT_ONCE: usize = 1 << 20;

/// Light on tracks side by side. `u` runs along them, `v` across, both from the strip's middle.
pub(crate) struct Strip {
    pub(crate) sigma_px: f64,
    pub(crate) star_px: f64,
    middle: Point,
    direction: (f64, f64),
    bin_px: f64,
    step_px: f64,
    tracks: Vec<Track>,
    /// Light of a star of unit density in the bins from its first on.
    shape: Vec<f32>,
    /// Σ over the bins of a star's squared light, at usual noise.
    usual_power: f64,
}

struct Track {
    across_px: f64,
    /// `u` of the first bin's centre.
    first_px: f64,
    signal: Vec<f32>,
    variance: Vec<f32>,
    /// Light per length that has been taken out of the signal.
    taken: Vec<f32>,
    /// A star's light from each bin on, and its variance.
    light: Vec<f32>,
    power: Vec<f32>,
    /// Bins whose signal has changed since the stars' light was summed.
    changed: Range<usize>,
    /// Goes up by one with every change of what a star is measured by.
    version: u32,
}

/// A source in a strip: a star's trail, or a point where it has no length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Source {
    /// Where it begins, along and across.
    pub(crate) begin_px: f64,
    pub(crate) across_px: f64,
    pub(crate) length_px: f64,
    /// Light per length; all of it for a point.
    pub(crate) density: f64,
    pub(crate) snr: f64,
}

impl Source {
    pub(crate) fn flux(&self) -> f64 {
        if self.length_px == 0.0 { self.density } else { self.density * self.length_px }
    }
}

/// Bins of a strip around some sources, each with a weight: the inverse of its variance.
pub(crate) struct Patch {
    along_px: (f64, f64),
    across_px: (f64, f64),
    rows: Vec<PatchRow>,
}

struct PatchRow {
    track: usize,
    first: usize,
    weights: Vec<f32>,
}

impl Patch {
    /// None of a source's light lies beyond.
    pub(crate) fn holds(&self, source: &Source) -> bool {
        let (along, across) = (self.along_px, self.across_px);
        source.begin_px > along.0
            && source.begin_px + source.length_px < along.1
            && (across.0..=across.1).contains(&source.across_px)
    }
}

/// How far what has been taken out can be trusted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Doubt {
    /// Variance per unit of flux from a source's own photons.
    pub(crate) photon_variance: f64,
    /// Part of a model's light by which the model may be wrong.
    pub(crate) model_error: f64,
}

/// Part of its light by which a model may be wrong as long as another source hides in it.
const BLEND_ERROR: f64 = 0.1;

impl Doubt {
    pub(crate) const NONE: Self = Self { photon_variance: 0.0, model_error: 0.0 };

    /// While sources are told from each other: one has taken part of the light of another that it hides.
    pub(crate) fn among_blends(&self) -> Self {
        Self { model_error: self.model_error.max(BLEND_ERROR), ..*self }
    }
}

impl Strip {
    fn new(
        mut tracks: Vec<Track>,
        middle: Point,
        direction: (f64, f64),
        bin_px: f64,
        step_px: f64,
        sigma_px: f64,
        star_px: f64,
    ) -> Self {
        let n = ((star_px + 2.0 * REACH_SIGMAS * sigma_px) / bin_px).ceil() as usize;
        let shape = light::along(-REACH_SIGMAS * sigma_px, bin_px, n, star_px, sigma_px);
        let shape2: Vec<f32> = shape.iter().map(|m| m * m).collect();
        tracks.par_iter_mut().for_each(|t| {
            let n_places = (t.signal.len() + 1).saturating_sub(n);
            (t.power, t.light) = (vec![0.0; n_places], vec![0.0; n_places]);
            light::correlate(&shape2, &t.variance, &mut t.power);
            light::correlate(&shape, &t.signal, &mut t.light);
        });
        let mut powers: Vec<f32> =
            tracks.iter().filter_map(|t| t.power.get(t.power.len() / 2).copied()).filter(|p| *p > 0.0).collect();
        powers.sort_unstable_by(f32::total_cmp);
        let usual_power = powers.get(powers.len() / 2).map_or(1.0, |p| f64::from(*p));
        Self { sigma_px, star_px, middle, direction, bin_px, step_px, tracks, shape, usual_power }
    }

    /// Where a source lies in the frame.
    pub(crate) fn segment(&self, source: &Source) -> Segment {
        let at = |u: f64| {
            let ((c, s), v) = (self.direction, source.across_px);
            Point::new(self.middle.x + u * c - v * s, self.middle.y + u * s + v * c)
        };
        Segment::new(at(source.begin_px), at(source.begin_px + source.length_px))
    }

    /// What a star explains that has been taken out: how much its light would add to the sum of squares.
    pub(crate) fn power_of(&mut self, star: &Source) -> f64 {
        self.sum_again();
        let t = self.nearest_track(star.across_px);
        let b = self.tracks[t].bin_at(star.begin_px - REACH_SIGMAS * self.sigma_px, self.bin_px);
        let (left, power) = (f64::from(self.tracks[t].light[b]), f64::from(self.tracks[t].power[b]));
        star.density * (2.0 * left + star.density * power)
    }

    /// The bins around some sources, with their noise as the doubt about what has been taken out makes it now.
    pub(crate) fn patch_around(&self, sources: &[Source], doubt: &Doubt) -> Patch {
        let reach = REACH_SIGMAS * self.sigma_px;
        let least = |of: fn(&Source) -> f64| sources.iter().map(of).fold(f64::INFINITY, f64::min);
        let most = |of: fn(&Source) -> f64| sources.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
        let along_px = (least(|s| s.begin_px), most(|s| s.begin_px + s.length_px));
        let across_px = (least(|s| s.across_px), most(|s| s.across_px));
        let middle = 0.5 * (across_px.0 + across_px.1);
        let noise = self.noise_with(doubt);
        let rows = self.tracks_near(middle, (across_px.1 - middle) / self.sigma_px + REACH_SIGMAS).map(|t| {
            let track = &self.tracks[t];
            let last = track.bin_at(along_px.1 + reach, self.bin_px).min(track.signal.len());
            let first = track.bin_at(along_px.0 - reach, self.bin_px).min(last);
            let weight = |bin: usize| {
                let variance = track.variance[bin];
                if variance > 0.0 { (variance * noise(variance, track.taken[bin])).recip() } else { 0.0 }
            };
            PatchRow { track: t, first, weights: (first..last).map(weight).collect() }
        });
        Patch { along_px: (along_px.0 - reach, along_px.1 + reach), across_px, rows: rows.collect() }
    }

    /// χ² of what is left of the light in a patch.
    pub(crate) fn misfit(&self, patch: &Patch) -> f64 {
        let of_row = |row: &PatchRow| -> f64 {
            let signal = &self.tracks[row.track].signal[row.first..];
            signal.iter().zip(&row.weights).map(|(s, w)| f64::from(s * s * w)).sum()
        };
        // Tracks side by side see the same light: that of one source counts √(2π) σ / step times.
        let times = std::f64::consts::TAU.sqrt() * self.sigma_px / self.step_px;
        patch.rows.iter().map(of_row).sum::<f64>() / times
    }

    /// Adds `factor` times a source to the light of all tracks: −1 takes it out.
    pub(crate) fn add(&mut self, source: &Source, factor: f64) {
        self.spread(source, factor, |track, bins, light| {
            let changed = track.signal[bins.clone()].iter_mut().zip(&track.variance[bins.clone()]);
            for (((signal, variance), taken), light) in changed.zip(&mut track.taken[bins.clone()]).zip(light) {
                *signal += light * variance;
                *taken -= light;
            }
            let before = std::mem::take(&mut track.changed);
            let both = before.start.min(bins.start)..before.end.max(bins.end);
            track.changed = if before.is_empty() { bins } else { both };
        });
    }

    /// Sums the stars' light anew where it has changed: not before it is asked for, since most sources that are taken out
    /// are put back first.
    fn sum_again(&mut self) {
        let shape = &self.shape;
        self.tracks.par_iter_mut().with_min_len(TRACKS_AT_ONCE).for_each(|track| track.sum_again(shape));
    }

    /// Counts the doubt about a source that was taken out of the image.
    pub(crate) fn doubt_about(&mut self, source: &Source) {
        self.spread(source, 1.0, |track, bins, light| {
            track.taken[bins].iter_mut().zip(light).for_each(|(taken, light)| *taken += light);
            track.version += 1;
        });
    }

    /// Hands every track the bins that a source lights, and its light per length there, `factor` times.
    fn spread(&mut self, source: &Source, factor: f64, change: impl Fn(&mut Track, Range<usize>, &[f32])) {
        let spread = SPREAD_SIGMAS * self.sigma_px;
        for t in self.tracks_near(source.across_px, SPREAD_SIGMAS) {
            let apart = (self.tracks[t].across_px - source.across_px) / self.sigma_px;
            // Two transverse profiles side by side.
            let density = (factor * source.density * (-0.25 * apart * apart).exp()) as f32;
            let track = &mut self.tracks[t];
            let end_px = source.begin_px + source.length_px + spread;
            let to = (track.bin_at(end_px, self.bin_px) + 1).min(track.signal.len());
            let from = track.bin_at(source.begin_px - spread, self.bin_px).min(to);
            let begin_px = track.first_px + from as f64 * self.bin_px - source.begin_px;
            let mut light = light::along(begin_px, self.bin_px, to - from, source.length_px, self.sigma_px);
            light.iter_mut().for_each(|light| *light *= density);
            change(track, from..to, &light);
        }
    }

    /// A trail as one of the stars' vector.
    pub(crate) fn source(&self, trail: &Trail) -> Source {
        let (c, s) = self.direction;
        let middle = trail.segment.midpoint();
        let (dx, dy) = (middle.x - self.middle.x, middle.y - self.middle.y);
        let (length_px, flux) = (trail.segment.length_px(), trail.flux);
        // By its middle: it may be turned a little from the stars' vector, and begin at either end.
        let (begin_px, across_px) = (dx * c + dy * s - 0.5 * length_px, dy * c - dx * s);
        Source { begin_px, across_px, length_px, density: flux / length_px, snr: 0.0 }
    }

    /// Scatter of the S/N of stars over all places, which is one in white noise.
    pub(crate) fn scatter(&mut self) -> f64 {
        self.sum_again();
        let strip = &*self;
        let every = (strip.shape.len() / 2).max(1);
        let of_track = |(t, track): (usize, &Track)| -> Vec<f64> {
            let is_whole = |b: &usize| f64::from(track.power[*b]) > 0.5 * strip.usual_power;
            (0..track.light.len()).step_by(every).filter(is_whole).map(|b| strip.snr_at((t, b)).abs()).collect()
        };
        let mut snrs: Vec<f64> = strip.tracks.par_iter().enumerate().flat_map_iter(of_track).collect();
        if snrs.is_empty() {
            return 1.0;
        }
        let middle = snrs.len() / 2;
        // Median of |x| of the unit normal distribution.
        *snrs.select_nth_unstable_by(middle, f64::total_cmp).1 / 0.6745
    }

    fn snr_at(&self, (t, b): (usize, usize)) -> f64 {
        let power = f64::from(self.tracks[t].power[b]);
        if power > 0.0 { f64::from(self.tracks[t].light[b]) / power.sqrt() } else { 0.0 }
    }

    /// Density and S/N of a star at a cell.
    fn measure(&self, (t, b): (usize, usize), doubt: &Doubt) -> (f64, f64) {
        self.matched(&self.tracks[t], &self.shape, b, doubt)
    }

    /// Density and S/N of a shape from a bin on. Bins count by their noise, that of the doubt about what has been taken
    /// out there included.
    fn matched(&self, track: &Track, shape: &[f32], first: usize, doubt: &Doubt) -> (f64, f64) {
        let bins = first..first + shape.len();
        let (mut light, mut power) = (0.0_f32, 0.0_f32);
        let bins = track.signal[bins.clone()].iter().zip(&track.variance[bins.clone()]).zip(&track.taken[bins]);
        let noise = self.noise_with(doubt);
        for (m, ((signal, variance), taken)) in shape.iter().zip(bins) {
            let noise = noise(*variance, *taken);
            light += m * signal / noise;
            power += m * m * variance / noise;
        }
        let (light, power) = (f64::from(light), f64::from(power));
        if power > 0.0 { (light / power, light / power.sqrt()) } else { (0.0, 0.0) }
    }

    /// Variance of a bin over that of the sky, by the sky's and by the light per length that has been taken out of it.
    fn noise_with(&self, doubt: &Doubt) -> impl Fn(f32, f32) -> f32 + use<> {
        // A bin's variance is that of a pixel times Σ G² = 1 / (2√π σ); the mean of G weighted by G² is 1 / (√(3π) σ).
        let photons = (doubt.photon_variance * (4.0_f64 / 3.0).sqrt()) as f32;
        // A wrong model is wrong in the same way over some length, where noise would average.
        let coherent = 2.0 * std::f64::consts::PI.sqrt() * self.sigma_px / self.bin_px;
        let wrong = (doubt.model_error.powi(2) * coherent) as f32;
        move |variance, taken| 1.0 + variance * (photons * taken.abs() + wrong * taken * taken)
    }

    /// The track nearest to `v`; the first or the last where it lies beyond.
    fn nearest_track(&self, across_px: f64) -> usize {
        let first = self.tracks.first().map_or(0.0, |t| t.across_px);
        let at = ((across_px - first) / self.step_px).round().max(0.0) as usize;
        at.min(self.tracks.len().saturating_sub(1))
    }

    fn tracks_near(&self, across_px: f64, sigmas: f64) -> Range<usize> {
        let first = self.tracks.first().map_or(0.0, |t| t.across_px);
        let at = |v: f64| ((v - first) / self.step_px).max(0.0);
        let reach = sigmas * self.sigma_px;
        let n = self.tracks.len();
        (at(across_px - reach).ceil() as usize).min(n)..(at(across_px + reach).floor() as usize + 1).min(n)
    }
}

/// Fewer tracks are not worth waking another core for.
const TRACKS_AT_ONCE: usize = 64;

impl Track {
    fn new(across_px: f64, from_px: f64, profile: TrackProfile) -> Self {
        let TrackProfile { first_px, signal, variance, .. } = profile;
        let taken = vec![0.0; signal.len()];
        let (light, power) = (Vec::new(), Vec::new());
        Self {
            across_px,
            first_px: from_px + first_px,
            signal,
            variance,
            taken,
            light,
            power,
            changed: 0..0,
            version: 0,
        }
    }

    /// The bin nearest to `u`; the first where it lies before all.
    fn bin_at(&self, u: f64, bin_px: f64) -> usize {
        ((u - self.first_px) / bin_px).round().max(0.0) as usize
    }

    fn sum_again(&mut self, shape: &[f32]) {
        let changed = std::mem::take(&mut self.changed);
        let to = changed.end.min(self.light.len());
        let from = changed.start.saturating_sub(shape.len() - 1).min(to);
        self.version += u32::from(from < to);
        light::correlate(shape, &self.signal[from..], &mut self.light[from..to]);
    }
}

#[cfg(test)]
pub(crate) mod sample {
    use super::*;

    pub(crate) const SIGMA: f64 = 1.5;
    pub(crate) const STAR: f64 = 30.0;

    /// Seventeen tracks: see [`strip_of`].
    pub(crate) fn strip(stars: &[(f64, f64, f64)]) -> Strip {
        strip_of(8, stars)
    }

    /// Tracks of 120 bins, a PSF width apart, so many on either side of the middle one, with stars of (begin, across,
    /// light per length) in them; variance 1.
    pub(crate) fn strip_of(tracks: i32, stars: &[(f64, f64, f64)]) -> Strip {
        let track = |row: i32| {
            let across_px = f64::from(row) * SIGMA;
            let mut signal = vec![0.0; 120];
            for (begin, across, density) in stars {
                let apart = (across_px - across) / SIGMA;
                let height = (density * (-0.25 * apart * apart).exp()) as f32;
                let light = light::along(-begin, 1.0, 120, STAR, SIGMA);
                signal.iter_mut().zip(light).for_each(|(signal, light)| *signal += height * light);
            }
            Track::new(across_px, 0.0, TrackProfile { bin_px: 1.0, first_px: 0.0, signal, variance: vec![1.0; 120] })
        };
        Strip::new((-tracks..=tracks).map(track).collect(), Point::new(0.0, 0.0), (1.0, 0.0), 1.0, SIGMA, SIGMA, STAR)
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{SIGMA, STAR, strip};
    use super::*;

    #[test]
    fn what_is_taken_out_leaves_nothing_but_doubt() {
        let mut strip = strip(&[(40.5, 0.0, 30.0)]);
        let star = strip.best_star().unwrap();
        strip.add(&star, -1.0);
        assert!((strip.power_of(&star) - star.snr.powi(2)).abs() < 0.01 * star.snr.powi(2));
        assert!(strip.best_star().is_none_or(|s| s.snr < 0.05 * star.snr));
        // Half as far along a second star is half hidden, and counts by its other half.
        let second = Source { begin_px: star.begin_px + 0.5 * STAR, density: 3.0, ..star };
        strip.add(&second, 1.0);
        let doubt = Doubt { photon_variance: 0.0, model_error: 0.1 };
        let [sure, unsure] = [Doubt::NONE, doubt].map(|doubt| strip.best_near(&second, &doubt).unwrap());
        assert!((sure.snr / (3.0 * STAR.sqrt()) - 1.0).abs() < 0.1, "{sure:?}");
        // The PSF carries the first one's light some 1.5 px further.
        assert!((0.55..0.71).contains(&(unsure.snr / sure.snr)), "{sure:?} {unsure:?}");
        assert!((unsure.density / 3.0 - 1.0).abs() < 0.1, "{unsure:?}");
    }

    #[test]
    fn a_trail_may_begin_at_either_end() {
        let strip = strip(&[]);
        let source = Source { begin_px: 40.0, across_px: 2.0, length_px: STAR, density: 3.0, snr: 0.0 };
        let segment = strip.segment(&source);
        for segment in [segment, Segment::new(segment.end, segment.start)] {
            let trail = Trail { segment, flux: source.flux(), background: 0.0, sigma_eff_px: SIGMA };
            let again = strip.source(&trail);
            assert!((again.begin_px - 40.0).abs() < 1e-9 && (again.across_px - 2.0).abs() < 1e-9, "{again:?}");
            assert!((again.density - 3.0).abs() < 1e-9, "{again:?}");
        }
        let turned = Segment::around(segment.midpoint(), STAR, 0.03);
        let trail = Trail { segment: turned, flux: 1.0, background: 0.0, sigma_eff_px: SIGMA };
        assert!((strip.source(&trail).across_px - 2.0).abs() < 1e-9, "where its middle lies");
    }
}
