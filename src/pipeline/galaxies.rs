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

/// Pixels so many PSF widths around the lines take part, and px more. Of lines of one galaxy the middle of one is no further
/// from the other.
const REACH_WIDTHS: f64 = 4.0;
const REACH_PX: f64 = 3.0;

/// No model fits bright light to its noise. Of what is explained beyond this S/N a disk has to explain this part more than a
/// trail does, and two and more trails have to explain that part of all more than a disk.
const MODELLED_SNR: f64 = 20.0;
const MISFIT_SHARE: f64 = 0.005;
const MANY_SHARE: f64 = 0.05;

/// A line that still explains this part of its own S/N² beside a disk is none of the disk's.
const OWN_SHARE: f64 = 0.3;

/// A disk has a short axis where it explains so much more S/N² than one seen from its edge, 2.5 standard deviations of that
/// parameter under the frame's own PSF, and this part of all: a little more than a step of the widths below may cost.
const SHORT_AXIS_GAIN: f64 = 6.25;
const SHORT_AXIS_SHARE: f64 = 0.001;

/// Even under a PSF that is wider than the frame's by any of these factors, as it may be in places.
const PSF_WIDTHS: [f64; 4] = [1.0, 1.04, 1.08, 1.12];

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
    /// Which of the lines that are believed are galaxies, or parts of one. All are in the residual image.
    pub(crate) fn among(&self, backend: &mut dyn Backend, lines: &[Line]) -> Result<Vec<usize>> {
        let (right, bottom) = (self.frame.width() as f64 - 1.0, self.frame.height() as f64 - 1.0);
        let is_inside = |p: Point| (0.0..=right).contains(&p.x) && (0.0..=bottom).contains(&p.y);
        // A disk falls off towards the ends of a line: one has to be seen.
        let may_be_galaxy = |line: &Line| {
            let Trail { segment, .. } = line.trail;
            let is_short = segment.length_px() < MOST_WIDTHS * line.sigma_eff_px;
            line.is_believed && is_short && (is_inside(segment.start) || is_inside(segment.end))
        };
        let reach_px = REACH_WIDTHS * self.psf_sigma_eff_px + REACH_PX;
        let groups: Vec<Group> = together(lines, may_be_galaxy, reach_px)
            .into_iter()
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
        let of_galaxy = |(group, profiles): (Group, &[TrackProfile])| {
            let patch = Patch::new(&group, profiles, photon_variance, self.threshold_snr);
            let are_parts = patch.parts_of_disk(self.psf_sigma_eff_px, self.threshold_snr);
            group.members.into_iter().zip(are_parts).filter(|(_, is_part)| *is_part).map(|(i, _)| i)
        };
        Ok(seen.into_par_iter().flat_map_iter(of_galaxy).collect())
    }
}

/// Whether the middle of either lies on the other.
fn meet(a: &Segment, b: &Segment, reach_px: f64) -> bool {
    a.distance_to(b.midpoint()) < reach_px || b.distance_to(a.midpoint()) < reach_px
}

/// Sets of lines that may lie on one galaxy.
fn together(lines: &[Line], is_open: impl Fn(&Line) -> bool, reach_px: f64) -> Vec<Vec<usize>> {
    let meet = |i: usize, j: usize| meet(&lines[i].trail.segment, &lines[j].trail.segment, reach_px);
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
    /// Others that the same galaxy may have made.
    parts: Vec<Trail>,
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
        let near: Vec<&Line> = (0..lines.len())
            .filter(|i| !members.contains(i))
            .map(|i| &lines[i])
            .filter(|line| line.trail.segment.distance_to(middle) < radius_px)
            .collect();
        let is_part = |line: &&Line| {
            let meets = |t: &Trail| meet(&t.segment, &line.trail.segment, reach_px);
            line.may_be_part && trails.iter().any(meets)
        };
        let (parts, others): (Vec<&Line>, Vec<&Line>) = near.into_iter().partition(is_part);
        let [parts, others] = [parts, others].map(|lines| lines.into_iter().map(|line| line.trail).collect());
        Self { members, trails, parts, others, reach_px, rows }
    }
}

/// The pixels around some trails, with the light that these explain.
#[derive(Debug, Clone, Default)]
struct Patch {
    pixels: Vec<Pixel>,
    light: Vec<f64>,
    /// Those that may be galaxies, and parts of galaxies that explain something.
    trails: Vec<Trail>,
    n_parts: usize,
}

