//! Merge stage, its first step: bright streaks from the compact sources that are longer than wide.
//!
//! Method: docs/algorithm.md, "Merge".

use crate::Result;
use crate::geometry::Segment;
use crate::pipeline::believed::Believed;
use crate::pipeline::measure::{Trail, TrailFit};
use crate::pipeline::merge::{BRIGHT_RECALL, BRIGHT_SNR, HIDING_SNR, Search};
use crate::pipeline::search::{Peak, sort_peaks, suppress};
use crate::pipeline::stars::Elongated;
use crate::pipeline::tracking::{self, Seen, StarMotion};
use crate::pipeline::weigh::Footprint;
use crate::report::TrackingMode;

/// A core is followed in directions that differ by an eighth of a half turn.
const DIRECTION_STEP_RAD: f64 = std::f64::consts::PI / 8.0;

/// Directions tried between two of these at most.
const MOST_TRIES: f64 = 8.0;

/// A few streaks have fewer cores than this together, however often they are interrupted.
const MOST_CORES_OF_FEW: usize = 50;

/// So many cores are looked at even if they are faint.
const MOST_FAINT_SEEDS: usize = 100;

/// A bright trail whose cores are fainter than this has `(20 / 10)² · 2√π` PSF widths at least, 21 px at σ = 1.5 px: the search
/// finds it, in a crowd as well.
const FAINT_CORE_SNR: f64 = 0.5 * BRIGHT_SNR;

/// More of the brightest cores than this are enough to tell whether the stars are trails, and with what vector.
const ENOUGH_CORES: usize = 100;

/// The brightest are found by peaks of this part of what a trail has of which all light is cut: between the lines that are
/// summed, and at the ends, it is less.
const OF_ALL_CUT: f64 = 0.6;

/// They are asked at this S/N, half of it, and so on, so often at most.
const MOST_LEVELS: i32 = 8;

/// A coarse peak of a trail that hides others holds so much.
const HIDING_RECALL: f64 = 0.7 * HIDING_SNR;

/// While the trails together grow by this factor their ends are looked for again, so often at most.
const GROWTH: f64 = 1.2;
const MOST_ROUNDS: usize = 4;

