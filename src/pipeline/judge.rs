//! Judge stage: is it a streak? What is not keeps a named reason.
//!
//! Method: docs/algorithm.md, "Judge".

use crate::Result;
use crate::backend::TrackProfile;
use crate::error::require;
use crate::geometry::{Point, Segment, track_angle_difference};
use crate::pipeline::chain::{ChainPrior, Misfit};
use crate::pipeline::spikes::{BrightStar, is_spike};
use crate::pipeline::surroundings::Surroundings;
use crate::pipeline::uneven::UnevenSky;
use crate::report::RejectReason;

/// When a significant line is not believed.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeConfig {
    /// A track narrower than this fraction of the PSF did not come through the optics.
    pub min_width: f64,
    /// A track wider than this many PSF widths is not a trail: a galaxy, a nebula, an edge of stray light.
    pub max_width: f64,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        // 0.75: hot columns and particle tracks have 0.2 to 0.6 of the PSF's width. 3: defocused low satellites are
        // up to twice as wide as the stars.
        Self { min_width: 0.75, max_width: 3.0 }
    }
}

impl JudgeConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        require("judge.min_width", self.min_width, 0.0..1.0, "from 0 to below 1")?;
        require("judge.max_width", self.max_width, 1.0..f64::INFINITY, "1 or more")
    }
}

/// What the judge sees of one measured trail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a> {
    pub(crate) segment: Segment,
    pub(crate) length_68_px: f64,
    pub(crate) sigma_eff_px: f64,
    pub(crate) sigma_eff_err_px: f64,
    pub(crate) snr: f64,
    /// S/N it needs to be significant.
    pub(crate) threshold_snr: f64,
    /// The last fit found light, and could tell how much.
    pub(crate) has_light: bool,
    /// What reduced χ² of the last fit has above one and chance.
    pub(crate) misfit: f64,
    pub(crate) surroundings: Surroundings,
    /// Light along [`ChainPrior::track`].
    pub(crate) profile: &'a TrackProfile,
    /// S/N² by which it explains more than a few stars in its place.
    pub(crate) gain_over_stars: f64,
    /// See [`spikes::without_twin`](crate::pipeline::spikes::without_twin).
    pub(crate) has_no_twin: bool,
}

/// The frame as the judge knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) psf_sigma_eff_px: f64,
    pub(crate) min_length_px: f64,
    pub(crate) chains: ChainPrior,
    /// Noise of the filtered frame over that of white noise; the thresholds have been multiplied by it.
    pub(crate) noise_excess: f64,
    pub(crate) stars: &'a [BrightStar],
    /// Every trail of the frame.
    pub(crate) trails: &'a [KnownTrail],
    /// Where the map does not describe the sky.
    pub(crate) uneven: &'a UnevenSky,
}

/// A trail that could have left a residual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct KnownTrail {
    pub(crate) segment: Segment,
    pub(crate) sigma_eff_px: f64,
    pub(crate) snr: f64,
}