impl Patch {
    /// The pixels of the rows' profiles.
    fn new(group: &Group, profiles: &[TrackProfile], photon_variance: f64, threshold_snr: f64) -> Self {
        let height = INV_SQRT_TAU / ROW_WIDTH_PX;
        let mut patch = Self { trails: group.trails.clone(), ..Self::default() };
        for (row, TrackProfile { first_px, signal, variance, .. }) in group.rows.iter().zip(profiles) {
            for (k, (signal, variance)) in signal.iter().zip(variance).enumerate() {
                let place = Point::new(row.start.x + first_px + k as f64, row.start.y);
                if *variance <= 0.0 || group.trails.iter().all(|t| t.segment.distance_to(place) > group.reach_px) {
                    continue;
                }
                let light: f64 = group.trails.iter().map(|t| t.light_at(place)).sum();
                let weight = f64::from(variance / (height * height));
                patch.pixels.push(Pixel { place, value: f64::from(signal / variance * height), weight });
                patch.light.push(light);
            }
        }
        group.others.iter().for_each(|other| patch.take_out(other, photon_variance));
        group.parts.iter().for_each(|part| patch.add_part(part, threshold_snr));
        patch.pixels.iter_mut().zip(&patch.light).for_each(|(p, light)| p.add_photons(*light, photon_variance));
        patch
    }

    /// Takes out another trail, unless that makes things worse: what is no streak may have been fitted to anything.
    fn take_out(&mut self, trail: &Trail, photon_variance: f64) {
        let without = |p: &Pixel| {
            let light = trail.light_at(p.place);
            let mut rest = Pixel { value: p.value - light, ..*p };
            rest.add_photons(light, photon_variance);
            rest
        };
        let rest = Self { pixels: self.pixels.iter().map(without).collect(), ..self.clone() };
        if rest.chi2() < self.chi2() {
            *self = rest;
        }
    }

    /// Adds a trail that may be a part of a galaxy, where it explains something.
    fn add_part(&mut self, trail: &Trail, threshold_snr: f64) {
        let light = self.pixels.iter().zip(&self.light).map(|(p, light)| light + trail.light_at(p.place)).collect();
        let with = Self { light, ..self.clone() };
        if with.chi2() + threshold_snr.powi(2) < self.chi2() {
            self.light = with.light;
            self.trails.push(*trail);
            self.n_parts += 1;
        }
    }

    /// One of the trails, with all others taken out.
    fn alone(&self, k: usize) -> Self {
        let trail = self.trails[k];
        let light: Vec<f64> = self.pixels.iter().map(|p| trail.light_at(p.place)).collect();
        let of_others = self.light.iter().zip(&light).map(|(all, own)| all - own);
        let pixels = self.pixels.iter().zip(of_others).map(|(p, others)| Pixel { value: p.value - others, ..*p });
        Self { pixels: pixels.collect(), light, trails: vec![trail], n_parts: 0 }
    }

    /// χ² of the trails on a level background.
    fn chi2(&self) -> f64 {
        chi2_of(self.pixels.iter().zip(&self.light).map(|(p, light)| (p.value - light, p.weight)))
    }

    /// Which of the trails that may be galaxies are, for a disk with a short axis explains the pixels as well as trails do.
    fn parts_of_disk(&self, psf_sigma_eff_px: f64, threshold_snr: f64) -> Vec<bool> {
        let n_members = self.trails.len() - self.n_parts;
        let by_trails = self.chi2();
        let explained = chi2_of(self.pixels.iter().map(|p| (p.value, p.weight))) - by_trails;
        let misfit = MISFIT_SHARE * (explained - MODELLED_SNR.powi(2)).max(0.0);
        // Every trail beyond the first has to be significant where a disk competes.
        let forgiven = match self.trails.len() - 1 {
            0 => -misfit,
            more => (more as f64 * threshold_snr.powi(2)).max(MANY_SHARE * explained),
        };
        let start = Disk::like(&self.trails, psf_sigma_eff_px);
        let disk = start.fitted(&self.pixels, psf_sigma_eff_px);
        let has_short_axis = |widths: f64| {
            let edge_on = start.edge_on().fitted(&self.pixels, widths * psf_sigma_eff_px);
            edge_on.chi2 - disk.chi2 > SHORT_AXIS_GAIN.max(SHORT_AXIS_SHARE * explained)
        };
        let is_disk = disk.chi2 < by_trails + forgiven && PSF_WIDTHS.into_iter().all(has_short_axis);
        if self.trails.len() == 1 {
            return vec![is_disk];
        }
        if !is_disk {
            // Then one of them may be, beside the others.
            let alone = |k: usize| self.alone(k).parts_of_disk(psf_sigma_eff_px, threshold_snr)[0];
            return (0..n_members).map(alone).collect();
        }
        let is_part = |trail: &Trail| {
            let without = |p: &Pixel| Pixel { value: p.value - trail.light_at(p.place), ..*p };
            let rest: Vec<Pixel> = self.pixels.iter().map(without).collect();
            let own = chi2_of(self.pixels.iter().map(|p| (trail.light_at(p.place), p.weight)));
            let beside = disk.disk.fitted(&rest, psf_sigma_eff_px);
            disk.chi2 - beside.chi2 < (OWN_SHARE * own).max(threshold_snr.powi(2))
        };
        self.trails[..n_members].iter().map(is_part).collect()
    }
}

