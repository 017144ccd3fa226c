//! The light along a track, and what a trail and points explain of it.

use std::ops::Range;

use super::ChainPrior;
use crate::backend::TrackProfile;

/// Point sources tried at most on one track.
const MOST_POINTS: usize = 40;

/// Light along a track, bin by bin: `signal` is the data times the template and inverse variance, `variance` that of
/// the signal, so that an amplitude is the one over the other.
pub(super) struct Track {
    pub(super) signal: Vec<f64>,
    pub(super) variance: Vec<f64>,
    /// Place of the first bin, and width of each, px from the trail's start.
    pub(super) first_px: f64,
    pub(super) bin_px: f64,
    pub(super) prior: ChainPrior,
    /// A point source: its light in the bins around its own.
    point: Vec<f64>,
    /// Variance of a point source's amplitude at every bin.
    point_variance: Vec<f64>,
}

/// What points explain of a signal.
pub(super) struct Points {
    /// Their light, and what of the signal it leaves.
    pub(super) light: Vec<f64>,
    pub(super) rest: Vec<f64>,
    pub(super) count: usize,
    /// Their bins, and the S/N² that each had won when it was taken.
    pub(super) taken: Vec<(usize, f64)>,
}

impl Track {
    /// Of a trail that begins `beyond_px` after the profile does.
    pub(super) fn new(profile: &TrackProfile, beyond_px: f64, prior: &ChainPrior) -> Self {
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|v| f64::from(*v)).collect() };
        let (signal, variance) = (wide(&profile.signal), wide(&profile.variance));
        Self::of(signal, variance, profile.first_px - beyond_px, profile.bin_px, prior)
    }

    pub(super) fn of(signal: Vec<f64>, variance: Vec<f64>, first_px: f64, bin_px: f64, prior: &ChainPrior) -> Self {
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
    pub(super) fn even_trail(&self, length_px: f64) -> Vec<f64> {
        // Most bins are further from either end than light is spread.
        let step = |t: f64| match t / (self.prior.sigma_px * std::f64::consts::SQRT_2) {
            t if t > DONE => 1.0,
            t if t < -DONE => 0.0,
            t => 0.5 * (1.0 + libm::erf(t)),
        };
        self.places().map(|u| step(u) - step(u - length_px)).collect()
    }

    /// Amplitude with which a shape explains most of what other light leaves.
    pub(super) fn amplitude(&self, shape: &[f64], other: &[f64]) -> f64 {
        let weight: f64 = shape.iter().zip(&self.variance).map(|(g, v)| g * g * v).sum();
        let fitted: f64 = (0..shape.len()).map(|b| shape[b] * (self.signal[b] - self.variance[b] * other[b])).sum();
        if weight > 0.0 { (fitted / weight).max(0.0) } else { 0.0 }
    }

    pub(super) fn explained_by_trail(&self, shape: &[f64]) -> f64 {
        let amplitude = self.amplitude(shape, &vec![0.0; shape.len()]);
        (0..shape.len()).map(|b| amplitude * shape[b] * self.signal[b]).sum()
    }

    /// The even trail, and points, in turns.
    pub(super) fn explained_by_trail_and_points(&self, shape: &[f64]) -> f64 {
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
    pub(super) fn explained(&self, light: &[f64], points: &Points) -> f64 {
        let power: f64 = (0..light.len()).map(|b| light[b] * (self.signal[b] + points.rest[b])).sum();
        power - points.count as f64 * self.prior.point_price
    }

    /// S/N² explained by a trail whose brightness varies from piece to piece, less the price of its pieces.
    pub(super) fn explained_piecewise(&self, length_px: f64) -> f64 {
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
    pub(super) fn take_points(&self, signal: Vec<f64>) -> Points {
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