/// A named reason not to believe a trail, or none.
pub(crate) fn judge(evidence: &Evidence<'_>, scene: &Scene<'_>, config: &JudgeConfig) -> Option<RejectReason> {
    let psf = scene.psf_sigma_eff_px;
    let s = &evidence.segment;
    let slack = 3.0 * evidence.sigma_eff_err_px;
    let (c, sin) = s.direction();
    let (along_row, along_column) = (sin.abs() < AXIS_SLACK, c.abs() < AXIS_SLACK);
    if evidence.sigma_eff_px + slack < config.min_width * psf {
        return Some(match (along_column, along_row) {
            (true, _) => RejectReason::HotColumn,
            (_, true) => RejectReason::HotRow,
            _ => RejectReason::CosmicRay,
        });
    }
    if scene.trails.iter().any(|trail| lies_along(s, evidence.snr, trail)) {
        return Some(RejectReason::TrailResidual);
    }
    if hugs_border(s, scene) {
        return Some(RejectReason::FrameEdge);
    }
    let bleeds = |star: &&BrightStar| star.saturated && s.distance_to(star.position) < star.radius_px.max(4.0);
    let round = || scene.stars.iter().filter(|star| !star.elongated && star.could_leave(evidence.snr));
    let in_column = |star: &&BrightStar| {
        let off_px = (star.position.x - s.midpoint().x).abs();
        along_column || c.abs() * s.length_px() < COLUMN_PX && off_px < COLUMN_OFF_SIGMAS * psf
    };
    if scene.stars.iter().any(|star| bleeds(&star) && in_column(&star)) {
        return Some(RejectReason::BleedColumn);
    }
    if !evidence.has_no_twin && round().any(|star| is_spike(s, star, psf)) {
        return Some(RejectReason::DiffractionSpike);
    }
    if round().any(|star| is_beside(s, star)) {
        return Some(RejectReason::StarResidual);
    }
    if scene.uneven.explains(s, evidence.snr, evidence.sigma_eff_px) {
        return Some(RejectReason::UnevenSky);
    }
    if evidence.sigma_eff_px - slack > config.max_width * psf {
        return Some(RejectReason::Extended);
    }
    let longest_px = s.length_px() + evidence.length_68_px;
    let too_short = s.length_px() < 3.0 * evidence.sigma_eff_px || longest_px < scene.min_length_px;
    let is_like_blend = scene.chains.is_crowded() && s.length_px() < CROWDED_SIGMAS * scene.psf_sigma_eff_px;
    let few_stars = scene.chains.are_few_stars(evidence.gain_over_stars, evidence.snr, evidence.threshold_snr);
    if too_short
        || is_like_blend
        || few_stars
        || scene.chains.is_chain(evidence.profile, s.length_px(), evidence.threshold_snr, Misfit::Fitted)
    {
        return Some(RejectReason::StarResidual);
    }
    (!evidence.has_light || drowns(evidence, scene)).then_some(RejectReason::PoorFit)
}

/// In a crowd three stars side by side, and what sticks out of pixels left out for stars, are no longer than this, in PSF
/// widths.
const CROWDED_SIGMAS: f64 = 7.0;

/// Part of a frame's excess variance that single pixels make: hot ones, which raise χ² as they raise the noise.
const WHITE_PART: f64 = 0.5;

/// Up to this S/N no trail shows that its model is not quite right: what is left of the light around it is others'.
const MODELLED_SNR: f64 = 20.0;

/// Then so much of a misfit may be faint stars beside the trail, and counts only where it lies on the track: that many
/// of S/N 3 to 8 leave a crowded field.
const FAINT_STARS: f64 = 0.15;

/// Not significant against what lies beside it and what its own model leaves of it. A misfit beyond that of the
/// frame's noise is not white: it hangs together over the area of the PSF (4πσ² pixels), and counts for a line as often.
fn drowns(evidence: &Evidence<'_>, scene: &Scene<'_>) -> bool {
    let Surroundings { own, level, scatter } = evidence.surroundings;
    let contrast = if level == 0.0 { evidence.snr } else { evidence.snr.min(own - level) };
    let psf_area = 4.0 * std::f64::consts::PI * scene.psf_sigma_eff_px.powi(2);
    let excess2 = scene.noise_excess.powi(2);
    let white = WHITE_PART * (excess2 - 1.0);
    let around = (evidence.misfit - white).max(0.0);
    let of_misfit = if evidence.snr < MODELLED_SNR {
        let along = (scene.chains.misfit_along(evidence.profile, evidence.segment.length_px()) - white).max(0.0);
        (around * psf_area).min((along * psf_area.sqrt()).max((around - FAINT_STARS) * psf_area))
    } else {
        around * psf_area
    };
    let noise = (excess2 + of_misfit).sqrt().max(scatter);
    contrast < evidence.threshold_snr * noise / scene.noise_excess
}

/// Sine of the angle to an axis below which a track lies along it: 1 degree.
const AXIS_SLACK: f64 = 0.0175;

/// Charge spills along whole columns: what ends so near the one in which it begins, and lies in the column of a saturated
/// star, by so many PSF widths, is it.
const COLUMN_PX: f64 = 1.0;
const COLUMN_OFF_SIGMAS: f64 = 2.0;

