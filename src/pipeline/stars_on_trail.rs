//! Measure stage: stars on and beside a trail, too faint to be weighed out before. They pull the fit to themselves.
//!
//! Method: docs/algorithm.md, "Measure".

use crate::Result;
use crate::backend::{Backend, TrackProfile};
use crate::geometry::{Point, Segment};
use crate::pipeline::chain::{ChainPrior, Stretch};
use crate::pipeline::measure::Trail;
use crate::pipeline::merge::STAR_WIDTHS;
use crate::pipeline::weigh::Footprint;

/// Stars are looked for on tracks so many PSF widths apart, so many of them to either side of the trail's own.
const TRACK_STEP: f64 = 1.5;
const MOST_SIDES: i32 = 6;
const N_TRACKS: usize = 2 * MOST_SIDES as usize + 1;

/// What a bend leaves of a trail lies no further off than so many tracks.
const NEAR_SIDES: i32 = 2;

/// They have to be so much of the trail's own brightness: a trail's light is uneven too.
const CONTRAST: f64 = 0.5;

/// So near to an end, in PSF widths, a star decides on the end. There light is given up as well: on the axis only in a crowd,
/// for it may be a glint of the trail, and beside it where it is so many times brighter than the trail, which a bend is not.
const NEAR_END: f64 = 5.0;
const BRIGHT_CONTRAST: f64 = 1.0;

/// The stars on one trail.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct StarsOn {
    /// Those that are to be weighed out.
    pub(crate) given_up: Vec<Footprint>,
    /// Flux that may be that of stars, or the trail's own.
    pub(crate) flux_in_doubt: f64,
}

/// The stars on each trail; where many seem to lie beside it, it is bent, or another one runs there, and they are no stars. All
/// trails are out of the residual image.
pub(crate) fn stars_on(backend: &mut dyn Backend, trails: &[Trail], chains: &ChainPrior) -> Result<Vec<StarsOn>> {
    if !chains.has_stars() {
        return Ok(vec![StarsOn::default(); trails.len()]);
    }
    let sigma_px = chains.sigma_px();
    let radius_px = STAR_WIDTHS * sigma_px;
    let tracks: Vec<Segment> = trails.iter().flat_map(|t| tracks(&t.segment, sigma_px)).collect();
    let profiles = backend.profiles(&tracks, sigma_px as f32)?;
    let of_trail = |((trail, tracks), profiles): ((&Trail, &[Segment]), &[TrackProfile])| {
        let least = CONTRAST * trail.flux / trail.segment.length_px();
        let mut stars: Vec<Star> = tracks
            .iter()
            .zip(profiles)
            .zip(-MOST_SIDES..)
            .flat_map(|((track, profile), side)| seen_on((track, side), profile, least, chains))
            .collect();
        stars.sort_by(|a, b| b.gain.total_cmp(&a.gain));
        let mut apart: Vec<Star> = Vec::new();
        for star in stars {
            if apart.iter().all(|a| a.place.distance(star.place) > radius_px) {
                apart.push(star);
            }
        }
        StarsOn::of(trail, &apart, chains)
    };
    Ok(trails.iter().zip(tracks.chunks(N_TRACKS)).zip(profiles.chunks(N_TRACKS)).map(of_trail).collect())
}

