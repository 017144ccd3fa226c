//! Does a trail stand out from what lies beside it? Its light against that of tracks parallel to it.
//!
//! Method: docs/algorithm.md, "Judge".

use crate::backend::{MEDIAN_ERROR, TrackProfile};
use crate::geometry::Segment;

/// How far the parallel tracks lie from the trail, to either side, in PSF widths: clear of it, and of each other.
const OFFSETS: [f64; 4] = [4.0, 7.0, 10.0, 13.0];

/// A parallel track on which less than this part of the trail's weight is usable tells nothing.
const LEAST_USABLE: f64 = 0.5;

/// With fewer there is no telling.
const LEAST_TRACKS: usize = 7;

/// In white noise the scatter measured from so few tracks is below so many times the true one, 999 times in 1000.
const SCATTER_BY_CHANCE: f64 = 2.2;

/// Standard errors by which the level must differ from zero to count.
const LEVEL_BY_CHANCE: f64 = 3.0;

/// Light beside a trail, in units of the noise that the background map gives the trail's own track.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Surroundings {
    /// Light on the trail's own track.
    pub(crate) own: f64,
    /// Light expected there from the tracks beside it; 0 where chance explains it.
    pub(crate) level: f64,
    /// How much the tracks beside it differ from a straight line through them; 1 where chance explains it.
    pub(crate) scatter: f64,
}

impl Surroundings {
    /// The tracks whose profiles [`from_profiles`](Self::from_profiles) wants: the trail's own, then those beside it.
    pub(crate) fn tracks(trail: &Segment, sigma_eff_px: f64) -> impl Iterator<Item = Segment> {
        let trail = *trail;
        std::iter::once(0.0).chain(offsets()).map(move |offset| trail.moved_across(offset * sigma_eff_px))
    }

    /// The number of tracks for one trail.
    pub(crate) const N_TRACKS: usize = 1 + 2 * OFFSETS.len();

    /// `taken_out_snr` is the S/N of what had been taken off the trail's own track, `noise` the scatter that the
    /// frame's noise alone gives.
    pub(crate) fn from_profiles(profiles: &[TrackProfile], taken_out_snr: f64, noise: f64) -> Self {
        let (rest, weight) = profiles[0].sums();
        let own = taken_out_snr + rest / weight.sqrt().max(1e-20);
        let beside: Vec<(f64, f64)> = offsets()
            .zip(&profiles[1..])
            .filter_map(|(offset, profile)| {
                let (_, variance) = profile.sums();
                (variance > LEAST_USABLE * weight).then(|| (offset, profile.median_light() * variance.sqrt()))
            })
            .collect();
        if beside.len() < LEAST_TRACKS {
            return Self { own, level: 0.0, scatter: 1.0 };
        }
        // One of them may run over another trail or a star.
        let all = Line::through(&beside);
        let misses = |(x, y): &(f64, f64)| (y - all.at(*x)).abs();
        let worst = (0..beside.len()).max_by(|a, b| misses(&beside[*a]).total_cmp(&misses(&beside[*b])));
        let mut kept = beside;
        kept.swap_remove(worst.unwrap_or(0));
        let line = Line::through(&kept);
        let rest: f64 = kept.iter().map(|(x, y)| (y - line.at(*x)).powi(2)).sum();
        let scatter = (rest / (kept.len() - 2) as f64).sqrt() / MEDIAN_ERROR;
        let slack = LEVEL_BY_CHANCE * MEDIAN_ERROR * scatter.max(noise) * line.error_at_0;
        let unless_chance = |value: f64, by_chance: f64, none: f64| if value > by_chance { value } else { none };
        Self {
            own,
            level: unless_chance(line.at(0.0), slack, 0.0),
            scatter: unless_chance(scatter, SCATTER_BY_CHANCE * noise, 1.0),
        }
    }
}

fn offsets() -> impl Iterator<Item = f64> {
    OFFSETS.iter().flat_map(|o| [-o, *o])
}

/// A straight line by least squares.
struct Line {
    mean: (f64, f64),
    slope: f64,
    /// Standard error at 0, for points of unit error.
    error_at_0: f64,
}

impl Line {
    fn through(points: &[(f64, f64)]) -> Self {
        let n = points.len() as f64;
        let mean_of = |value: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / n;
        let mean = (mean_of(&|p| p.0), mean_of(&|p| p.1));
        let spread: f64 = points.iter().map(|p| (p.0 - mean.0).powi(2)).sum();
        let slope = points.iter().map(|p| (p.0 - mean.0) * (p.1 - mean.1)).sum::<f64>() / spread;
        Self { mean, slope, error_at_0: (1.0 / n + mean.0.powi(2) / spread).sqrt() }
    }

    fn at(&self, x: f64) -> f64 {
        self.mean.1 + self.slope * (x - self.mean.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tracks of 100 bins with the given S/N each, own track first.
    fn seen(snrs: [f64; Surroundings::N_TRACKS]) -> Surroundings {
        let profile = |snr: f64| TrackProfile {
            bin_px: 1.0,
            first_px: 0.0,
            signal: vec![(snr / 10.0) as f32; 100],
            variance: vec![1.0; 100],
        };
        Surroundings::from_profiles(&snrs.map(profile), 0.0, 1.0)
    }

    #[test]
    fn noise_beside_a_trail_changes_nothing() {
        let s = seen([8.0, 0.5, -0.7, 1.4, -1.1, 0.2, 0.9, -2.0, 1.0]);
        assert!((s.own - 8.0).abs() < 1e-4 && s.level == 0.0 && s.scatter == 1.0, "{s:?}");
    }

    #[test]
    fn an_edge_of_light_is_seen() {
        let slope = seen([8.0, 6.0, 10.0, 4.5, 11.5, 3.0, 13.0, 1.5, 14.5]);
        assert!(slope.level > 6.0 && slope.scatter == 1.0, "{slope:?}");
        let rough = seen([12.0, -8.0, 9.0, 11.0, -6.0, -7.0, 12.0, 5.0, -9.0]);
        assert!(rough.scatter > 3.0 && rough.level < 3.0, "{rough:?}");
    }

    #[test]
    fn one_neighbour_is_forgiven() {
        let s = seen([8.0, 0.5, -0.7, 40.0, -1.1, 0.2, 0.9, -2.0, 1.0]);
        assert!(s.level == 0.0 && s.scatter == 1.0, "{s:?}");
    }

    #[test]
    fn tracks_lie_beside_the_trail() {
        let trail = Segment::from_coordinates(10.0, 20.0, 40.0, 60.0);
        let tracks: Vec<Segment> = Surroundings::tracks(&trail, 1.5).collect();
        assert_eq!(tracks.len(), Surroundings::N_TRACKS);
        assert_eq!(tracks[0], trail);
        for (track, offset) in tracks[1..].iter().zip(offsets()) {
            let (along, across) = trail.along_across(track.start);
            assert!(along.abs() < 1e-9 && (across - 1.5 * offset).abs() < 1e-9);
        }
    }
}
