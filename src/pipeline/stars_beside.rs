//! Measure stage: stars beside a trail, too faint to be weighed out before. They pull the fit to themselves.
//!
//! Method: docs/algorithm.md, "Measure".

use crate::Result;
use crate::backend::{Backend, TrackProfile};
use crate::geometry::{Point, Segment};
use crate::pipeline::chain::{ChainPrior, Stretch};
use crate::pipeline::measure::Trail;
use crate::pipeline::merge::STAR_WIDTHS;
use crate::pipeline::weigh::Footprint;

/// Stars are looked for on tracks so many PSF widths apart.
const TRACK_STEP: f64 = 1.5;
const SIDES: [i32; 5] = [-2, -1, 0, 1, 2];

/// They have to be so much of the trail's own brightness: a trail's light is uneven too.
const CONTRAST: f64 = 0.5;

/// So many PSF widths from the ends nothing is given up: there light decides on the end.
const FROM_END: f64 = 5.0;

/// What is to be weighed out of each trail: stars beside its axis. Light on the axis may be a glint of the trail, and where many
/// seem to lie beside it the trail is bent, or another one runs there. All trails are out of the residual image.
pub(crate) fn footprints(
    backend: &mut dyn Backend,
    trails: &[Trail],
    chains: &ChainPrior,
) -> Result<Vec<Vec<Footprint>>> {
    if !chains.has_stars() {
        return Ok(vec![Vec::new(); trails.len()]);
    }
    let sigma_px = chains.sigma_px();
    let radius_px = STAR_WIDTHS * sigma_px;
    let tracks: Vec<Segment> = trails.iter().flat_map(|t| tracks(&t.segment, sigma_px)).collect();
    let profiles = backend.profiles(&tracks, sigma_px as f32)?;
    let of_trail = |((trail, tracks), profiles): ((&Trail, &[Segment]), &[TrackProfile])| {
        let mut stars: Vec<Star> = tracks
            .iter()
            .zip(profiles)
            .zip(SIDES)
            .flat_map(|((track, profile), side)| stars_on(trail, (track, side), profile, chains))
            .collect();
        stars.sort_by(|a, b| b.gain.total_cmp(&a.gain));
        let mut apart: Vec<Star> = Vec::new();
        for star in stars {
            if apart.iter().all(|a| a.place.distance(star.place) > radius_px) {
                apart.push(star);
            }
        }
        let beside: Vec<Footprint> = apart
            .iter()
            .filter(|star| star.side != 0)
            .map(|star| Footprint { x: star.place.x as f32, y: star.place.y as f32, radius_px: radius_px as f32 })
            .collect();
        let area = trail.segment.length_px() * 2.0 * radius_px;
        if chains.are_too_many(beside.len(), area) { Vec::new() } else { beside }
    };
    Ok(trails.iter().zip(tracks.chunks(SIDES.len())).zip(profiles.chunks(SIDES.len())).map(of_trail).collect())
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
    let is_beyond = |(end, fitted): &(Point, Point)| ends.distance_to(*fitted) > 0.5 * end.distance(*fitted).max(radius_px);
    let stretches = stretches.into_iter().filter(is_beyond).map(|(end, fitted)| Segment::new(end, fitted));
    let tracks: Vec<Segment> = stretches.map(|s| s.extended(0.0, radius_px)).collect();
    let profiles = backend.profiles(&tracks, chains.sigma_px() as f32)?;
    let on_track = |(track, profile): (&Segment, &TrackProfile)| {
        let (track, stretch, length) = (*track, Stretch::of(profile, chains), track.length_px());
        let (first_px, bin_px) = (profile.first_px, profile.bin_px);
        let stars: Vec<(usize, f64, f64)> = stretch.clear_stars().collect();
        stars.into_iter().map(move |(bin, ..)| {
            let place = track.at((first_px + bin as f64 * bin_px) / length);
            Footprint { x: place.x as f32, y: place.y as f32, radius_px: radius_px as f32 }
        })
    };
    Ok(tracks.iter().zip(&profiles).flat_map(on_track).collect())
}

struct Star {
    place: Point,
    /// The track on which it is brightest.
    side: i32,
    gain: f64,
}

/// The trail's own track and those beside it.
fn tracks(trail: &Segment, sigma_px: f64) -> impl Iterator<Item = Segment> + use<> {
    let trail = *trail;
    SIDES.into_iter().map(move |side| trail.moved_across(f64::from(side) * TRACK_STEP * sigma_px))
}

/// Those seen on one of its tracks.
fn stars_on(trail: &Trail, (track, side): (&Segment, i32), profile: &TrackProfile, chains: &ChainPrior) -> Vec<Star> {
    let (length, sigma_px) = (track.length_px(), chains.sigma_px());
    let from_end = if side == 0 { FROM_END * sigma_px } else { 0.0 };
    let inside = from_end..length - from_end;
    let least = CONTRAST * trail.flux / length;
    let star = |(bin, gain, per_px): (usize, f64, f64)| {
        let along = profile.first_px + bin as f64 * profile.bin_px;
        (inside.contains(&along) && per_px > least).then(|| Star { place: track.at(along / length), side, gain })
    };
    Stretch::of(profile, chains).clear_stars().filter_map(star).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::pipeline::background::{self, Mesh};
    use crate::{Frame, simulate};

    const SIGMA: f64 = 1.5;
    const TRACK: Segment = Segment::new(Point::new(40.3, 50.7), Point::new(190.0, 120.2));

    /// What is given up of a trail of this light per length, a point source of S/N 15 at a place along and across.
    fn given_up(n_sources: usize, per_px: f64, along: f64, across: f64) -> Vec<Footprint> {
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
        footprints(&mut backend, &[trail], &chains).unwrap().concat()
    }

    #[test]
    fn stars_beside_the_axis_are_given_up() {
        for across in [2.2, -3.5] {
            let found = given_up(40, 1.0, 70.0, across);
            assert_eq!(found.len(), 1, "{across}: {found:?}");
            let (u, v) = TRACK.along_across(Point::new(f64::from(found[0].x), f64::from(found[0].y)));
            assert!((u - 70.0).abs() < 1.5 && (v - across).abs() < 2.0, "{across}: {u}, {v}");
        }
    }

    #[test]
    fn what_is_no_star_on_it_stays() {
        assert_eq!(given_up(0, 1.0, 70.0, 2.2), [], "a field without stars");
        assert_eq!(given_up(40, 1.0, 70.0, 0.0), [], "on the axis, as a glint is");
        assert_eq!(given_up(40, 60.0, 70.0, 2.2), [], "far fainter than the trail");
        assert_eq!(given_up(40, 1.0, 3.0, 2.2), [], "at an end");
        assert_eq!(given_up(40, 1.0, 70.0, 12.0), [], "far beside");
    }
}