impl StarsOn {
    /// Tells stars from what may be the trail's own.
    fn of(trail: &Trail, seen: &[Star], chains: &ChainPrior) -> Self {
        let (segment, sigma_px) = (&trail.segment, chains.sigma_px());
        let bright = BRIGHT_CONTRAST * trail.flux / segment.length_px();
        let may_be_its_own = |star: &&Star| {
            let from_ends = [segment.start, segment.end].map(|end| end.distance(star.place));
            let is_at_end = from_ends.iter().any(|px| *px < NEAR_END * sigma_px);
            match (star.side, is_at_end) {
                (0, _) => !is_at_end || !chains.is_crowded(),
                (side, true) => side.abs() <= NEAR_SIDES && star.per_px < bright,
                _ => false,
            }
        };
        let (own, others): (Vec<&Star>, Vec<&Star>) = seen.iter().partition(may_be_its_own);
        let (near, far): (Vec<&Star>, Vec<&Star>) = others.into_iter().partition(|s| s.side.abs() <= NEAR_SIDES);
        let unless_too_many = |stars: Vec<&Star>, n_tracks: i32| -> Vec<Footprint> {
            let area = segment.length_px() * f64::from(n_tracks) * TRACK_STEP * sigma_px;
            let too_many = chains.are_too_many(stars.len(), area);
            if too_many { Vec::new() } else { stars.iter().map(|s| s.footprint(STAR_WIDTHS * sigma_px)).collect() }
        };
        let in_doubt = seen.iter().filter(|star| star.side == 0 || own.contains(star));
        let flux_in_doubt = in_doubt.map(|star| star.in_trail.powi(2)).sum::<f64>().sqrt();
        let near = unless_too_many(near, 2 * NEAR_SIDES + 1);
        let far = unless_too_many(far, 2 * (MOST_SIDES - NEAR_SIDES));
        Self { given_up: [near, far].concat(), flux_in_doubt }
    }
}

