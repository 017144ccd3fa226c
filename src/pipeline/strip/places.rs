//! Where in a strip a star may be, or a point.

use rayon::prelude::*;

use super::{Doubt, REACH_SIGMAS, STRAY_SIGMAS, Source, Strip, light};

/// Places with less of a star's usual S/N² than this on usable pixels tell nothing.
const MIN_COVERAGE: f64 = 0.05;

/// Least part of a star's S/N at the nearest cell of the grid.
const GRID_LOSS: f64 = 0.9;

/// Fewer tracks are not worth another core for their peaks.
const TRACKS_AT_ONCE: usize = 16;

/// [`Strip::peaks`], of a strip whose light changes meanwhile: only tracks are looked at again that have changed, or a
/// neighbour of theirs.
pub(crate) struct Peaks {
    least_snr: f64,
    doubt: Doubt,
    of_tracks: Vec<Vec<Source>>,
    /// Versions of the tracks when they were looked at.
    versions: Vec<u32>,
}

impl Peaks {
    pub(crate) fn new(least_snr: f64, doubt: Doubt) -> Self {
        Self { least_snr, doubt, of_tracks: Vec::new(), versions: Vec::new() }
    }

    pub(crate) fn of(&mut self, strip: &mut Strip) -> Vec<Source> {
        strip.sum_again();
        let (strip, Self { least_snr, doubt, of_tracks, versions }) = (&*strip, self);
        let n = strip.tracks.len();
        let has_changed = |t: usize| versions.get(t) != Some(&strip.tracks[t].version);
        let is_new = |t: usize| (t.saturating_sub(1)..(t + 2).min(n)).any(has_changed);
        of_tracks.resize_with(n, Vec::new);
        of_tracks.par_iter_mut().with_min_len(TRACKS_AT_ONCE).enumerate().filter(|(t, _)| is_new(*t)).for_each(
            |(t, peaks)| {
                peaks.clear();
                peaks.extend(strip.peaks_of(t, *least_snr, doubt));
            },
        );
        *versions = strip.tracks.iter().map(|track| track.version).collect();
        of_tracks.iter().flatten().copied().collect()
    }
}

impl Strip {
    /// The best place for a star where nothing is in doubt.
    pub(crate) fn best_star(&mut self) -> Option<Source> {
        self.sum_again();
        let bests = self
            .tracks
            .iter()
            .enumerate()
            .filter_map(|(t, track)| Some((t, light::largest(&track.light, &track.power)?)));
        let (t, (b, squared)) = bests.max_by(|a, b| a.1.1.total_cmp(&b.1.1))?;
        (squared > 0.0).then(|| self.star_at((t, b), &Doubt::NONE))
    }

    /// Places where a star has more S/N than beside them, of at least `least_snr`.
    pub(crate) fn peaks(&mut self, least_snr: f64, doubt: &Doubt) -> Vec<Source> {
        Peaks::new(least_snr, *doubt).of(self)
    }

    fn peaks_of(&self, t: usize, least_snr: f64, doubt: &Doubt) -> impl Iterator<Item = Source> {
        let track = &self.tracks[t];
        // Most places are dark, which is told without a root.
        let least2 = (GRID_LOSS * least_snr).powi(2) as f32;
        let is_lit = move |b: &usize| {
            let (light, power) = (track.light[*b], track.power[*b]);
            light > 0.0 && light * light >= least2 * power && f64::from(power) > MIN_COVERAGE * self.usual_power
        };
        let is_peak = move |b: &usize| {
            let snr = self.snr_at((t, *b));
            self.neighbours((t, *b)).all(|n| self.snr_at(n) <= snr)
        };
        let lit = (0..track.light.len()).filter(is_lit);
        let peaks = lit.filter(is_peak).map(move |b| self.between_cells((t, b), doubt));
        peaks.filter(move |s| s.snr >= least_snr)
    }

    /// The best place for a star within a PSF width or two of one.
    pub(crate) fn best_near(&self, star: &Source, doubt: &Doubt) -> Option<Source> {
        let reach = (STRAY_SIGMAS * self.sigma_px / self.bin_px).ceil() as usize;
        let cells = self.tracks_near(star.across_px, STRAY_SIGMAS).flat_map(|t| {
            let bin = self.tracks[t].bin_at(star.begin_px - REACH_SIGMAS * self.sigma_px, self.bin_px);
            (bin.saturating_sub(reach)..(bin + reach + 1).min(self.tracks[t].light.len())).map(move |b| (t, b))
        });
        let best = cells.map(|cell| (cell, self.measure(cell, doubt).1)).max_by(|a, b| a.1.total_cmp(&b.1))?;
        (best.1 > 0.0).then(|| self.between_cells(best.0, doubt))
    }

    /// The best place for a point on a star's trail.
    pub(crate) fn best_point_on(&self, star: &Source, doubt: &Doubt) -> Option<Source> {
        let half = (REACH_SIGMAS * self.sigma_px / self.bin_px).ceil() as usize;
        let shape = light::along(-(half as f64) * self.bin_px, self.bin_px, 2 * half + 1, 0.0, self.sigma_px);
        let points = self.tracks_near(star.across_px, 1.0).flat_map(|t| {
            let track = &self.tracks[t];
            let last = track.signal.len().saturating_sub(half + 1);
            let from = track.bin_at(star.begin_px, self.bin_px).max(half);
            let to = track.bin_at(star.begin_px + star.length_px, self.bin_px).min(last);
            let shape = &shape;
            (from..=to).map(move |b| {
                let (density, snr) = self.matched(track, shape, b - half, doubt);
                let begin_px = track.first_px + b as f64 * self.bin_px;
                Source { begin_px, across_px: track.across_px, length_px: 0.0, density, snr }
            })
        });
        points.max_by(|a, b| a.snr.total_cmp(&b.snr))
    }