/// χ² of what is left, with its weights, on a level background.
fn chi2_of(left: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let weight: f64 = left.clone().map(|(_, w)| w).sum();
    let level = left.clone().map(|(v, w)| v * w).sum::<f64>() / weight;
    left.map(|(v, w)| w * (v - level).powi(2)).sum()
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
        Patch { pixels, light: explained, trails: trails.to_vec(), n_parts: 0 }
    }

    /// Which of the trails are parts of a disk, where the light is that of these trails and some other.
    fn parts_beside(trails: &[Trail], other: impl Fn(Point) -> f64) -> Vec<bool> {
        let light = |p: Point| other(p) + trails.iter().map(|t| t.light_at(p)).sum::<f64>();
        patch(light, trails).parts_of_disk(PSF, THRESHOLD_SNR)
    }

    fn is_disk_of(trails: &[Trail]) -> bool {
        parts_beside(trails, |_| 0.0).contains(&true)
    }

    /// A galaxy of S/N 50 or so, along a track.
    fn galaxy(p: Point) -> f64 {
        let (u, v) = at(0.3, 20.0, 0.0).along_across(p);
        9.0 * (-((u - 10.0).hypot(2.5 * v)) / 5.0).exp()
    }

    #[test]
    fn streaks_are_no_disks() {
        for angle_rad in [0.0, 0.3, 1.9] {
            for (length_px, snr) in [(12.0, 40.0), (20.0, 12.0), (30.0, 20.0), (50.0, 300.0)] {
                assert!(!is_disk_of(&[trail(at(angle_rad, length_px, 0.0), snr, PSF)]), "{length_px} px, {snr}");
            }
            for (length_px, snr) in [(25.0, 40.0), (30.0, 20.0), (50.0, 300.0)] {
                let defocused = trail(at(angle_rad, length_px, 0.0), snr, 2.0 * PSF);
                assert!(!is_disk_of(&[defocused]), "defocused, {length_px} px, {snr}");
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
        for widths in [1.0, 1.02, 1.05, 1.07, 1.1] {
            for times in [1.0, 2.0, 6.0] {
                let track = at(0.3, 16.0, 0.0);
                let flash = |part: f64, snr: f64| trail(Segment::around(track.at(part), 5.0, 0.3), snr, widths * PSF);
                let flashes = [flash(0.1, 15.0 * times), flash(0.5, 30.0 * times), flash(0.9, 12.0 * times)];
                let even = [trail(track, 33.0 * times, widths * PSF)];
                let patch = patch(|p| flashes.iter().map(|t| t.light_at(p)).sum(), &even);
                assert_eq!(patch.parts_of_disk(PSF, THRESHOLD_SNR), [false], "{widths}, {times}");
            }
        }
    }

    #[test]
    fn lines_on_a_galaxy_are_a_disk() {
        let parts = |trails: &[Trail]| patch(galaxy, trails).parts_of_disk(PSF, THRESHOLD_SNR);
        let one = trail(at(0.3, 18.0, 0.0), 45.0, 1.6 * PSF);
        assert_eq!(parts(&[one]), [true]);
        let several = [one, trail(at(0.3, 30.0, 4.0), 6.0, PSF), trail(at(1.3, 15.0, 0.0), 5.0, PSF)];
        assert_eq!(parts(&several), [true; 3]);
    }

    #[test]
    fn a_streak_on_a_galaxy_is_none_of_it() {
        let line = trail(at(0.3, 18.0, 0.0), 45.0, 1.6 * PSF);
        let mut n_lines = 0;
        for (angle_rad, across_px) in [(1.4, 0.0), (0.3, 9.0), (0.9, 4.0)] {
            for snr in [15.0, 30.0] {
                let streak = trail(at(angle_rad, 40.0, across_px), snr, PSF);
                let light = |p: Point| galaxy(p) + streak.light_at(p);
                let parts = patch(light, &[line, streak]).parts_of_disk(PSF, THRESHOLD_SNR);
                assert!(!parts[1], "{angle_rad}, {across_px}, {snr}");
                n_lines += usize::from(!parts[0]);
            }
        }
        assert!(n_lines < 2, "the galaxy is seen beside most of them: {n_lines}");
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
        let beside = lines[2].trail.segment.moved_across(20.0);
        assert!(!meet(&lines[2].trail.segment, &beside, 9.0));
    }

    #[test]
    fn what_was_fitted_to_anything_is_not_taken_out() {
        let streak = trail(at(0.3, 30.0, 0.0), 30.0, PSF);
        let other = trail(at(1.4, 30.0, 0.0), 20.0, PSF);
        let mut patch = patch(|p| streak.light_at(p) + other.light_at(p), &[streak]);
        let before = patch.chi2();
        patch.take_out(&Trail { flux: -1e6, ..other }, 0.0);
        assert_eq!(patch.chi2(), before);
        patch.take_out(&other, 0.0);
        assert!(patch.chi2() < before - 200.0, "{} {before}", patch.chi2());
    }
}