/// What is to be weighed out of the stretches by which a fit goes beyond the ends of a trail: the stars that drew it there.
pub(crate) fn footprints_beyond(
    backend: &mut dyn Backend,
    ends: &Segment,
    fitted: &Segment,
    chains: &ChainPrior,
) -> Result<Vec<Footprint>> {
    let radius_px = STAR_WIDTHS * chains.sigma_px();
    let stretches = [(ends.start, fitted.start), (ends.end, fitted.end)];
    let is_beyond =
        |(end, fitted): &(Point, Point)| ends.distance_to(*fitted) > 0.5 * end.distance(*fitted).max(radius_px);
    let stretches = stretches.into_iter().filter(is_beyond).map(|(end, fitted)| Segment::new(end, fitted));
    let tracks: Vec<Segment> = stretches.map(|s| s.extended(0.0, radius_px)).collect();
    let profiles = backend.profiles(&tracks, chains.sigma_px() as f32)?;
    let seen = tracks.iter().zip(&profiles).flat_map(|(track, profile)| seen_on((track, 0), profile, 0.0, chains));
    Ok(seen.map(|star| star.footprint(radius_px)).collect())
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Star {
    place: Point,
    /// The track on which it is brightest.
    side: i32,
    gain: f64,
    /// Light per length of its track at its place.
    per_px: f64,
    /// Flux that it adds to that of an even trail on its track.
    in_trail: f64,
}

impl Star {
    fn footprint(&self, radius_px: f64) -> Footprint {
        Footprint { x: self.place.x as f32, y: self.place.y as f32, radius_px: radius_px as f32 }
    }
}

/// The trail's own track and those beside it.
fn tracks(trail: &Segment, sigma_px: f64) -> impl Iterator<Item = Segment> + use<> {
    let trail = *trail;
    (-MOST_SIDES..=MOST_SIDES).map(move |side| trail.moved_across(f64::from(side) * TRACK_STEP * sigma_px))
}

/// Those seen on a track that are brighter than the least light per length.
fn seen_on((track, side): (&Segment, i32), profile: &TrackProfile, least: f64, chains: &ChainPrior) -> Vec<Star> {
    let place = |bin: usize| profile.first_px + bin as f64 * profile.bin_px;
    let weights = || profile.variance.iter().map(|w| f64::from(*w)).enumerate();
    let whole: f64 = weights().map(|(_, w)| w).sum();
    let clear = Stretch::of(profile, chains).clear_stars().collect::<Vec<_>>().into_iter();
    let star = |(bin, gain, per_px): (usize, f64, f64)| {
        let along = place(bin) / track.length_px();
        let is_on_it = (0.0..1.0).contains(&along) && per_px > least;
        // Light spread evenly over the bins that are seen.
        let light = |b: usize| per_px * (-0.5 * ((place(b) - place(bin)) / chains.sigma_px()).powi(2)).exp();
        let in_trail = || track.length_px() * weights().map(|(b, w)| w * light(b)).sum::<f64>() / whole;
        is_on_it.then(|| Star { place: track.at(along), side, gain, per_px, in_trail: in_trail() })
    };
    clear.filter_map(star).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::pipeline::background::{self, Mesh};
    use crate::{Frame, simulate};

    const SIGMA: f64 = 1.5;
    const TRACK: Segment = Segment::new(Point::new(40.3, 50.7), Point::new(190.0, 120.2));

    /// The stars on a trail of this light per length, with a point source of S/N 15 at a place along and across.
    fn seen(n_sources: usize, per_px: f64, along: f64, across: f64) -> StarsOn {
        let (width, height) = (256, 200);
        let mut pixels = simulate::gaussian_frame(width, height, 3, 1.0);
        let (c, s) = TRACK.direction();
        let place = Point::new(TRACK.start.x + along * c - across * s, TRACK.start.y + along * s + across * c);
        let flux = 15.0 * 2.0 * std::f64::consts::PI.sqrt() * SIGMA;
        simulate::add_streak(&mut pixels, width, &Segment::new(place, place), SIGMA, flux);
        let mut backend = CpuBackend::default();
        backend.prepare(width, height).unwrap();
        backend.ingest(&Frame::new(&pixels, width, height).unwrap()).unwrap();
        background::draw_map(&mut backend, Mesh::new(width, height, 64)).unwrap().unwrap();
        let chains = ChainPrior::new(n_sources, width * height, SIGMA, 1.0);
        let trail = Trail { segment: TRACK, flux: per_px * TRACK.length_px(), background: 0.0, sigma_eff_px: SIGMA };
        stars_on(&mut backend, &[trail], &chains).unwrap().remove(0)
    }

    #[test]
    fn stars_around_a_trail_and_at_its_ends_are_given_up() {
        for (along, across) in [(70.0, 2.2), (70.0, -3.5), (70.0, 12.0), (3.0, 2.2), (3.0, 0.0)] {
            let StarsOn { given_up, flux_in_doubt } = seen(40, 1.0, along, across);
            assert_eq!((given_up.len(), flux_in_doubt > 0.0), (1, across == 0.0), "{across}: {given_up:?}");
            let (u, v) = TRACK.along_across(given_up[0].position());
            assert!((u - along).abs() < 1.5 && (v - across).abs() < 2.0, "{along} {across}: {u}, {v}");
        }
    }

    #[test]
    fn what_may_be_the_trails_own_stays_in_doubt() {
        let flux = 15.0 * 2.0 * std::f64::consts::PI.sqrt() * SIGMA;
        // A glint; one at an end, where stars are few; what a bend leaves beside an end, as bright as the trail.
        for (n_sources, per_px, along, across) in [(40, 1.0, 70.0, 0.0), (6, 1.0, 3.0, 0.0), (40, 22.0, 3.0, 2.2)] {
            let StarsOn { given_up, flux_in_doubt } = seen(n_sources, per_px, along, across);
            let of_all = flux_in_doubt / flux;
            assert!(given_up.is_empty() && (of_all - 1.0).abs() < 0.3, "{along} {across}: {of_all}, {given_up:?}");
        }
    }

    #[test]
    fn what_is_no_star_on_it_stays() {
        assert_eq!(seen(0, 1.0, 70.0, 2.2), StarsOn::default(), "a field without stars");
        assert_eq!(seen(40, 60.0, 70.0, 2.2), StarsOn::default(), "far fainter than the trail");
        assert_eq!(seen(40, 1.0, 70.0, 20.0), StarsOn::default(), "far beside");
    }
}