    fn star_at(&self, cell: (usize, usize), doubt: &Doubt) -> Source {
        let (density, snr) = self.measure(cell, doubt);
        let track = &self.tracks[cell.0];
        Source {
            begin_px: track.first_px + cell.1 as f64 * self.bin_px + REACH_SIGMAS * self.sigma_px,
            across_px: track.across_px,
            length_px: self.star_px,
            density,
            snr,
        }
    }

    /// A star at a cell, moved to where a parabola through the S/N around has its top.
    fn between_cells(&self, (t, b): (usize, usize), doubt: &Doubt) -> Source {
        let star = self.star_at((t, b), doubt);
        let u = self.tracks[t].first_px + b as f64 * self.bin_px;
        let snr = |cell: Option<(usize, usize)>| cell.map_or(0.0, |cell| self.measure(cell, doubt).1);
        let across = |t: Option<usize>| snr(t.and_then(|t| self.cell_on(t, u)));
        let (across_by, across_gain) = top(across(t.checked_sub(1)), star.snr, across(Some(t + 1)));
        // Along the track the S/N falls slowly: bins a PSF width apart.
        let apart = (self.sigma_px / self.bin_px).round().max(1.0) as usize;
        let along = |b: Option<usize>| snr(b.filter(|b| *b < self.tracks[t].light.len()).map(|b| (t, b)));
        let (along_by, along_gain) = top(along(b.checked_sub(apart)), star.snr, along(Some(b + apart)));
        let gain = across_gain * along_gain;
        Source {
            begin_px: star.begin_px + along_by * apart as f64 * self.bin_px,
            across_px: star.across_px + across_by * self.step_px,
            density: star.density * gain,
            snr: star.snr * gain,
            ..star
        }
    }

    /// The eight cells around one.
    fn neighbours(&self, (t, b): (usize, usize)) -> impl Iterator<Item = (usize, usize)> + '_ {
        let u = self.tracks[t].first_px + b as f64 * self.bin_px;
        let tracks = t.saturating_sub(1)..(t + 2).min(self.tracks.len());
        let around = tracks.filter_map(move |other| self.cell_on(other, u));
        around
            .flat_map(move |(other, bin)| {
                (bin.saturating_sub(1)..(bin + 2).min(self.tracks[other].light.len())).map(move |bin| (other, bin))
            })
            .filter(move |cell| *cell != (t, b))
    }

    /// The cell of a track at `u`.
    fn cell_on(&self, t: usize, u: f64) -> Option<(usize, usize)> {
        let track = self.tracks.get(t)?;
        let bin = track.bin_at(u, self.bin_px);
        (bin < track.light.len()).then_some((t, bin))
    }
}

/// Where the top of a parabola through the logarithms of three equidistant values lies, in steps from the middle one,
/// and how much higher it is.
fn top(before: f64, at: f64, after: f64) -> (f64, f64) {
    if before <= 0.0 || after <= 0.0 || at < before.max(after) {
        return (0.0, 1.0);
    }
    let (a, b, c) = (before.ln(), at.ln(), after.ln());
    let bend = a - 2.0 * b + c;
    if bend >= 0.0 {
        return (0.0, 1.0);
    }
    let by = (0.5 * (a - c) / bend).clamp(-0.5, 0.5);
    (by, (-0.25 * (a - c) * by).exp())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{strip, strip_of};
    use super::*;

    #[test]
    fn a_star_between_cells_is_placed() {
        let (begin, across) = (40.3, 0.6);
        let peaks = strip(&[(begin, across, 3.0)]).peaks(10.0, &Doubt::NONE);
        let star = peaks.iter().max_by(|a, b| a.snr.total_cmp(&b.snr)).unwrap();
        assert!((star.begin_px - begin).abs() < 0.2 && (star.across_px - across).abs() < 0.05, "{star:?}");
        assert!((star.density - 3.0).abs() < 0.05, "{star:?}");
    }

    #[test]
    fn known_peaks_are_those_that_a_fresh_look_finds() {
        let stars: Vec<(f64, f64, f64)> =
            (0..9).map(|k| (10.0 + 7.3 * f64::from(k % 5), -55.0 + 13.7 * f64::from(k), 2.0 + f64::from(k))).collect();
        let mut strip = strip_of(45, &stars);
        let mut peaks = Peaks::new(8.0, Doubt::NONE);
        for _ in 0..=stars.len() {
            let known = peaks.of(&mut strip);
            assert_eq!(known, strip.peaks(8.0, &Doubt::NONE));
            let Some(brightest) = known.into_iter().max_by(|a, b| a.snr.total_cmp(&b.snr)) else { break };
            strip.add(&brightest, -1.0);
        }
        assert!(peaks.of(&mut strip).iter().all(|s| s.snr < 10.0), "the stars are gone");
    }

    #[test]
    fn a_point_is_no_star() {
        let mut strip = strip(&[]);
        let point = Source { begin_px: 50.0, across_px: 0.0, length_px: 0.0, density: 40.0, snr: 0.0 };
        strip.add(&point, 1.0);
        let star = strip.best_star().unwrap();
        let found = strip.best_point_on(&star, &Doubt::NONE).unwrap();
        assert!(found.snr > 1.5 * star.snr && (found.begin_px - 50.0).abs() < 0.6, "{found:?} {star:?}");
        assert!((found.density - 40.0).abs() < 2.0);
    }
}
