//! Candidates of the merge stage: peaks of the transform, refined to the exact template.
//!
//! Method: docs/algorithm.md, "Merge".

use rayon::prelude::*;

use crate::Result;
use crate::geometry::Segment;
use crate::pipeline::chain::Misfit;
use crate::pipeline::measure::{FitRequest, FitSettings, Shape, Trail, TrailFit};
use crate::pipeline::merge::Search;
use crate::pipeline::peel::share_light;
use crate::pipeline::pieces::MIN_JOINT_POWER;
use crate::pipeline::psf::PsfKernel;
use crate::pipeline::scan::{Scanned, lit_parts};
use crate::pipeline::search::{Peak, SearchRequest, sort_peaks, step_of_sums, suppress};

/// How far below the detection threshold a coarse peak may lie: refinement wins no more than this
/// (docs/algorithm.md, "Search"). Below sigma 1 the digital lines are coarser against the PSF.
fn recall_margin(kernel: &PsfKernel) -> f64 {
    if kernel.sigma_eff_px < 1.04 { 1.6 } else { 1.2 }
}

/// Coarse peaks below this are noise in any frame.
const LOWEST_RECALL: f64 = 4.0;

/// S/N that the last fit may win over the first: the sky was measured with the trail's light in it.
const SKY_GAIN: f64 = 0.15;

/// Candidates refined in one search at most: one for so many pixels, and no fewer than [`MIN_CANDIDATES`]. Noise makes
/// a small part of that; a crowd of bright sources makes more, and the rest wait until the brightest are gone.
const PIXELS_PER_CANDIDATE: usize = 1 << 12;
const MIN_CANDIDATES: usize = 300;

/// So many times as many are looked at for chains of stars.
const CHAINS_PER_CANDIDATE: usize = 4;

/// How far beyond either end of a candidate its true end is looked for, in units of its length.
const SCAN_BEYOND: f64 = 0.6;

