//! Star trails: how far the light of bright ones reaches beyond what their models explain.
//!
//! Method: docs/algorithm.md, "Stars that trail".

use crate::Result;
use crate::backend::{Backend, MEDIAN_ERROR, TrackProfile};
use crate::geometry::Segment;
use crate::pipeline::believed::Believed;
use crate::pipeline::measure::Trail;
use crate::pipeline::weigh::Footprint;

/// Where wings are looked for, from the axis on, in PSF widths: a Gaussian's own light has ended, the wings have not.
const FIRST_SIGMAS: f64 = 2.5;
const STEP_SIGMAS: f64 = 1.5;
const LAST_SIGMAS: f64 = 25.0;

/// Light on the tracks beside a star counts from this S/N per square root of a pixel on: on ten pixels, as much as lies
/// around a star's end, it has a quarter of what a streak must have.
const LEAST_LIGHT: f64 = 0.5;

/// And from so many standard errors on.
const BY_CHANCE: f64 = 4.0;

/// What lies this near to a star, in PSF widths, and has less than this part of its S/N, may be a part of its wings.
const PART_SIGMAS: f64 = 8.0;
const PART_SHARE: f64 = 0.25;

/// So many of the brightest stars must show wings.
const LEAST_STARS: usize = 3;

/// A star's wings reach no less far than those of the middle one of itself and so many that are the next fainter.
const N_FAINTER: usize = 6;

/// They reach further with this power of the S/N: across a trail the light of a Moffat profile of index 3 falls with the
/// fifth power of the distance.
const FALL: f64 = 0.2;

/// The light around a bright star that its model does not explain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wings {
    segment: Segment,
    snr: f64,
    reach_px: f64,
}

impl Wings {
    /// The pixels that they light.
    pub(crate) fn footprints(&self) -> impl Iterator<Item = Footprint> + use<> {
        Footprint::around(&self.segment, self.reach_px)
    }

    /// A fainter star's trail lies in them: it is made of their light, or has much of it.
    pub(crate) fn hold(&self, star: &Believed) -> bool {
        let Segment { start, end } = star.trail().segment;
        star.fit.snr < PART_SHARE * self.snr
            && [start, end].iter().all(|p| self.segment.distance_to(*p) < self.reach_px)
    }
}

/// The wings of bright stars. All stars have been taken out of the residual image; those that may be made of the wings of
/// a brighter one are there again while these are measured.
pub(crate) fn find(
    backend: &mut dyn Backend,
    stars: &[Believed],
    is_bright: impl Fn(&Believed) -> bool,
    sigma_px: f64,
) -> Result<Vec<Wings>> {
    let mut bright: Vec<&Believed> = stars.iter().filter(|s| is_bright(s)).collect();
    bright.sort_by(|a, b| b.fit.snr.total_cmp(&a.fit.snr));
    let is_part = |star: &Believed, of: &Believed| {
        let apart = of.trail().segment.distance_to(star.trail().segment.midpoint());
        star.fit.snr < PART_SHARE * of.fit.snr && apart < PART_SIGMAS * sigma_px
    };
    let is_alone = |star: &Believed| !bright.iter().any(|of| is_part(star, of));
    let parts: Vec<Trail> = stars.iter().filter(|s| !is_alone(s)).map(Believed::trail).collect();
    let alone: Vec<&Believed> = bright.iter().copied().filter(|s| is_alone(s)).collect();
    let segments: Vec<Segment> = alone.iter().map(|s| s.trail().segment).collect();
    backend.add_trails(&parts, 1.0)?;
    let reaches = reaches_px(backend, &segments, sigma_px)?;
    backend.add_trails(&parts, -1.0)?;
    let seen: Vec<f64> = reaches.iter().copied().flatten().collect();
    if !are_of_the_psf(&seen) {
        return Ok(Vec::new());
    }
    let snrs: Vec<f64> = alone.iter().map(|s| s.fit.snr).collect();
    let of = |i: usize| Wings { segment: segments[i], snr: snrs[i], reach_px: reach_px(&snrs, &reaches, i) };
    Ok((0..alone.len()).map(of).filter(|w| w.reach_px > 0.0).collect())
}

/// Many of the brightest stars show them, whose reaches come first; what lies beside a few is others' light.
fn are_of_the_psf(reaches: &[f64]) -> bool {
    let brightest = &reaches[..reaches.len().div_ceil(2)];
    let n_lit = brightest.iter().filter(|reach| **reach > 0.0).count();
    n_lit >= LEAST_STARS && 3 * n_lit > brightest.len()
}

/// A star whose light is cut or hidden, or was taken for that of several, has wings no less than fainter ones, as they
/// fall.
fn reach_px(snrs: &[f64], reaches: &[Option<f64>], i: usize) -> f64 {
    let as_of = |j: usize| Some(reaches[j]? * (snrs[i] / snrs[j]).powf(FALL));
    let of_itself = usize::from(reaches[i].is_some());
    let mut next: Vec<f64> = (i..snrs.len()).filter_map(as_of).take(of_itself + N_FAINTER).collect();
    next.sort_unstable_by(f64::total_cmp);
    next.get(next.len() / 2).copied().unwrap_or(0.0).max(reaches[i].unwrap_or(0.0))
}

