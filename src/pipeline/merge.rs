//! Merge stage: from candidates to trails, one for each streak.
//!
//! Candidates are refined to the exact template, then believed best first: each is fitted, taken out of the residual
//! image, and only what is still significant in what is left is believed next. Neighbours are fitted again together,
//! collinear pieces joined. Method: docs/algorithm.md, "Merge".

use std::collections::BTreeSet;
use std::sync::Arc;

use rayon::prelude::*;

use crate::Result;
use crate::backend::Backend;
use crate::detection::TrackingMode;
use crate::geometry::Segment;
use crate::pipeline::background::{self, BackgroundMap};
use crate::pipeline::chain::{ChainPrior, Misfit};
use crate::pipeline::judge::{KnownTrail, lies_along};
use crate::pipeline::measure::{FitRequest, FitSettings, Shape, Trail, TrailFit, UNCLIPPED_SIGMAS};
use crate::pipeline::pieces::MIN_JOINT_POWER;
use crate::pipeline::psf::PsfKernel;
use crate::pipeline::scan::{Scanned, lit_parts};
use crate::pipeline::search::{
    FAR_WIDTHS, Peak, SAME_CORRELATION, SearchConfig, SearchRequest, sort_peaks, suppress, template_correlation,
};
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::stars::Elongated;
use crate::pipeline::threshold::Thresholds;
use crate::pipeline::tracking::{self, Seen, Tracking};
use crate::pipeline::turns::{fit_in_turns, in_order, met_before};
use crate::pipeline::uneven::UnevenSky;
use crate::pipeline::weigh::Footprint;

/// What the search of one frame needs to know.
pub(crate) struct Search<'a> {
    pub(crate) backend: &'a mut dyn Backend,
    pub(crate) sky: BackgroundMap,
    /// No trail was taken out since the sky was measured.
    pub(crate) sky_is_current: bool,
    pub(crate) segments: Arc<SegmentSet>,
    /// Where to look; everywhere when not given.
    pub(crate) places: Option<Vec<Segment>>,
    pub(crate) thresholds: Thresholds,
    pub(crate) chains: ChainPrior,
    /// Where the map does not describe the sky.
    pub(crate) uneven: UnevenSky,
    pub(crate) noise_excess: f64,
    /// Bright sources longer than wide, not known to be streaks or blends of stars yet.
    pub(crate) elongated: Vec<Elongated>,
    pub(crate) config: &'a SearchConfig,
    pub(crate) tracking: Tracking,
    /// So many sources are elongated that the stars may be trails.
    pub(crate) trails_are_many: bool,
    /// Where bright trails say that the stars are trails, the search ends: it is done again without the stars.
    pub(crate) is_first_look: bool,
    /// It did not end that way.
    pub(crate) is_complete: bool,
    /// So many pixels have weight zero that the search has to know.
    pub(crate) weighted: bool,
    /// Variance per unit of flux from the source's own photons.
    pub(crate) photon_variance: f64,
}

/// A trail that is believed in; its model has been taken out of the residual image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Believed {
    pub(crate) fit: TrailFit,
    pub(crate) origin: Origin,
    /// A star's trail that lies in the wings of a brighter one.
    pub(crate) is_part_of_wings: bool,
    /// A star that is where its common vector fits: it is faint, or a target draws its own ends along.
    pub(crate) keeps_vector: bool,
    /// S/N² by which it explains more than trails of stars in its place, prices included and in the frame's own noise;
    /// none where these were not tried.
    pub(crate) gain_over_star_trails: Option<f64>,
}

/// How a trail came to be believed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Found,
    /// Made of pieces with gaps between them.
    Joined,
    /// One of the stars that make a blend.
    Parted,
    /// Found as a star, with the common vector.
    Star,
}

impl Believed {
    pub(crate) fn new(fit: TrailFit, origin: Origin) -> Self {
        Self { fit, origin, is_part_of_wings: false, keeps_vector: false, gain_over_star_trails: None }
    }

    pub(crate) fn trail(&self) -> Trail {
        self.fit.trail
    }

    pub(crate) fn as_known(&self) -> KnownTrail {
        let Trail { segment, sigma_eff_px, .. } = self.fit.trail;
        KnownTrail { segment, sigma_eff_px, snr: self.fit.snr }
    }

    /// Before its last fit: nothing is known of its errors.
    pub(crate) fn as_seen(&self) -> Seen {
        Seen { segment: self.fit.trail.segment, snr: self.fit.snr, length_68_px: 0.0, whole: true, wide: false }
    }
}

/// How far below the detection threshold a coarse peak may lie: refinement wins no more than this
/// (docs/algorithm.md, "Search"). Below sigma 1 the digital lines are coarser against the PSF.
fn recall_margin(kernel: &PsfKernel) -> f64 {
    if kernel.sigma_eff_px < 1.04 { 1.6 } else { 1.2 }
}

/// Coarse peaks below this are noise in any frame.
const LOWEST_RECALL: f64 = 4.0;