/// Both ends within two PSF widths of the same border.
fn hugs_border(s: &Segment, scene: &Scene<'_>) -> bool {
    let near = 2.0 * scene.psf_sigma_eff_px;
    let (right, bottom) = (scene.width as f64 - 1.0, scene.height as f64 - 1.0);
    let along = |f: &dyn Fn(Point) -> f64| f(s.start) < near && f(s.end) < near;
    along(&|p| p.x) || along(&|p| p.y) || along(&|p| right - p.x) || along(&|p| bottom - p.y)
}

/// A trail's own light lies within so many of its widths.
const CORE_WIDTHS: f64 = 2.5;

/// Tracks at a larger angle to a trail than this, 15 degrees, are no residuals of its wings.
const WING_ANGLE_RAD: f64 = 0.26;

/// Most of the track within the width of a trail of at least twice its S/N.
pub(crate) fn lies_along(s: &Segment, snr: f64, trail: &KnownTrail) -> bool {
    let ratio = trail.snr / snr;
    if ratio < 2.0 {
        return false;
    }
    // Of a much brighter trail even the wings are bright. Those of a Moffat profile of index 3 and of the Gaussian's
    // FWHM, summed along the trail, fall by the ratio within this many widths. What they leave runs along it.
    let wings = 2.31 * (ratio.powf(0.4) - 1.0).sqrt();
    let is_within = |at: f64, widths: f64| trail.segment.distance_to(s.at(at)) < widths * trail.sigma_eff_px;
    // What is near a segment is one part of the track: most of it has the middle.
    if !is_within(0.5, wings.max(CORE_WIDTHS)) {
        return false;
    }
    let is_level = track_angle_difference(s.angle_rad(), trail.segment.angle_rad()) < WING_ANGLE_RAD;
    let widths = if is_level { wings.max(CORE_WIDTHS) } else { CORE_WIDTHS };
    (0..=10).filter(|i| is_within(f64::from(*i) / 10.0, widths)).count() >= 7
}