impl Search<'_> {
    /// One coarse search of the filtered residual image, or the places to look at instead. Where only peaks above some S/N
    /// are asked for, their light is not limited.
    pub(crate) fn find_candidates(&mut self, uncut_above: Option<f64>) -> Result<Vec<Peak>> {
        if self.segments.tasks.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(places) = &self.places {
            return Ok(places.iter().filter_map(|place| self.candidate_at(place)).collect());
        }
        let recall = (self.thresholds.lowest() - recall_margin(&self.segments.kernel)).max(LOWEST_RECALL);
        let limit = (self.chains.point_limit_snr() * self.segments.kernel.white_noise_sd()) as f32;
        let is_cut = uncut_above.is_none();
        let request = SearchRequest {
            threshold: uncut_above.unwrap_or(recall).max(recall) as f32,
            limit: if is_cut { limit } else { f32::MAX },
            step: if is_cut { step_of_sums(limit, self.segments.most_rows()) } else { None },
            weighted: self.weighted,
        };
        let mut peaks = self.backend.find_peaks(&self.segments, &request)?;
        // Hundreds lie along an edge of light: each would be fitted, to be rejected in the end.
        let sigma = self.sigma();
        peaks.retain(|p| !self.uneven.explains(&p.segment, p.snr, sigma));
        Ok(suppress(&peaks, self.sigma(), CHAINS_PER_CANDIDATE * self.most_candidates()))
    }

    pub(crate) fn most_candidates(&self) -> usize {
        (self.segments.width * self.segments.height / PIXELS_PER_CANDIDATE).max(MIN_CANDIDATES)
    }

    /// Leaves out candidates that are clearly chains of stars: fitting them costs far more than telling them.
    pub(crate) fn leave_chains(&mut self, candidates: &mut Vec<Peak>) -> Result<()> {
        if self.places.is_none() {
            let (margin, most) = (recall_margin(&self.segments.kernel), self.most_candidates());
            let mut left = Vec::new();
            for some in candidates.chunks(most) {
                let segments: Vec<Segment> = some.iter().map(|c| c.segment).collect();
                let chains = self.are_chains(&segments, margin, Misfit::Coarse)?;
                left.extend(some.iter().zip(chains).filter(|(_, chain)| !chain).map(|(c, _)| *c));
                if left.len() > most {
                    break;
                }
            }
            *candidates = left;
        }
        Ok(())
    }

    /// Which of these are rather chains of stars than trails of a S/N so far below the threshold.
    fn are_chains(&mut self, segments: &[Segment], below_threshold: f64, misfit: Misfit) -> Result<Vec<bool>> {
        let tracks: Vec<Segment> = segments.iter().map(|s| self.chains.track(s)).collect();
        let profiles = self.backend.profiles(&tracks, self.sigma() as f32)?;
        let (chains, thresholds) = (&self.chains, &self.thresholds);
        let verdicts = segments.par_iter().zip(&profiles).map(|(segment, profile)| {
            let length = segment.length_px();
            chains.is_chain(profile, length, thresholds.for_length(length) - below_threshold, misfit)
        });
        Ok(verdicts.collect())
    }

    /// The part of a given place inside the frame, long enough to fit two ends.
    fn candidate_at(&self, place: &Segment) -> Option<Peak> {
        let inside = place.clipped_to(self.segments.width, self.segments.height)?;
        let length = inside.length_px().max(self.config.min_length_px);
        let segment = Segment::around(inside.midpoint(), length, inside.angle_rad());
        Some(Peak { segment, snr: 0.0 })
    }

    /// Maximises the exact matched-filter S/N of every candidate over its ends. One that spans two streaks gives both.
    pub(crate) fn refine(&mut self, candidates: &[Peak]) -> Result<Vec<TrailFit>> {
        let first = self.fit_ends(candidates.iter().map(|c| c.segment), 4)?;
        let rescanned = self.scan_along(&first)?;
        let starts = rescanned.iter().zip(&first).map(|(scanned, fit)| match scanned {
            Scanned::Dark => fit.trail.segment,
            Scanned::Lit { ends, .. } => *ends,
        });
        let second = self.fit_ends(starts, 6)?;
        let parts_of = |scanned: &Scanned| if let Scanned::Lit { parts, .. } = scanned { *parts } else { None };
        let parts = rescanned.iter().filter_map(parts_of).flatten();
        // Begun along the common track, and held against what the whole explains: they have to arrive.
        let mut part_fits = self.fit_ends(parts, 16)?.into_iter();
        let mut refined = Vec::with_capacity(second.len());
        for ((before, after), scanned) in first.into_iter().zip(second).zip(&rescanned) {
            let whole = if after.snr > before.snr { after } else { before };
            let n_parts = parts_of(scanned).map_or(0, |parts| parts.len());
            let parts: Vec<TrailFit> = part_fits.by_ref().take(n_parts).collect();
            if self.are_two_streaks(&whole, &parts) { refined.extend(parts) } else { refined.push(whole) }
        }
        Ok(refined)
    }

    /// Where light lies along fits, and some way beyond their ends.
    pub(crate) fn scan_along(&mut self, fits: &[TrailFit]) -> Result<Vec<Scanned>> {
        let tracks: Vec<Segment> = fits.iter().map(|f| self.extended_for_scan(&f.trail.segment)).collect();
        let profiles = self.backend.profiles(&tracks, self.sigma() as f32)?;
        let min_length_px = self.config.min_length_px;
        let scans = (&tracks, &profiles).into_par_iter();
        Ok(scans.map(|(track, profile)| lit_parts(track, profile, min_length_px)).collect())
    }

    /// Whether two parts of a trail are streaks of their own, and much more than the whole.
    fn are_two_streaks(&self, whole: &TrailFit, parts: &[TrailFit]) -> bool {
        let [a, b] = parts else { return false };
        let apart = !share_light(&a.trail.segment, &b.trail.segment, self.sigma());
        let separate = a.snr.powi(2) + b.snr.powi(2);
        apart && parts.iter().all(|p| self.is_promising(p)) && whole.snr.powi(2) < MIN_JOINT_POWER * separate
    }

    /// The significant ones of refined candidates, best first, one for each place, without chains of stars.
    pub(crate) fn one_for_each_place(&mut self, mut fits: Vec<TrailFit>) -> Result<Vec<TrailFit>> {
        fits.retain(|f| self.is_promising(f));
        let segments: Vec<Segment> = fits.iter().map(|f| f.trail.segment).collect();
        let mut chains = self.are_chains(&segments, SKY_GAIN, Misfit::Fitted)?.into_iter();
        fits.retain(|_| chains.next() == Some(false));
        sort_fits(&mut fits);
        let mut peaks: Vec<Peak> = fits.iter().map(|f| Peak { segment: f.trail.segment, snr: f.snr }).collect();
        sort_peaks(&mut peaks);
        let kept = suppress(&peaks, self.sigma(), usize::MAX);
        fits.retain(|f| kept.iter().any(|p| p.segment == f.trail.segment));
        Ok(fits)
    }

    pub(crate) fn extended_for_scan(&self, segment: &Segment) -> Segment {
        let beyond = SCAN_BEYOND * segment.length_px() + 4.0;
        let extended = segment.extended(beyond, beyond);
        // Outside the frame an end costs nothing, and would lie anywhere.
        extended.clipped_to(self.segments.width, self.segments.height).unwrap_or(*segment)
    }

    pub(crate) fn is_significant(&self, fit: &TrailFit) -> bool {
        self.is_promising(fit) && fit.snr >= self.thresholds.for_length(fit.trail.segment.length_px())
    }

    /// May be significant once the sky is measured without it.
    pub(crate) fn is_promising(&self, fit: &TrailFit) -> bool {
        let length = fit.trail.segment.length_px();
        fit.snr >= self.thresholds.for_length(length) - SKY_GAIN && length >= 0.5 * self.config.min_length_px
    }

    pub(crate) fn fit_ends(
        &mut self,
        segments: impl IntoIterator<Item = Segment>,
        iterations: u32,
    ) -> Result<Vec<TrailFit>> {
        let sigma = self.sigma();
        let settings = FitSettings {
            shape: Shape::Trail,
            free_background: false,
            free_sigma: false,
            sigma_range: (sigma, sigma),
            sigma_prior: None,
            reach_px: 4.0 * sigma,
            photon_variance: 0.0,
            clip_sigmas: self.config.clip_sigmas,
            max_iterations: iterations,
        };
        let requests: Vec<FitRequest> = segments
            .into_iter()
            .map(|segment| FitRequest {
                start: Trail { segment, flux: 0.0, background: 0.0, sigma_eff_px: sigma },
                subtracted: false,
            })
            .collect();
        self.backend.fit(&requests, &settings)
    }
}

fn sort_fits(fits: &mut [TrailFit]) {
    fits.sort_by(|a, b| {
        let place = |f: &TrailFit| (f.trail.segment.start.x, f.trail.segment.start.y);
        b.snr.total_cmp(&a.snr).then(place(a).0.total_cmp(&place(b).0)).then(place(a).1.total_cmp(&place(b).1))
    });
}
