//! Merge stage, in frames whose stars are trails: what several stars explain as well is no trail of its own.
//!
//! Method: docs/algorithm.md, "Merge".

use crate::Result;
use crate::backend::{Backend, TrackProfile};
use crate::detection::TrackingMode;
use crate::geometry::{Point, Segment, track_angle_difference};
use crate::pipeline::measure::{Trail, TrailFit};
use crate::pipeline::merge::{Believed, Origin, Search};
use crate::pipeline::tracking;

/// S/N² that a star must win to be tried.
const STAR_PRICE: f64 = 9.0;

/// What a parameter more wins of noise alone, in S/N².
const CHANCE: f64 = 1.0;

/// A star's place and light; a trail's ends and light.
const STAR_PARAMETERS: usize = 3;
const TRAIL_PARAMETERS: usize = 5;

/// Part of the S/N² that stars placed on a grid may lack.
const GRID_LOSS: f64 = 0.03;

/// Distance of the grid's tracks, in PSF widths.
const STEP_SIGMAS: f64 = 0.5;

/// How often every star is placed anew with the others taken out.
const ROUNDS: usize = 2;

/// Stars tried for one trail, at most.
const MOST_STARS: usize = 8;

/// A blend runs along the stars' direction to this, rad: the diagonal of two trails side by side.
const MOST_ANGLE_RAD: f64 = 0.5;

/// How far from the trail its stars are looked for, in PSF widths.
const REACH_SIGMAS: f64 = 3.0;

impl Search<'_> {
    /// Puts stars in the place of trails that stars of the common vector explain better.
    pub(crate) fn split_blends(&mut self, believed: &mut Vec<Believed>, mode: &TrackingMode) -> Result<()> {
        let TrackingMode::Rate { star_length_px, star_angle_rad, .. } = *mode else { return Ok(()) };
        let could_be_blend = |b: &Believed| {
            !tracking::is_star(mode, &b.as_seen())
                && track_angle_difference(b.trail().segment.angle_rad(), star_angle_rad) < MOST_ANGLE_RAD
        };
        let suspects: Vec<usize> = (0..believed.len()).filter(|&i| could_be_blend(&believed[i])).collect();
        let excess2 = self.thresholds.noise_excess.powi(2);
        let mut parted = Vec::new();
        for i in suspects {
            let whole = believed[i];
            self.backend.add_trails(&[whole.trail()], 1.0)?;
            let mut strip = Strip::around(self.backend, &whole.trail(), star_length_px, star_angle_rad)?;
            let (stars, power) = strip.take_stars(STAR_PRICE * excess2);
            let more_parameters = (STAR_PARAMETERS * stars.len()) as f64 - TRAIL_PARAMETERS as f64;
            if power <= (1.0 - GRID_LOSS) * whole.fit.snr.powi(2) + CHANCE * excess2 * more_parameters {
                self.backend.add_trails(&[whole.trail()], -1.0)?;
                continue;
            }
            let fits: Vec<TrailFit> = stars
                .iter()
                .map(|s| TrailFit {
                    trail: Trail { segment: s.segment, flux: s.flux, ..whole.trail() },
                    snr: s.snr,
                    ..whole.fit
                })
                .collect();
            self.backend.add_trails(&fits.iter().map(|f| f.trail).collect::<Vec<_>>(), -1.0)?;
            parted.push(i);
            parted.extend(believed.len()..believed.len() + fits.len() - 1);
            let mut stars = fits.into_iter().map(|fit| Believed { fit, origin: Origin::Parted });
            believed[i] = stars.next().unwrap_or(whole);
            believed.extend(stars);
        }
        // Each with the others taken out, until they have shared the light.
        self.fit_again(believed, &parted)?;
        self.fit_again(believed, &parted)
    }
}

/// A star found in a strip.
struct Star {
    segment: Segment,
    flux: f64,
    snr: f64,
}

/// The light around a trail on tracks side by side, all along the stars' direction.
struct Strip {
    sigma_px: f64,
    star_px: f64,
    tracks: Vec<Track>,
    /// Light of a star in the bins from its first on.
    shape: Vec<f64>,
}

struct Track {
    segment: Segment,
    /// Distance from the trail's middle, across.
    across_px: f64,
    first_px: f64,
    bin_px: f64,
    signal: Vec<f64>,
    variance: Vec<f64>,
}

