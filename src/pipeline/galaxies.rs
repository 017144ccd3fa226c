//! Galaxies among the lines that pass for streaks: one disk explains their light as well as the trails do.
//!
//! Method: docs/algorithm.md, "Judge".

use std::ops::RangeInclusive;

use rayon::prelude::*;

use crate::Result;
use crate::backend::{Backend, TrackProfile};
use crate::frame::Frame;
use crate::gauss::INV_SQRT_TAU;
use crate::geometry::{Point, Segment};
use crate::pipeline::disk::{Disk, Pixel};
use crate::pipeline::measure::Trail;

/// Longer lines, in their own widths, are no galaxies.
const MOST_WIDTHS: f64 = 40.0;

/// Pixels so many PSF widths around the lines take part, and px more. Lines whose middles are no further from each other,
/// and half the length of the longer one, may be of one galaxy.
const REACH_WIDTHS: f64 = 4.0;
const REACH_PX: f64 = 3.0;

/// No model fits bright light to its noise: of what is beyond this S/N a disk explains this part more than a trail, and two
/// and more trails have to explain that part of all more than a disk, at least.
const MODELLED_SNR: f64 = 20.0;
const DISK_SHARE: f64 = 0.005;
const MANY_SHARE: f64 = 0.05;

/// A disk has a short axis where it explains so much more S/N² than one seen from its edge: twice the error of that.
const SHORT_AXIS_GAIN: f64 = 4.0;

/// Even under a PSF that is wider than the frame's by this factor, as it may be in places.
const WIDEST_PSF: f64 = 1.12;

/// A line that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) trail: Trail,
    pub(crate) sigma_eff_px: f64,
    pub(crate) is_believed: bool,
    /// It is not believed, and may be what a galaxy made.
    pub(crate) may_be_part: bool,
}

/// Where galaxies are looked for.
pub(crate) struct Search<'a> {
    pub(crate) frame: &'a Frame<'a>,
    pub(crate) psf_sigma_eff_px: f64,
    /// What a streak needs to be significant.
    pub(crate) threshold_snr: f64,
}

impl Search<'_> {
    /// Which of the lines are galaxies, or parts of one with some that are believed. All are in the residual image.
    pub(crate) fn among(&self, backend: &mut dyn Backend, lines: &[Line]) -> Result<Vec<usize>> {
        // A disk falls off towards the ends of a line: one has to be seen.
        let (right, bottom) = (self.frame.width() as f64 - 1.0, self.frame.height() as f64 - 1.0);
        let is_inside = |p: Point| (0.0..=right).contains(&p.x) && (0.0..=bottom).contains(&p.y);
        let is_open = |line: &Line| {
            let Trail { segment, .. } = line.trail;
            let is_short = segment.length_px() < MOST_WIDTHS * line.sigma_eff_px;
            is_short && (is_inside(segment.start) || is_inside(segment.end)) && (line.is_believed || line.may_be_part)
        };
        let reach_px = REACH_WIDTHS * self.psf_sigma_eff_px + REACH_PX;
        let groups: Vec<Group> = together(lines, is_open, reach_px)
            .into_iter()
            .filter(|members| members.iter().any(|&i| lines[i].is_believed))
            .map(|members| Group::new(lines, members, reach_px, self.frame))
            .collect();
        let rows: Vec<Segment> = groups.iter().flat_map(|group| group.rows.clone()).collect();
        let profiles = backend.profiles(&rows, ROW_WIDTH_PX)?;
        let mut rest = profiles.as_slice();
        let mut seen = Vec::with_capacity(groups.len());
        for group in groups {
            let (own, others) = rest.split_at(group.rows.len().min(rest.len()));
            seen.push((group, own));
            rest = others;
        }
        let photon_variance = self.frame.gain_e_per_adu().map_or(0.0, |g| 1.0 / g);
        let is_galaxy = |(group, profiles): &(Group, &[TrackProfile])| {
            let patch = group.patch(profiles, photon_variance);
            patch.is_disk(&group.trails, self.psf_sigma_eff_px, self.threshold_snr)
        };
        Ok(seen.into_par_iter().filter(is_galaxy).flat_map_iter(|(group, _)| group.members).collect())
    }
}