impl Search<'_> {
    /// Bright streaks that begin as elongated sources, their light uncut. They are believed before all others, and what
    /// they do not explain is a blend of stars.
    pub(crate) fn find_elongated(&mut self) -> Result<Vec<Believed>> {
        if self.elongated.is_empty() {
            return Ok(Vec::new());
        }
        // Where the stars may be trails their cores say little, cut by neighbours and by saturation.
        let few = self.elongated.len() < MOST_CORES_OF_FEW || !self.trails_are_many;
        let from_cores = if self.places.is_none() && few { self.follow_cores()? } else { None };
        let mut believed = match from_cores {
            Some(fits) => self.believe_bright(fits, &[])?,
            None => self.search_for_bright()?,
        };
        self.fit_neighbours_again(&mut believed)?;
        self.leave_found_places(&believed);
        Ok(believed)
    }

    /// Bright streaks by the transform.
    fn search_for_bright(&mut self) -> Result<Vec<Believed>> {
        let stars = if self.is_first_look { self.look_for_star_trails()? } else { None };
        let Some((mut believed, least_snr)) = stars else { return self.search_above(BRIGHT_RECALL, &[], None) };
        if least_snr > HIDING_RECALL {
            // Fainter stars need not be known yet. Bright targets do: stars would be made of them.
            self.filter_anew()?;
            let motion = StarMotion::of(&self.mode_of(&believed));
            let targets = self.search_above(HIDING_RECALL, &believed, motion)?;
            believed.extend(targets);
        }
        Ok(believed)
    }

    /// The brightest streaks, if they tell that the stars are trails, and the S/N of the peaks that were looked at for
    /// that: of fainter ones there are hundreds of thousands. Where no vector is seen fainter ones are asked as well, and in
    /// the end all is put back.
    fn look_for_star_trails(&mut self) -> Result<Option<(Vec<Believed>, f64)>> {
        let mut believed: Vec<Believed> = Vec::new();
        let brightest = self.snr_of_brightest();
        let levels = (0..MOST_LEVELS).map(|k| brightest * 0.5_f64.powi(k)).take_while(|snr| *snr > BRIGHT_RECALL);
        for (k, least_snr) in levels.enumerate() {
            if k > 0 {
                self.filter_anew()?;
            }
            let fainter = self.search_above(least_snr, &believed, None)?;
            believed.extend(fainter);
            if self.mode_of(&believed) != TrackingMode::Sidereal {
                return Ok(Some((believed, least_snr)));
            }
        }
        if !believed.is_empty() {
            let trails: Vec<Trail> = believed.iter().map(Believed::trail).collect();
            self.backend.add_trails(&trails, 1.0)?;
            self.filter_anew()?;
            self.sky_is_current = true;
        }
        Ok(None)
    }

    fn filter_anew(&mut self) -> Result<()> {
        self.backend.filter(&self.segments.kernel, self.config.clip_sigmas as f32, false)
    }

    /// One search for bright streaks, by peaks above some S/N; only for those that are clearly no stars of some motion.
    fn search_above(
        &mut self,
        least_snr: f64,
        before: &[Believed],
        stars: Option<StarMotion>,
    ) -> Result<Vec<Believed>> {
        let mut candidates = self.find_candidates(Some(least_snr))?;
        candidates.retain(|c| stars.is_none_or(|motion| tracking::is_distinct(&c.segment, &motion)));
        self.leave_chains(&mut candidates)?;
        candidates.truncate(self.most_candidates());
        let fits = self.refine(&candidates)?;
        self.believe_bright(fits, before)
    }

    /// S/N that peaks of trails of the brightest cores exceed: a trail has more light than its core, though one may have
    /// several cores, and though of light cut at `clip_sigmas` no sum along a trail as long as most of them is larger.
    fn snr_of_brightest(&self) -> f64 {
        let mut cores: Vec<&Elongated> = self.elongated.iter().collect();
        cores.sort_unstable_by(|a, b| b.snr.total_cmp(&a.snr));
        let least = cores.get(ENOUGH_CORES).map_or(0.0, |core| core.snr);
        cores.truncate(ENOUGH_CORES);
        let mut lengths: Vec<f64> = cores.iter().map(|e| e.core.length_px()).collect();
        lengths.sort_unstable_by(f64::total_cmp);
        let length_px = lengths.get(lengths.len() / 2).copied().unwrap_or(0.0);
        let all_cut = self.config.clip_sigmas * (length_px / self.segments.kernel.white_noise_sd()).sqrt();
        (0.5 * least).min(OF_ALL_CUT * all_cut)
    }

    /// The trails that the brightest elongated cores are parts of; none where these may be the stars'.
    fn follow_cores(&mut self) -> Result<Option<Vec<TrailFit>>> {
        let mut seeds = self.seeds()?;
        let mut fits = Vec::new();
        for _ in 0..MOST_ROUNDS {
            self.leave_chains(&mut seeds)?;
            seeds.truncate(self.most_candidates());
            fits = self.refine(&seeds)?;
            let grown = distinct(&fits, self.sigma());
            let goes_on = total_length_px(&grown) > GROWTH * total_length_px(&seeds);
            seeds = grown;
            if !goes_on {
                break;
            }
        }
        let may_be_stars = self.trails_are_many && seeds.len() >= tracking::MIN_STARS;
        Ok((!may_be_stars).then_some(fits))
    }

    /// The best segment along each of the brightest elongated cores.
    fn seeds(&mut self) -> Result<Vec<Peak>> {
        let mut sources: Vec<&Elongated> = self.elongated.iter().collect();
        sources.sort_by(|a, b| b.snr.total_cmp(&a.snr));
        // A crowd of faint ones is left to the search.
        let bright = sources.partition_point(|s| s.snr >= FAINT_CORE_SNR);
        sources.truncate(bright.max(MOST_FAINT_SEEDS).min(self.most_candidates()));
        let sigma = self.sigma();
        let tries: Vec<Vec<Segment>> = sources.iter().map(|s| directions(&s.core, sigma)).collect();
        let mut fits = self.fit_ends(tries.iter().flatten().copied(), 4)?.into_iter();
        let best = |tries: &Vec<Segment>| fits.by_ref().take(tries.len()).max_by(|a, b| a.snr.total_cmp(&b.snr));
        let best: Vec<TrailFit> = tries.iter().filter_map(best).collect();
        Ok(distinct(&best, sigma))
    }

    /// Bright sources longer than wide that the search for bright streaks has not taken for one are blends of stars.
    /// Returns whether there are any.
    pub(crate) fn weigh_out_blends(&mut self, believed: &[Believed]) -> Result<bool> {
        let seen: Vec<Seen> = believed.iter().map(Believed::as_seen).collect();
        if tracking::decide(self.tracking, &seen) != TrackingMode::Sidereal {
            return Ok(false);
        }
        let near = 2.0 * self.sigma();
        let is_on_trail = |e: &Elongated| {
            let place = e.footprint.position();
            believed.iter().any(|b| b.trail().segment.distance_to(place) < near)
        };
        let blends: Vec<Footprint> =
            self.elongated.iter().filter(|e| e.snr > BRIGHT_SNR && !is_on_trail(e)).map(|e| e.footprint).collect();
        self.elongated.clear();
        self.backend.weigh_out(&blends)?;
        Ok(!blends.is_empty())
    }
}