/// A place for a star: the track, the first bin its light reaches, and what it explains there.
#[derive(Clone, Copy)]
struct Place {
    track: usize,
    bin: usize,
    /// Light per length, and the S/N² it has.
    density: f64,
    power: f64,
}

impl Strip {
    fn around(backend: &mut dyn Backend, trail: &Trail, star_px: f64, star_angle_rad: f64) -> Result<Self> {
        let sigma_px = trail.sigma_eff_px;
        let middle = trail.segment.midpoint();
        let direction = Segment::around(middle, 1.0, star_angle_rad);
        let (c, s) = direction.direction();
        let (u, v) = direction.along_across(trail.segment.start);
        let half_length = (u - 0.5).abs() + 0.5 * star_px + 2.0 * REACH_SIGMAS * sigma_px;
        let step_px = STEP_SIGMAS * sigma_px;
        let rows = ((v.abs() + REACH_SIGMAS * sigma_px) / step_px).ceil() as i32;
        let offsets = (-rows..=rows).map(|row| f64::from(row) * step_px);
        let segments: Vec<Segment> = offsets
            .clone()
            .map(|offset| {
                let centre = Point::new(middle.x - s * offset, middle.y + c * offset);
                Segment::around(centre, 2.0 * half_length, star_angle_rad)
            })
            .collect();
        let profiles = backend.profiles(&segments, sigma_px as f32)?;
        let tracks = offsets.zip(segments).zip(&profiles).map(|((o, segment), p)| Track::new(segment, o, p));
        Ok(Self::new(tracks.collect(), sigma_px, star_px))
    }

    fn new(tracks: Vec<Track>, sigma_px: f64, star_px: f64) -> Self {
        let bin_px = tracks.first().map_or(1.0, |t| t.bin_px);
        let n = ((star_px + 2.0 * REACH_SIGMAS * sigma_px) / bin_px).ceil() as usize;
        let shape = (0..n).map(|k| plateau(k as f64 * bin_px - REACH_SIGMAS * sigma_px, star_px, sigma_px)).collect();
        Self { sigma_px, star_px, tracks, shape }
    }

    /// The stars that explain the light, while each wins more S/N² than its price, and the S/N² of all together. They
    /// are taken out.
    fn take_stars(&mut self, price: f64) -> (Vec<Star>, f64) {
        let mut places = Vec::new();
        let mut power = 0.0;
        while places.len() < MOST_STARS {
            let Some(place) = self.best_place().filter(|p| p.power > price) else { break };
            self.add(&place, -1.0);
            power += place.power;
            places.push(place);
        }
        if places.len() > 1 {
            for _ in 0..ROUNDS {
                for place in &mut places {
                    power -= self.power_of(place);
                    self.add(place, 1.0);
                    *place = self.best_place().unwrap_or(*place);
                    power += place.power;
                    self.add(place, -1.0);
                }
            }
        }
        (places.iter().map(|p| self.star_at(p)).collect(), power)
    }

    fn star_at(&self, place: &Place) -> Star {
        let Track { segment, .. } = &self.tracks[place.track];
        let at = |u: f64| segment.at(u / segment.length_px());
        let begin_px = self.begin_px(place);
        Star {
            segment: Segment::new(at(begin_px), at(begin_px + self.star_px)),
            flux: place.density * self.star_px,
            snr: place.power.sqrt(),
        }
    }

    /// Where along its track a star begins.
    fn begin_px(&self, place: &Place) -> f64 {
        self.tracks[place.track].place_of(place.bin) + REACH_SIGMAS * self.sigma_px
    }

    /// Light and its variance under a star's template: their ratio is its light per length.
    fn matched(&self, signal: &[f64], variance: &[f64]) -> (f64, f64) {
        let light = self.shape.iter().zip(signal).map(|(m, s)| m * s).sum();
        let variance = self.shape.iter().zip(variance).map(|(m, v)| m * m * v).sum();
        (light, variance)
    }

    /// What a star explains that has been taken out: how much its light would add to the sum of squares.
    fn power_of(&self, place: &Place) -> f64 {
        let track = &self.tracks[place.track];
        let bins = place.bin..place.bin + self.shape.len();
        let (left, variance) = self.matched(&track.signal[bins.clone()], &track.variance[bins]);
        place.density * (2.0 * left + place.density * variance)
    }