/// A short line in the outskirts of a bright star.
fn is_beside(s: &Segment, star: &BrightStar) -> bool {
    s.length_px() < 5.0 * star.radius_px && s.distance_to(star.position) < 2.0 * star.radius_px
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(signal: Vec<f32>) -> TrackProfile {
        let variance = vec![1.0; signal.len()];
        TrackProfile { bin_px: 1.0, first_px: 0.0, signal, variance }
    }

    fn verdict(segment: Segment, sigma: f64, signal: Vec<f32>, stars: &[BrightStar]) -> Option<RejectReason> {
        verdict_in(segment, sigma, &profile(signal), stars, 60)
    }

    /// In a field of so many sources on 500 x 400 pixels.
    fn verdict_in(
        segment: Segment,
        sigma: f64,
        profile: &TrackProfile,
        stars: &[BrightStar],
        n_sources: usize,
    ) -> Option<RejectReason> {
        let evidence = Evidence {
            segment,
            length_68_px: 1.0,
            sigma_eff_px: sigma,
            sigma_eff_err_px: 0.02,
            snr: 12.0,
            threshold_snr: 6.2,
            has_light: true,
            misfit: 0.0,
            surroundings: Surroundings { own: 12.0, level: 0.0, scatter: 1.0 },
            profile,
            gain_over_stars: f64::INFINITY,
            has_no_twin: false,
        };
        let scene = Scene {
            width: 500,
            height: 400,
            psf_sigma_eff_px: 1.5,
            min_length_px: 8.0,
            chains: ChainPrior::new(n_sources, 500 * 400, 1.5, 1.0),
            noise_excess: 1.0,
            stars,
            trails: &[],
            uneven: &UnevenSky::none(500, 400),
        };
        judge(&evidence, &scene, &JudgeConfig::default())
    }

    #[test]
    fn reasons() {
        let line = Segment::from_coordinates(100.0, 100.0, 160.0, 130.0);
        let even = vec![1.5; 70];
        assert_eq!(verdict(line, 1.5, even.clone(), &[]), None);
        assert_eq!(verdict(line, 0.5, even.clone(), &[]), Some(RejectReason::CosmicRay));
        assert_eq!(verdict(line, 6.0, even.clone(), &[]), Some(RejectReason::Extended));
        let column = Segment::from_coordinates(100.0, 100.0, 100.2, 160.0);
        assert_eq!(verdict(column, 0.4, even.clone(), &[]), Some(RejectReason::HotColumn));
        let row = Segment::from_coordinates(100.0, 100.0, 160.0, 100.2);
        assert_eq!(verdict(row, 0.4, even.clone(), &[]), Some(RejectReason::HotRow));
        let border = Segment::from_coordinates(100.0, 1.0, 160.0, 1.5);
        assert_eq!(verdict(border, 1.5, even.clone(), &[]), Some(RejectReason::FrameEdge));
        let star = |i: i32, at: i32| 8.0 * (-0.5 * (f64::from(i - at) / 1.5).powi(2)).exp();
        let two_stars = (0..70).map(|i| (star(i, 6) + star(i, 62)) as f32).collect();
        assert_eq!(verdict(line, 1.5, two_stars, &[]), Some(RejectReason::StarResidual));
    }

    #[test]
    fn in_a_crowd_what_is_as_short_as_a_blend_is_a_stars() {
        let verdict = |length: f64, n_sources: usize| {
            let segment = Segment::from_coordinates(100.0, 100.0, 100.0 + length, 101.0);
            // Evenly lit up to where a mask begins.
            let lit = length as usize + 5;
            let signal = (0..lit + 4).map(|i| if (5..lit).contains(&i) { 30.0 } else { 0.0 }).collect();
            let variance = (0..lit + 4).map(|i| if i < lit { 1.0 } else { 0.0 }).collect();
            let profile = TrackProfile { bin_px: 1.0, first_px: 0.0, signal, variance };
            verdict_in(segment, 1.5, &profile, &[], n_sources)
        };
        assert_eq!(verdict(10.0, 300), Some(RejectReason::StarResidual));
        assert_eq!(verdict(10.0, 2), None, "few stars");
        assert_eq!(verdict(11.0, 300), None, "long enough");
    }

    #[test]
    fn residuals_lie_along_their_trail() {
        let trail =
            KnownTrail { segment: Segment::from_coordinates(50.0, 50.0, 250.0, 60.0), sigma_eff_px: 1.5, snr: 40.0 };
        assert!(lies_along(&Segment::from_coordinates(80.0, 52.0, 120.0, 54.5), 10.0, &trail));
        assert!(!lies_along(&Segment::from_coordinates(80.0, 59.0, 120.0, 61.0), 10.0, &trail), "parallel, 7 px apart");
        assert!(!lies_along(&Segment::from_coordinates(100.0, 20.0, 120.0, 90.0), 10.0, &trail), "crossing");
        assert!(!lies_along(&Segment::from_coordinates(80.0, 52.0, 120.0, 54.5), 30.0, &trail), "as bright");
    }

    #[test]
    fn bright_stars_explain_lines() {
        let star = BrightStar {
            position: Point::new(100.0, 100.0),
            radius_px: 12.0,
            snr: 1e3,
            saturated: true,
            elongated: false,
        };
        let even = vec![1.5; 70];
        let spike = Segment::from_coordinates(115.0, 107.5, 160.0, 130.0);
        assert_eq!(verdict(spike, 1.5, even.clone(), &[star]), Some(RejectReason::DiffractionSpike));
        let faint = BrightStar { snr: 100.0, saturated: false, ..star };
        assert_eq!(verdict(spike, 1.5, even.clone(), &[faint]), None, "S/N 12 is too much for its spike");
        let bleed = Segment::from_coordinates(100.3, 110.0, 100.1, 180.0);
        assert_eq!(verdict(bleed, 1.5, even.clone(), &[star]), Some(RejectReason::BleedColumn));
        let short = |x: f64, lean_px: f64| Segment::from_coordinates(x, 96.0, x + lean_px, 112.0);
        assert_eq!(verdict(short(100.0, 0.8), 1.5, even.clone(), &[star]), Some(RejectReason::BleedColumn));
        assert_ne!(verdict(short(100.0, 1.2), 1.5, even.clone(), &[star]), Some(RejectReason::BleedColumn));
        assert_ne!(verdict(short(104.0, 0.8), 1.5, even.clone(), &[star]), Some(RejectReason::BleedColumn));
        let crossing = Segment::from_coordinates(70.0, 85.0, 240.0, 170.0);
        assert_eq!(verdict(crossing, 1.5, even, &[star]), None);
    }
}
