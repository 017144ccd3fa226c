//! Fits of the merge stage: candidates are believed best first, each fitted and taken out of the residual image, and
//! those that share light are fitted again together.
//!
//! Method: docs/algorithm.md, "Merge".

use std::collections::BTreeSet;

use crate::Result;
use crate::geometry::Segment;
use crate::pipeline::believed::{Believed, Origin};
use crate::pipeline::measure::{FitRequest, FitSettings, Shape, Trail, TrailFit, UNCLIPPED_SIGMAS};
use crate::pipeline::merge::Search;
use crate::pipeline::scan::Scanned;
use crate::pipeline::search::{FAR_WIDTHS, template_correlation};
use crate::pipeline::turns::{fit_in_turns, in_order, met_before};

/// A trail is fitted again where the light along it says that an end is further off than this, in PSF widths. That fit is
/// taken if it explains so much more, in S/N², and for its length no less than this part of what the first did: what an edge
/// of light has beyond is fainter. It may be shorter to this part: a star on a trail is brighter than the whole.
const OTHER_ENDS_WIDTHS: f64 = 2.0;
const OTHER_ENDS_GAIN: f64 = 4.0;
const AS_BRIGHT: f64 = 0.8;
const LEAST_COVERED: f64 = 0.7;

/// Correlation from which two trails are fitted in turns.
const SHARED_LIGHT: f64 = 0.1;

/// The PSF width may differ from the frame's by this factor while trails are told apart: with more freedom the first
/// of two neighbours swallows the second, with less a PSF 5 % off leaves false extras beside every bright streak.
const WIDTH_FREEDOM: f64 = 1.08;

impl Search<'_> {
    pub(crate) fn peel_settings(&self) -> FitSettings {
        let sigma = self.sigma();
        FitSettings {
            shape: Shape::Trail,
            free_background: false,
            free_sigma: true,
            sigma_range: (sigma / WIDTH_FREEDOM, sigma * WIDTH_FREEDOM),
            sigma_prior: None,
            reach_px: 5.0 * sigma + 2.0,
            photon_variance: self.photon_variance,
            clip_sigmas: UNCLIPPED_SIGMAS,
            max_iterations: 20,
        }
    }

    /// Believes the refined candidates best first, those that cannot disturb each other together.
    pub(crate) fn peel(&mut self, refined: &[TrailFit]) -> Result<Vec<Believed>> {
        let settings = self.peel_settings();
        let near = near_to_each_other(&refined.iter().map(|f| f.trail.segment).collect::<Vec<_>>(), &settings);
        let mut believed = Vec::new();
        for turn in in_order(&near) {
            let requests: Vec<FitRequest> =
                turn.iter().map(|&i| FitRequest { start: refined[i].trail, subtracted: false }).collect();
            let fits = self.backend.fit(&requests, &settings)?;
            let fits = self.fit_to_ends(fits, &settings)?;
            let good: Vec<TrailFit> = fits.into_iter().filter(|f| self.is_promising(f)).collect();
            let trails: Vec<Trail> = good.iter().map(|f| f.trail).collect();
            self.backend.add_trails(&trails, -1.0)?;
            self.sky_is_current &= trails.is_empty();
            believed.extend(good.into_iter().map(|fit| Believed::new(fit, Origin::Found)));
        }
        Ok(believed)
    }

    /// Fits again, from end to end of the light along them, those that have stopped short of an end, or beyond it.
    fn fit_to_ends(&mut self, mut fits: Vec<TrailFit>, settings: &FitSettings) -> Result<Vec<TrailFit>> {
        let slack_px = OTHER_ENDS_WIDTHS * self.sigma();
        let other_ends = |fit: &TrailFit, scanned: Scanned| {
            let segment = fit.trail.segment;
            // Two streaks in line have been told apart before.
            let Scanned::Lit { ends, parts: None } = scanned else { return None };
            let off = ends.start.distance(segment.start).max(ends.end.distance(segment.end));
            (off > slack_px).then_some(ends)
        };
        let scans = self.scan_along(&fits)?.into_iter().enumerate();
        let others: Vec<(usize, Segment)> =
            scans.filter_map(|(i, scanned)| Some((i, other_ends(&fits[i], scanned)?))).collect();
        let requests: Vec<FitRequest> = others
            .iter()
            .map(|(i, segment)| FitRequest { start: Trail { segment: *segment, ..fits[*i].trail }, subtracted: false })
            .collect();
        for ((i, _), fit) in others.into_iter().zip(self.backend.fit(&requests, settings)?) {
            let longer = fit.trail.segment.length_px() / fits[i].trail.segment.length_px();
            let [before, now] = [fits[i].snr.powi(2), fit.snr.powi(2)];
            if longer > LEAST_COVERED && now > before + OTHER_ENDS_GAIN && now > AS_BRIGHT * longer * before {
                fits[i] = fit;
            }
        }
        Ok(fits)
    }

    /// Fits trails with near neighbours again, each with the others taken out.
    pub(crate) fn fit_neighbours_again(&mut self, believed: &mut [Believed]) -> Result<()> {
        let segments: Vec<Segment> = believed.iter().map(|b| b.trail().segment).collect();
        let near = near_to_each_other(&segments, &self.peel_settings());
        let pairs = near.iter().enumerate().flat_map(|(i, before)| before.iter().flat_map(move |&j| [i, j]));
        let crowded: Vec<usize> = pairs.collect::<BTreeSet<_>>().into_iter().collect();
        self.fit_again(believed, &crowded)?;
        self.fit_again(believed, &crowded)
    }

    /// Fits some of the trails again from where they are, each with all others taken out.
    pub(crate) fn fit_again(&mut self, believed: &mut [Believed], which: &[usize]) -> Result<()> {
        let mut fits: Vec<TrailFit> = which.iter().map(|&i| believed[i].fit).collect();
        let (settings, sigma) = (self.peel_settings(), self.sigma());
        let reach_px = FAR_WIDTHS * sigma;
        fit_in_turns(self.backend, &mut fits, &settings, reach_px, |a, b| share_light(a, b, sigma), |_, _| true)?;
        which.iter().zip(fits).for_each(|(&i, fit)| believed[i].fit = fit);
        Ok(())
    }
}