/// Those that may be bright, one for each place.
fn distinct(fits: &[TrailFit], sigma_eff_px: f64) -> Vec<Peak> {
    let may_be_bright = fits.iter().filter(|f| f.snr >= BRIGHT_RECALL);
    let mut peaks: Vec<Peak> = may_be_bright.map(|f| Peak { segment: f.trail.segment, snr: f.snr }).collect();
    sort_peaks(&mut peaks);
    suppress(&peaks, sigma_eff_px, usize::MAX)
}

fn total_length_px(peaks: &[Peak]) -> f64 {
    peaks.iter().map(|p| p.segment.length_px()).sum()
}

/// Segments along a core in the directions between those that were tried.
fn directions(core: &Segment, sigma_eff_px: f64) -> Vec<Segment> {
    let length = core.length_px();
    let tries = (DIRECTION_STEP_RAD * length / (4.0 * sigma_eff_px)).ceil().clamp(1.0, MOST_TRIES);
    let offset = |k: usize| ((k as f64 + 0.5) / tries - 0.5) * DIRECTION_STEP_RAD;
    (0..tries as usize).map(|k| Segment::around(core.midpoint(), length, core.angle_rad() + offset(k))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::track_angle_difference;

    #[test]
    fn directions_fill_the_gap_between_those_of_the_walk() {
        let core = Segment::from_coordinates(10.0, 20.0, 70.0, 20.0);
        let tries = directions(&core, 1.5);
        assert_eq!(tries.len(), 4);
        // Wherever within half a step the true direction is, at the ends the nearest try is less than a PSF width off.
        for k in -10..=10 {
            let truth = core.angle_rad() + 0.05 * f64::from(k) * DIRECTION_STEP_RAD;
            let off = |t: &Segment| track_angle_difference(t.angle_rad(), truth);
            let nearest = tries.iter().map(off).fold(f64::INFINITY, f64::min);
            assert!(nearest * 30.0 < 1.5, "{nearest} at {truth}");
        }
        assert_eq!(directions(&Segment::from_coordinates(0.0, 0.0, 8.0, 0.0), 1.5).len(), 1);
    }
}