/// S/N that the last fit may win over the first: the sky was measured with the trail's light in it.
const SKY_GAIN: f64 = 0.15;

/// Trails of this S/N and more are believed before all others.
pub(crate) const BRIGHT_SNR: f64 = 20.0;

/// Trails of this S/N and more hide fainter streaks, and lift the sky around them: the frame is searched again without
/// them.
pub(crate) const HIDING_SNR: f64 = 40.0;

/// A coarse peak holds at least 0.7 of the S/N of its trail, but for what the limit takes: while bright ones are looked for,
/// lesser peaks need no refinement.
pub(crate) const BRIGHT_RECALL: f64 = 0.7 * BRIGHT_SNR;

/// Searches of one frame at most.
const MAX_SEARCHES: usize = 3;

/// Candidates refined in one search at most: one for so many pixels, and no fewer than [`MIN_CANDIDATES`]. Noise makes
/// a small part of that; a crowd of bright sources makes more, and the rest wait until the brightest are gone.
const PIXELS_PER_CANDIDATE: usize = 1 << 12;
const MIN_CANDIDATES: usize = 300;

/// So many times as many are looked at for chains of stars.
const CHAINS_PER_CANDIDATE: usize = 4;

/// Radius over which a faint star on or beside a trail is given up, in PSF widths: its place is not known well.
pub(crate) const STAR_WIDTHS: f64 = 3.0;

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
    /// Finds every trail of the frame, by descending S/N. The residual image has been filtered.
    pub(crate) fn find_trails(&mut self) -> Result<Vec<Believed>> {
        let mut believed = self.find_elongated()?;
        let looked_for_trails = self.is_first_look && !self.elongated.is_empty();
        self.is_complete = !(looked_for_trails && self.mode_of(&believed) != TrackingMode::Sidereal);
        if self.is_complete {
            self.find_the_rest(&mut believed)?;
        }
        if !believed.is_empty() {
            self.measure_sky_again()?;
            // Their S/N is that in the noise without them.
            let all: Vec<usize> = (0..believed.len()).collect();
            self.fit_again(&mut believed, &all)?;
        }
        self.split_and_join(&mut believed)?;
        self.drop_insignificant(&mut believed)?;
        sort_believed(&mut believed);
        Ok(believed)
    }

    /// Searches the whole frame, again where bright trails may have hidden others.
    fn find_the_rest(&mut self, believed: &mut Vec<Believed>) -> Result<()> {
        for search in 1..=MAX_SEARCHES {
            let blends = search == 1 && self.weigh_out_blends(believed)?;
            self.measure_sky_again()?;
            if blends || search > 1 || !believed.is_empty() {
                self.backend.filter(&self.segments.kernel, self.config.clip_sigmas as f32, false)?;
            }
            let mut candidates = self.find_candidates(None)?;
            self.leave_chains(&mut candidates)?;
            // Candidates that were not even looked at for chains are fainter than a crowd of stars.
            let complete = candidates.len() <= self.most_candidates();
            candidates.truncate(self.most_candidates());
            let bright = BRIGHT_RECALL * self.chains.share_under_limit();
            let least = if search < MAX_SEARCHES { bright } else { f64::INFINITY };
            let promising = &candidates[..candidates.partition_point(|c| c.snr >= least)];
            let fits = self.refine(promising)?;
            let mut new = self.believe_bright(fits, believed)?;
            let again = new.iter().any(|b| b.fit.snr >= HIDING_SNR);
            if !again {
                self.measure_sky_again()?;
                self.weigh_out_stars_on(&candidates)?;
                let mut fits = self.refine(&candidates)?;
                fits.retain(|f| !is_residual(f, believed));
                let refined = self.one_for_each_place(fits)?;
                new.extend(self.peel(&refined)?);
            }
            let nothing_new = new.is_empty();
            believed.extend(new);
            self.fit_neighbours_again(believed)?;
            self.leave_found_places(believed);
            if !again && (nothing_new || complete) {
                break;
            }
        }
        Ok(())
    }

    /// Believes those of some refined candidates that are bright.
    pub(crate) fn believe_bright(&mut self, mut fits: Vec<TrailFit>, before: &[Believed]) -> Result<Vec<Believed>> {
        fits.retain(|f| f.snr >= BRIGHT_SNR && !is_residual(f, before));
        let brightest = self.one_for_each_place(fits)?;
        self.peel(&brightest)
    }

    /// Stars too faint to be weighed out before, on tracks that have light besides: their pixels are given up, so that
    /// the fit follows the trail and not the stars.
    fn weigh_out_stars_on(&mut self, candidates: &[Peak]) -> Result<()> {
        if !self.chains.is_crowded() || self.places.is_some() {
            return Ok(());
        }
        let tracks: Vec<Segment> = candidates.iter().map(|c| self.extended_for_scan(&c.segment)).collect();
        let profiles = self.backend.profiles(&tracks, self.sigma() as f32)?;
        let radius_px = (STAR_WIDTHS * self.sigma()) as f32;
        let chains = &self.chains;
        let stars: Vec<Footprint> = (candidates, &tracks, &profiles)
            .into_par_iter()
            .flat_map_iter(|(candidate, track, profile)| {
                let (trail, beyond_px) = (candidate.segment, track.start.distance(candidate.segment.start));
                let stars = chains.stars_along(profile, beyond_px, trail.length_px(), candidate.snr);
                stars.into_iter().map(move |along_px| {
                    let place = trail.at(along_px / trail.length_px());
                    Footprint { x: place.x as f32, y: place.y as f32, radius_px }
                })
            })
            .collect();
        self.backend.weigh_out(&stars)
    }

    /// How the telescope moved, as these trails say.
    pub(crate) fn mode_of(&self, believed: &[Believed]) -> TrackingMode {
        tracking::decide(self.tracking, &believed.iter().map(Believed::as_seen).collect::<Vec<_>>())
    }

    /// Trails have lifted the sky around them, and its noise: with their light taken out both are measured again. The
    /// filtered image is that before.
    fn measure_sky_again(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.sky_is_current, true) {
            return Ok(());
        }
        self.backend.filter(&self.segments.kernel, self.config.clip_sigmas as f32, false)?;
        // Noise that is not white (unresolved sources, hot pixels) keeps its first, larger measure: the residual's
        // clipped scatter would leave its tails out.
        let noise_too = self.noise_excess == 1.0;
        if let Some(sky) = background::measure_again(self.backend, &self.sky, noise_too)? {
            self.sky = sky;
        }
        Ok(())
    }

    pub(crate) fn sigma(&self) -> f64 {
        self.segments.kernel.sigma_eff_px
    }

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
        let limit = self.chains.point_limit_snr() * self.segments.kernel.white_noise_sd();
        let request = SearchRequest {
            threshold: uncut_above.unwrap_or(recall).max(recall) as f32,
            limit: if uncut_above.is_some() { f32::MAX } else { limit as f32 },
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

    /// A place whose streak is found is not looked at again: what is near would be taken for it.
    pub(crate) fn leave_found_places(&mut self, believed: &[Believed]) {
        let sigma = self.sigma();
        let is_at = |b: &Believed, p: &Segment| template_correlation(&b.trail().segment, p, sigma) > SAME_CORRELATION;
        if let Some(places) = &mut self.places {
            places.retain(|place| !believed.iter().any(|b| is_at(b, place)));
        }
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
    fn scan_along(&mut self, fits: &[TrailFit]) -> Result<Vec<Scanned>> {
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
    fn one_for_each_place(&mut self, mut fits: Vec<TrailFit>) -> Result<Vec<TrailFit>> {
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

    fn extended_for_scan(&self, segment: &Segment) -> Segment {
        let beyond = SCAN_BEYOND * segment.length_px() + 4.0;
        let extended = segment.extended(beyond, beyond);
        // Outside the frame an end costs nothing, and would lie anywhere.
        extended.clipped_to(self.segments.width, self.segments.height).unwrap_or(*segment)
    }

    pub(crate) fn is_significant(&self, fit: &TrailFit) -> bool {
        self.is_promising(fit) && fit.snr >= self.thresholds.for_length(fit.trail.segment.length_px())
    }

    /// May be significant once the sky is measured without it.
    fn is_promising(&self, fit: &TrailFit) -> bool {
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
    fn peel(&mut self, refined: &[TrailFit]) -> Result<Vec<Believed>> {
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

    /// Puts back what the joint fits have left insignificant.
    fn drop_insignificant(&mut self, believed: &mut Vec<Believed>) -> Result<()> {
        let dropped: Vec<Trail> =
            believed.iter().filter(|b| !self.is_significant(&b.fit)).map(Believed::trail).collect();
        self.backend.add_trails(&dropped, 1.0)?;
        believed.retain(|b| self.is_significant(&b.fit));
        Ok(())
    }
}

/// What a much brighter trail leaves along itself is no trail: believed, it would take the other's light.
fn is_residual(fit: &TrailFit, believed: &[Believed]) -> bool {
    believed.iter().any(|b| lies_along(&fit.trail.segment, fit.snr, &b.as_known()))
}

fn share_light(a: &Segment, b: &Segment, sigma_eff_px: f64) -> bool {
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

/// How far beyond either end of a candidate its true end is looked for, in units of its length.
const SCAN_BEYOND: f64 = 0.6;

fn sort_fits(fits: &mut [TrailFit]) {
    fits.sort_by(|a, b| {
        let place = |f: &TrailFit| (f.trail.segment.start.x, f.trail.segment.start.y);
        b.snr.total_cmp(&a.snr).then(place(a).0.total_cmp(&place(b).0)).then(place(a).1.total_cmp(&place(b).1))
    });
}

fn sort_believed(believed: &mut [Believed]) {
    believed.sort_by(|a, b| b.fit.snr.total_cmp(&a.fit.snr));
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
