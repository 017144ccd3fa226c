//! Merge stage: from candidates to trails, one for each streak.
//!
//! Candidates are refined to the exact template, then believed best first: each is fitted, taken out of the residual
//! image, and only what is still significant in what is left is believed next. Neighbours are fitted again together,
//! collinear pieces joined. Method: docs/algorithm.md, "Merge".

use std::sync::Arc;

use rayon::prelude::*;

use crate::Result;
use crate::backend::Backend;
use crate::geometry::Segment;
use crate::pipeline::background::{self, BackgroundMap};
use crate::pipeline::believed::Believed;
use crate::pipeline::chain::ChainPrior;
use crate::pipeline::judge::lies_along;
use crate::pipeline::measure::{Trail, TrailFit};
use crate::pipeline::search::{Peak, SAME_CORRELATION, SearchConfig, template_correlation};
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::stars::Elongated;
use crate::pipeline::threshold::Thresholds;
use crate::pipeline::tracking::{self, Tracking};
use crate::pipeline::uneven::UnevenSky;
use crate::pipeline::weigh::Footprint;
use crate::report::TrackingMode;

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

/// Radius over which a faint star on or beside a trail is given up, in PSF widths: its place is not known well.
pub(crate) const STAR_WIDTHS: f64 = 3.0;

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

    /// A place whose streak is found is not looked at again: what is near would be taken for it.
    pub(crate) fn leave_found_places(&mut self, believed: &[Believed]) {
        let sigma = self.sigma();
        let is_at = |b: &Believed, p: &Segment| template_correlation(&b.trail().segment, p, sigma) > SAME_CORRELATION;
        if let Some(places) = &mut self.places {
            places.retain(|place| !believed.iter().any(|b| is_at(b, place)));
        }
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

fn sort_believed(believed: &mut [Believed]) {
    believed.sort_by(|a, b| b.fit.snr.total_cmp(&a.fit.snr));
}