/// Sets of lines that may lie on one galaxy.
fn together(lines: &[Line], is_open: impl Fn(&Line) -> bool, reach_px: f64) -> Vec<Vec<usize>> {
    let meet = |i: usize, j: usize| {
        let (a, b) = (&lines[i].trail.segment, &lines[j].trail.segment);
        a.midpoint().distance(b.midpoint()) < 0.5 * a.length_px().max(b.length_px()) + reach_px
    };
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in (0..lines.len()).filter(|&i| is_open(&lines[i])) {
        let (met, mut apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(|g| g.iter().any(|&j| meet(i, j)));
        apart.push(met.into_iter().flatten().chain([i]).collect());
        groups = apart;
    }
    groups
}

/// Lines that may be one galaxy, and where to look.
struct Group {
    members: Vec<usize>,
    trails: Vec<Trail>,
    /// Those whose light may fall on the pixels.
    others: Vec<Trail>,
    reach_px: f64,
    /// Tracks along the rows of pixels around it.
    rows: Vec<Segment>,
}

/// So narrow a track along a row sees that row alone.
const ROW_WIDTH_PX: f32 = 0.05;

impl Group {
    fn new(lines: &[Line], members: Vec<usize>, reach_px: f64, frame: &Frame<'_>) -> Self {
        let trails: Vec<Trail> = members.iter().map(|&i| lines[i].trail).collect();
        let around = |of: fn(Point) -> f64, size: usize| -> RangeInclusive<f64> {
            let ends = trails.iter().flat_map(|t| [of(t.segment.start), of(t.segment.end)]);
            let (first, last) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
            (first - reach_px).floor().max(0.0)..=(last + reach_px).ceil().min(size as f64 - 1.0)
        };
        let (columns, heights) = (around(|p| p.x, frame.width()), around(|p| p.y, frame.height()));
        let row = |y: i64| Segment::from_coordinates(*columns.start(), y as f64, *columns.end(), y as f64);
        let rows = (*heights.start() as i64..=*heights.end() as i64).map(row).collect();
        let middle = Point::new(0.5 * (columns.start() + columns.end()), 0.5 * (heights.start() + heights.end()));
        let radius_px = middle.distance(Point::new(*columns.start(), *heights.start())) + reach_px;
        let is_near = |i: &usize| lines[*i].trail.segment.distance_to(middle) < radius_px;
        let others = (0..lines.len()).filter(|i| !members.contains(i)).filter(is_near);
        let others = others.map(|i| lines[i].trail).collect();
        Self { members, trails, others, reach_px, rows }
    }

    /// The pixels of the rows' profiles.
    fn patch(&self, profiles: &[TrackProfile], photon_variance: f64) -> Patch {
        let height = INV_SQRT_TAU / ROW_WIDTH_PX;
        let mut patch = Patch::default();
        for (row, TrackProfile { first_px, signal, variance, .. }) in self.rows.iter().zip(profiles) {
            for (k, (signal, variance)) in signal.iter().zip(variance).enumerate() {
                let place = Point::new(row.start.x + first_px + k as f64, row.start.y);
                if *variance <= 0.0 || self.trails.iter().all(|t| t.segment.distance_to(place) > self.reach_px) {
                    continue;
                }
                let light: f64 = self.trails.iter().map(|t| t.light_at(place)).sum();
                let sky_variance = f64::from(height * height / variance);
                let weight = 1.0 / (sky_variance + photon_variance * light.max(0.0));
                patch.pixels.push(Pixel { place, value: f64::from(signal / variance * height), weight });
                patch.light.push(light);
            }
        }
        self.others.iter().for_each(|other| patch.take_out(other));
        patch
    }
}

/// The pixels around some trails, with the light that these explain.
#[derive(Debug, Clone, Default)]
struct Patch {
    pixels: Vec<Pixel>,
    light: Vec<f64>,
}

impl Patch {
    /// Takes out another trail, unless that makes things worse: what is no streak may have been fitted to anything.
    fn take_out(&mut self, trail: &Trail) {
        let without = |p: &Pixel| Pixel { value: p.value - trail.light_at(p.place), ..*p };
        let rest = Self { pixels: self.pixels.iter().map(without).collect(), light: self.light.clone() };
        if rest.chi2() < self.chi2() {
            *self = rest;
        }
    }

    /// χ² of the trails on a level background.
    fn chi2(&self) -> f64 {
        let left = || self.pixels.iter().zip(&self.light).map(|(p, light)| (p.value - light, p.weight));
        let weight: f64 = left().map(|(_, w)| w).sum();
        let level = left().map(|(v, w)| v * w).sum::<f64>() / weight;
        left().map(|(v, w)| w * (v - level).powi(2)).sum()
    }

    /// Whether a disk with a short axis explains the pixels as well as trails do.
    fn is_disk(&self, trails: &[Trail], psf_sigma_eff_px: f64, threshold_snr: f64) -> bool {
        let by_trails = self.chi2();
        let dark = Self { pixels: self.pixels.clone(), light: vec![0.0; self.light.len()] };
        let explained = dark.chi2() - by_trails;
        // Every trail beyond the first has to be significant where a disk competes.
        let forgiven = match trails.len() - 1 {
            0 => -DISK_SHARE * (explained - MODELLED_SNR.powi(2)).max(0.0),
            more => (more as f64 * threshold_snr.powi(2)).max(MANY_SHARE * explained),
        };
        let start = Disk::like(trails, psf_sigma_eff_px);
        let disk = start.fitted(&self.pixels, psf_sigma_eff_px);
        let has_short_axis = |widths: f64| {
            let edge_on = start.edge_on().fitted(&self.pixels, widths * psf_sigma_eff_px);
            edge_on.chi2 - disk.chi2 > SHORT_AXIS_GAIN
        };
        disk.chi2 < by_trails + forgiven && [1.0, WIDEST_PSF].into_iter().all(has_short_axis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::gaussian_frame;

    const PSF: f64 = 1.5;
    const SIDE: usize = 60;
    const THRESHOLD_SNR: f64 = 6.5;

    fn trail(segment: Segment, snr: f64, sigma_eff_px: f64) -> Trail {
        let flux = snr * (2.0 * std::f64::consts::PI.sqrt() * sigma_eff_px * segment.length_px()).sqrt();
        Trail { segment, flux, background: 0.0, sigma_eff_px }
    }

    fn at(angle_rad: f64, length_px: f64, across_px: f64) -> Segment {
        Segment::around(Point::new(30.2, 29.7), length_px, angle_rad).moved_across(across_px)
    }

    /// The light on pixels of unit noise, as trails explain it.
    fn patch(light: impl Fn(Point) -> f64, trails: &[Trail]) -> Patch {
        let noise = gaussian_frame(SIDE, SIDE, 11, 1.0);
        let pixel = |(i, noise): (usize, &f32)| {
            let place = Point::new((i % SIDE) as f64, (i / SIDE) as f64);
            Pixel { place, value: light(place) + f64::from(*noise), weight: 1.0 }
        };
        let pixels: Vec<Pixel> = noise.iter().enumerate().map(pixel).collect();
        let explained = pixels.iter().map(|p| trails.iter().map(|t| t.light_at(p.place)).sum()).collect();
        Patch { pixels, light: explained }
    }

    /// Whether the light of some trails is taken for a disk, and these trails for its description.
    fn is_disk_of(trails: &[Trail]) -> bool {
        patch(|p| trails.iter().map(|t| t.light_at(p)).sum(), trails).is_disk(trails, PSF, THRESHOLD_SNR)
    }

    #[test]
    fn streaks_are_no_disks() {
        for angle_rad in [0.0, 0.3, 1.9] {
            for (length_px, snr) in [(12.0, 40.0), (20.0, 12.0), (30.0, 20.0), (50.0, 300.0)] {
                assert!(!is_disk_of(&[trail(at(angle_rad, length_px, 0.0), snr, PSF)]), "{length_px} px, {snr}");
                let defocused = trail(at(angle_rad, length_px, 0.0), snr, 2.0 * PSF);
                assert!(!is_disk_of(&[defocused]) || snr < 20.0, "defocused, {length_px} px, {snr}");
            }
        }
    }

    #[test]
    fn two_streaks_are_no_disk() {
        for snr in [15.0, 60.0] {
            let one = trail(at(0.3, 30.0, 0.0), snr, PSF);
            assert!(!is_disk_of(&[one, trail(at(1.4, 30.0, 0.0), snr, PSF)]), "crossing");
            assert!(!is_disk_of(&[one, trail(at(0.3, 30.0, 7.0), snr, PSF)]), "side by side");
        }
    }

    #[test]
    fn light_that_varies_along_a_track_is_no_disk() {
        // Three flashes of a tumbling object, where the PSF is wider than in the middle of the frame.
        for widths in [1.0, 1.1] {
            let track = at(0.3, 16.0, 0.0);
            let flash = |part: f64, snr: f64| trail(Segment::around(track.at(part), 5.0, 0.3), snr, widths * PSF);
            let flashes = [flash(0.1, 15.0), flash(0.5, 30.0), flash(0.9, 12.0)];
            let even = [trail(track, 33.0, widths * PSF)];
            let patch = patch(|p| flashes.iter().map(|t| t.light_at(p)).sum(), &even);
            assert!(!patch.is_disk(&even, PSF, THRESHOLD_SNR), "{widths}");
        }
    }

    #[test]
    fn lines_on_a_galaxy_are_a_disk() {
        // A bell twice as wide along as across is more of a disk than of a trail, or of three trails.
        let galaxy = |p: Point| {
            let (u, v) = at(0.3, 20.0, 0.0).along_across(p);
            9.0 * (-((u - 10.0).hypot(2.5 * v)) / 5.0).exp()
        };
        let one = trail(at(0.3, 18.0, 0.0), 45.0, 1.6 * PSF);
        assert!(patch(galaxy, &[one]).is_disk(&[one], PSF, THRESHOLD_SNR));
        let several = [one, trail(at(0.3, 30.0, 4.0), 6.0, PSF), trail(at(1.3, 15.0, 0.0), 5.0, PSF)];
        assert!(patch(galaxy, &several).is_disk(&several, PSF, THRESHOLD_SNR));
    }

    #[test]
    fn lines_are_put_together_with_those_that_they_touch() {
        let line = |x: f64, length_px: f64| Line {
            trail: trail(Segment::around(Point::new(x, 50.0), length_px, 0.2), 10.0, PSF),
            sigma_eff_px: PSF,
            is_believed: true,
            may_be_part: false,
        };
        let lines = [line(20.0, 10.0), line(90.0, 10.0), line(60.0, 60.0), line(200.0, 10.0)];
        let mut groups = together(&lines, |_| true, 9.0);
        groups.iter_mut().for_each(|g| g.sort_unstable());
        groups.sort();
        assert_eq!(groups, [vec![0], vec![1, 2], vec![3]]);
    }

    #[test]
    fn what_was_fitted_to_anything_is_not_taken_out() {
        let streak = trail(at(0.3, 30.0, 0.0), 30.0, PSF);
        let other = trail(at(1.4, 30.0, 0.0), 20.0, PSF);
        let mut patch = patch(|p| streak.light_at(p) + other.light_at(p), &[streak]);
        let before = patch.chi2();
        patch.take_out(&Trail { flux: -1e6, ..other });
        assert_eq!(patch.chi2(), before);
        patch.take_out(&other);
        assert!(patch.chi2() < before - 200.0, "{} {before}", patch.chi2());
    }
}