/// For every trail, whose model has been taken out of the residual image, how far from its axis there is light on both
/// sides, px; 0 where there is none, nothing where spilled charge hides it.
fn reaches_px(backend: &mut dyn Backend, trails: &[Segment], sigma_px: f64) -> Result<Vec<Option<f64>>> {
    let mut reaches = vec![None; trails.len()];
    let mut lit: Vec<usize> = (0..trails.len()).collect();
    let mut offset = FIRST_SIGMAS;
    while !lit.is_empty() && offset < LAST_SIGMAS {
        let beside = |i: &usize| [-offset, offset].map(|o| trails[*i].moved_across(o * sigma_px));
        let tracks: Vec<Segment> = lit.iter().flat_map(beside).collect();
        let profiles = backend.profiles(&tracks, sigma_px as f32)?;
        let mut sides = profiles.chunks_exact(2);
        lit.retain(|&i| {
            let Some(sides) = sides.next() else { return false };
            let is_lit = are_lit(sides);
            if is_lit {
                reaches[i] = Some((offset + 0.5 * STEP_SIGMAS) * sigma_px);
            } else if offset == FIRST_SIGMAS && !are_hidden(sides) {
                reaches[i] = Some(0.0);
            }
            is_lit || are_hidden(sides)
        });
        offset += STEP_SIGMAS;
    }
    Ok(reaches)
}

/// Both tracks at one distance are: light on one side alone is another star's.
fn are_lit(sides: &[TrackProfile]) -> bool {
    let snr_of = |side: &TrackProfile| side.median_light() * side.sums().1.sqrt();
    let usable_px = |side: &TrackProfile| side.bin_px * side.variance.iter().filter(|v| **v > 0.0).count() as f64;
    let n_sides = sides.len() as f64;
    let mean_px = sides.iter().map(usable_px).sum::<f64>() / n_sides;
    let least = (MEDIAN_ERROR * BY_CHANCE / n_sides.sqrt()).max(LEAST_LIGHT * mean_px.sqrt());
    sides.iter().map(snr_of).sum::<f64>() > n_sides * least && sides.iter().all(|side| snr_of(side) > 0.5 * least)
}

/// Spilled charge lies on most of them: their light begins further out.
fn are_hidden(sides: &[TrackProfile]) -> bool {
    let bins = || sides.iter().flat_map(|side| &side.variance);
    2 * bins().filter(|v| **v > 0.0).count() < bins().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::believed::Origin;
    use crate::pipeline::measure::TrailFit;

    /// A track of 40 bins with so much light in each, and as much again in some of them.
    fn side(light: f32, others: f32) -> TrackProfile {
        let signal = (0..40).map(|bin| light + if bin < 15 { others } else { 0.0 }).collect();
        TrackProfile { bin_px: 1.0, first_px: 0.0, signal, variance: vec![1.0; 40] }
    }

    #[test]
    fn wings_are_seen_on_both_sides() {
        assert!(are_lit(&[side(1.0, 0.0), side(1.0, 0.0)]));
        assert!(are_lit(&[side(1.6, 0.0), side(0.5, 0.0)]), "the star was fitted a little askew");
        assert!(!are_lit(&[side(0.3, 0.0), side(0.3, 0.0)]), "too little to make a streak");
        assert!(!are_lit(&[side(5.0, 0.0), side(0.0, 0.0)]), "another star's light");
        assert!(!are_lit(&[side(0.0, 9.0), side(0.0, 9.0)]), "stars on the tracks");
    }

    #[test]
    fn charge_hides_them_where_most_bins_have_no_weight() {
        let seen_from = |first: usize| {
            let mut side = side(5.0, 0.0);
            side.variance[..first].fill(0.0);
            side
        };
        assert!(are_hidden(&[seen_from(30), seen_from(20)]) && are_hidden(&[seen_from(40), seen_from(40)]));
        assert!(!are_hidden(&[seen_from(30), seen_from(0)]), "most of one side is seen");
        assert!(!are_lit(&[seen_from(40), seen_from(40)]));
    }

    #[test]
    fn wings_are_the_psfs() {
        assert!(are_of_the_psf(&[20.0, 0.0, 14.0, 11.0, 11.0, 8.0, 0.0, 0.0]));
        assert!(!are_of_the_psf(&[20.0, 0.0, 0.0, 11.0, 11.0, 8.0, 8.0, 8.0]), "two of the brighter four");
        assert!(!are_of_the_psf(&[
            9.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        ]));
        assert!(!are_of_the_psf(&[9.0]) && !are_of_the_psf(&[]));
    }

    #[test]
    fn a_star_in_pieces_has_the_wings_of_fainter_ones() {
        let snrs = [3200.0, 100.0, 100.0, 100.0, 10.0];
        let reaches = [0.0, 9.0, 8.0, 10.0, 0.0].map(Some);
        assert!((reach_px(&snrs, &reaches, 0) - 16.0).abs() < 1e-9, "twice as far: the fifth root of 32");
        assert_eq!(reach_px(&snrs, &reaches, 3), 10.0);
        assert_eq!(reach_px(&snrs, &reaches, 4), 0.0);
        let hidden = [None, Some(9.0), Some(8.0), None, Some(0.0)];
        assert!((reach_px(&snrs, &hidden, 0) - 16.0).abs() < 1e-9, "what is not seen is no wing of length zero");
        assert_eq!(reach_px(&snrs, &hidden, 3), 0.0);
    }

    #[test]
    fn a_fainter_star_lies_in_them() {
        let star = |y: f64, snr: f64| {
            let segment = Segment::from_coordinates(20.0, y, 50.0, y);
            let fit = TrailFit::unfitted(Trail { segment, flux: 1.0, background: 0.0, sigma_eff_px: 1.5 });
            Believed::new(TrailFit { snr, ..fit }, Origin::Star)
        };
        let wings = Wings { segment: star(40.0, 0.0).trail().segment, snr: 1000.0, reach_px: 9.0 };
        assert!(wings.hold(&star(47.0, 60.0)));
        assert!(!wings.hold(&star(47.0, 300.0)), "too bright for a part of them");
        assert!(!wings.hold(&star(50.0, 60.0)), "beyond");
    }
}
