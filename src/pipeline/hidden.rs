//! Measure stage: how far from its place an end may lie that was fitted among pixels that were left out.
//!
//! Method: docs/algorithm.md, "Measure".

use crate::Result;
use crate::backend::{Backend, TrackProfile};
use crate::geometry::Segment;
use crate::pipeline::measure::TrailFit;

/// An end with less of its light than this on usable pixels was not seen.
const MIN_END_COVERAGE: f64 = 0.6;

/// Pixels are looked at so many PSF widths beyond the ends; what is hidden further is as long as the trail.
const REACH: f64 = 30.0;

/// Light is seen again after so many PSF widths of usable track: a bin of the track is usable with this part of the typical
/// weight.
const SEEN: f64 = 2.0;
const LEAST_USABLE: f64 = 0.5;

/// The least that an end is hidden by, in PSF widths: part of its light fell on pixels left out.
const LEAST_HIDDEN: f64 = 2.0;

/// Which ends of a trail were not seen.
pub(crate) fn are_hidden(fit: &TrailFit) -> [bool; 2] {
    fit.end_coverage.map(|coverage| coverage < MIN_END_COVERAGE)
}

/// For either end of some trails, px: the stretch of track around it on which nothing was seen, no longer than the trail; 0 where
/// the end was seen.
pub(crate) fn stretches(
    backend: &mut dyn Backend,
    fits: &[TrailFit],
    [width, height]: [usize; 2],
    sigma_px: f64,
) -> Result<Vec<[f64; 2]>> {
    let track = |fit: &TrailFit| {
        let segment = fit.trail.segment;
        segment.extended(REACH * sigma_px, REACH * sigma_px).clipped_to(width, height).unwrap_or(segment)
    };
    let some: Vec<usize> = (0..fits.len()).filter(|i| are_hidden(&fits[*i]).contains(&true)).collect();
    let tracks: Vec<Segment> = some.iter().map(|i| track(&fits[*i])).collect();
    let profiles = backend.profiles(&tracks, sigma_px as f32)?;
    let mut stretches = vec![[0.0; 2]; fits.len()];
    for ((i, track), profile) in some.into_iter().zip(&tracks).zip(&profiles) {
        let segment = fits[i].trail.segment;
        let along = [segment.start, segment.end].map(|end| track.along_across(end).0);
        for k in [0, 1].into_iter().filter(|k| are_hidden(&fits[i])[*k]) {
            let hidden_px = around(profile, along[k], SEEN * sigma_px).unwrap_or(f64::INFINITY);
            stretches[i][k] = hidden_px.max(LEAST_HIDDEN * sigma_px).min(segment.length_px());
        }
    }
    Ok(stretches)
}

/// The stretch around a place between usable ones of some length; none where the track ends before.
fn around(profile: &TrackProfile, place_px: f64, seen_px: f64) -> Option<f64> {
    let mut weights: Vec<f32> = profile.variance.iter().copied().filter(|w| *w > 0.0).collect();
    weights.sort_unstable_by(f32::total_cmp);
    let typical = f64::from(*weights.get(weights.len() / 2)?);
    let is_usable = |bin: &usize| f64::from(profile.variance[*bin]) > LEAST_USABLE * typical;
    let bin = ((place_px - profile.first_px) / profile.bin_px).round().max(0.0) as usize;
    let bin = bin.min(profile.variance.len() - 1);
    let enough = (seen_px / profile.bin_px).ceil().max(1.0) as usize;
    // Bins from the place to where so many usable ones begin.
    let until_seen = |bins: Vec<usize>| {
        let first = bins.windows(enough).position(|some| some.iter().all(is_usable));
        first.map(|first| first as f64)
    };
    let (up, down) = (until_seen((bin..profile.variance.len()).collect())?, until_seen((0..=bin).rev().collect())?);
    Some((up + down) * profile.bin_px)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_far_as_nothing_is_seen() {
        let hidden = |dark: std::ops::Range<usize>, place_px: f64| {
            let variance = (0..100).map(|bin| if dark.contains(&bin) { 0.1 } else { 1.0 }).collect();
            let profile = TrackProfile { bin_px: 0.5, first_px: 1.0, signal: vec![0.0; 100], variance };
            around(&profile, place_px, 3.0)
        };
        // From bin 40 to bin 60, 10 px.
        for place_px in [21.2, 25.0, 30.6] {
            let found = hidden(40..60, place_px).unwrap();
            assert!((found - 10.0).abs() < 1.1, "{place_px}: {found}");
        }
        assert_eq!(hidden(40..60, 10.0), Some(0.0), "seen");
        assert_eq!(hidden(60..97, 40.0), None, "the track ends before anything is seen");
    }
}