pub(crate) fn share_light(a: &Segment, b: &Segment, sigma_eff_px: f64) -> bool {
    template_correlation(a, b, sigma_eff_px).max(template_correlation(b, a, sigma_eff_px)) > SHARED_LIGHT
}

/// For each of some trails, in their order, those before it in whose fits its light would be.
fn near_to_each_other(segments: &[Segment], settings: &FitSettings) -> Vec<Vec<usize>> {
    let near_px = 2.0 * settings.reach_px;
    met_before(segments, near_px, |i, j| are_near(&segments[j], &segments[i], near_px))
}

fn are_near(a: &Segment, b: &Segment, distance_px: f64) -> bool {
    // Along a's own length the nearest point of b is an end, or they cross.
    let ends = [a.distance_to(b.start), a.distance_to(b.end), b.distance_to(a.start), b.distance_to(a.end)];
    ends.into_iter().fold(f64::INFINITY, f64::min) <= distance_px
        || template_correlation(a, b, sigma_for(distance_px)) > 0.01
}

/// Width for which a template correlation reaches to `distance_px`.
fn sigma_for(distance_px: f64) -> f64 {
    distance_px / FAR_WIDTHS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(x1: f64, y1: f64, x2: f64, y2: f64) -> Trail {
        Trail { segment: Segment::from_coordinates(x1, y1, x2, y2), flux: 1.0, background: 0.0, sigma_eff_px: 1.5 }
    }

    #[test]
    fn nearness_sees_crossings_and_gaps() {
        let a = trail(0.0, 0.0, 100.0, 0.0).segment;
        assert!(are_near(&a, &trail(50.0, -60.0, 52.0, 60.0).segment, 10.0));
        assert!(are_near(&a, &trail(105.0, 3.0, 150.0, 9.0).segment, 10.0));
        assert!(!are_near(&a, &trail(0.0, 40.0, 100.0, 40.0).segment, 10.0));
    }
}