    fn best_place(&self) -> Option<Place> {
        let places = self.tracks.iter().enumerate().flat_map(|(track, t)| {
            let signal = t.signal.windows(self.shape.len()).zip(t.variance.windows(self.shape.len()));
            signal.enumerate().filter_map(move |(bin, (signal, variance))| {
                let (light, variance) = self.matched(signal, variance);
                (light > 0.0 && variance > 0.0).then(|| Place {
                    track,
                    bin,
                    density: light / variance,
                    power: light * light / variance,
                })
            })
        });
        places.max_by(|a, b| a.power.total_cmp(&b.power))
    }

    /// Adds `factor` times a star to all tracks.
    fn add(&mut self, place: &Place, factor: f64) {
        let (begin_px, centre_px) = (self.begin_px(place), self.tracks[place.track].across_px);
        for track in &mut self.tracks {
            let apart = (track.across_px - centre_px) / self.sigma_px;
            // Two transverse profiles side by side.
            let density = factor * place.density * (-0.25 * apart * apart).exp();
            for bin in 0..track.signal.len() {
                let share = plateau(track.place_of(bin) - begin_px, self.star_px, self.sigma_px);
                track.signal[bin] += density * share * track.variance[bin];
            }
        }
    }
}

impl Track {
    fn new(segment: Segment, across_px: f64, profile: &TrackProfile) -> Self {
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect();
        Self {
            segment,
            across_px,
            first_px: profile.first_px,
            bin_px: profile.bin_px,
            signal: wide(&profile.signal),
            variance: wide(&profile.variance),
        }
    }

    fn place_of(&self, bin: usize) -> f64 {
        self.first_px + bin as f64 * self.bin_px
    }
}

/// Light along a trail of unit light per length that begins at 0: an even line, blurred by the PSF.
fn plateau(u: f64, length_px: f64, sigma_px: f64) -> f64 {
    let step = |t: f64| 0.5 * (1.0 + libm::erf(t / (sigma_px * std::f64::consts::SQRT_2)));
    step(u) - step(u - length_px)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGMA: f64 = 1.5;
    const STAR: f64 = 30.0;

    /// Tracks of 120 bins, 1.5 px apart, with stars of (begin, across, light per length) in them; variance 1.
    fn strip(stars: &[(f64, f64, f64)]) -> Strip {
        let track = |row: i32| {
            let across_px = f64::from(row) * SIGMA;
            let light = |bin: i32| -> f64 {
                stars
                    .iter()
                    .map(|(begin, across, density)| {
                        let apart = (across_px - across) / SIGMA;
                        density * (-0.25 * apart * apart).exp() * plateau(f64::from(bin) - begin, STAR, SIGMA)
                    })
                    .sum()
            };
            Track {
                segment: Segment::from_coordinates(0.0, across_px, 119.0, across_px),
                across_px,
                first_px: 0.0,
                bin_px: 1.0,
                signal: (0..120).map(light).collect(),
                variance: vec![1.0; 120],
            }
        };
        Strip::new((-8..=8).map(track).collect(), SIGMA, STAR)
    }

    #[test]
    fn stars_side_by_side_are_told_apart() {
        let (stars, power) = strip(&[(20.0, -4.5, 3.0), (45.0, 3.0, 2.0)]).take_stars(9.0);
        assert!((power - 30.0 * (9.0 + 4.0)).abs() < 25.0, "{power}");
        assert_eq!(stars.len(), 2);
        let begins: Vec<(f64, f64)> = stars.iter().map(|s| (s.segment.start.x, s.segment.start.y)).collect();
        for ((x, y), (begin, across)) in begins.iter().zip([(20.0, -4.5), (45.0, 3.0)]) {
            assert!((x - begin).abs() < 1.0 && (y - across).abs() < 0.8, "{begins:?}");
        }
        // S/N of an even trail of unit noise: density times the root of its length, nearly.
        assert!((stars[0].snr - 3.0 * 30_f64.sqrt()).abs() < 0.7, "{}", stars[0].snr);
        assert!((stars[1].flux - 60.0).abs() < 3.0, "{}", stars[1].flux);
    }

    #[test]
    fn an_empty_strip_has_no_stars() {
        assert!(strip(&[]).take_stars(9.0).0.is_empty());
        assert!(strip(&[(20.0, 0.0, 0.3)]).take_stars(9.0).0.is_empty(), "S/N 1.6");
    }
}
