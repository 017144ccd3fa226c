//! Merge stage: where a candidate's track is lit.
//!
//! Method: docs/algorithm.md, "Merge".

use std::ops::Range;

use crate::backend::TrackProfile;
use crate::geometry::Segment;

/// Bins a profile is condensed to before all pairs of ends are tried.
const SCAN_BINS: usize = 160;

/// Less than this part of two parts' S/N² in the whole of them, and they may be two streaks: a fit that follows each in
/// its own direction sees more of it than the common track does.
const MAYBE_TWO: f64 = 0.8;

/// What a scan along a track finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scanned {
    Dark,
    Lit {
        ends: Segment,
        /// The lit parts between the ends, where so much is dark that they may be two streaks.
        parts: Option<[Segment; 2]>,
    },
}

/// The pair of ends with the highest `Σ signal / √Σ variance` along a profile, and what may be two parts between them.
pub(crate) fn lit_parts(track: &Segment, profile: &TrackProfile, min_length_px: f64) -> Scanned {
    let group = profile.signal.len().div_ceil(SCAN_BINS).max(1);
    let running = |values: &[f32]| -> Vec<f64> {
        let sums = values.chunks(group).scan(0.0, |sum, chunk| {
            *sum += chunk.iter().map(|v| f64::from(*v)).sum::<f64>();
            Some(*sum)
        });
        std::iter::once(0.0).chain(sums).collect()
    };
    let scan = Scan { signal: running(&profile.signal), variance: running(&profile.variance) };
    let step_px = group as f64 * profile.bin_px;
    let least = (min_length_px / step_px).ceil().max(1.0) as usize;
    let edge = |k: usize| (profile.first_px - 0.5 * profile.bin_px + k as f64 * step_px) / track.length_px();
    let part = |(i, j): (usize, usize)| Segment::new(track.at(edge(i).max(0.0)), track.at(edge(j).min(1.0)));
    match scan.best_ends(0..scan.signal.len(), least) {
        None => Scanned::Dark,
        Some(ends) => {
            Scanned::Lit { ends: part(ends), parts: scan.two_parts(ends, least).map(|parts| parts.map(part)) }
        }
    }
}

/// Light along a track: sums from its start to every edge of a bin.
struct Scan {
    signal: Vec<f64>,
    variance: Vec<f64>,
}

impl Scan {
    /// The edges in a range between which the significance is highest; none where there is no light.
    fn best_ends(&self, edges: Range<usize>, least: usize) -> Option<(usize, usize)> {
        // Significances are compared by their squares, and those without dividing.
        let (mut best, mut best_signal2, mut best_variance) = (None, 0.0, 1.0);
        for i in edges.start..edges.end.saturating_sub(least) {
            for j in i + least..edges.end {
                let (sum, power) = (self.signal[j] - self.signal[i], self.variance[j] - self.variance[i]);
                if sum > 0.0 && sum * sum * best_variance >= best_signal2 * power {
                    (best, best_signal2, best_variance) = (Some((i, j)), sum * sum, power);
                }
            }
        }
        best
    }

    /// S/N² between two edges.
    fn power(&self, (i, j): (usize, usize)) -> f64 {
        let (sum, power) = (self.signal[j] - self.signal[i], self.variance[j] - self.variance[i]);
        if sum > 0.0 && power > 0.0 { sum * sum / power } else { 0.0 }
    }

    /// The two parts of what lies between two edges that explain most together, where they may be two streaks.
    fn two_parts(&self, ends: (usize, usize), least: usize) -> Option<[(usize, usize); 2]> {
        let (first, last) = ends;
        // The best part up to every edge, and from every edge on.
        let (mut before, mut beyond) = (vec![(0.0, ends); last + 1], vec![(0.0, ends); last + 1]);
        for (i, j) in (first..=last).flat_map(|i| (i + least..=last).map(move |j| (i, j))) {
            let power = self.power((i, j));
            if power > before[j].0 {
                before[j] = (power, (i, j));
            }
            if power > beyond[i].0 {
                beyond[i] = (power, (i, j));
            }
        }
        for k in first..last {
            let (up, down) = (k + 1, last - 1 - (k - first));
            if before[k].0 > before[up].0 {
                before[up] = before[k];
            }
            if beyond[down + 1].0 > beyond[down].0 {
                beyond[down] = beyond[down + 1];
            }
        }
        let separate = |k: &usize| before[*k].0 + beyond[*k].0;
        let split = (first..=last).max_by(|a, b| separate(a).total_cmp(&separate(b)))?;
        let both = before[split].0 > 0.0 && beyond[split].0 > 0.0;
        (both && self.power(ends) < MAYBE_TWO * separate(&split)).then_some([before[split].1, beyond[split].1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scan_finds_the_lit_part() {
        let track = Segment::from_coordinates(0.0, 0.0, 100.0, 0.0);
        let signal = (0..101).map(|i| if (30..=69).contains(&i) { 1.0 } else { 0.0 }).collect();
        let profile = TrackProfile { bin_px: 1.0, first_px: 0.0, signal, variance: vec![1.0; 101] };
        let Scanned::Lit { ends, parts: None } = lit_parts(&track, &profile, 8.0) else { panic!("one part") };
        assert!((ends.start.x - 29.5).abs() < 1e-9 && (ends.end.x - 69.5).abs() < 1e-9, "{ends:?}");
        assert_eq!(lit_parts(&track, &TrackProfile { signal: vec![0.0; 101], ..profile }, 8.0), Scanned::Dark);
    }

    #[test]
    fn the_scan_sees_what_may_be_two_streaks() {
        let track = Segment::from_coordinates(0.0, 0.0, 100.0, 0.0);
        let lit_outside = |gap: Range<i32>| {
            let lit = |i: i32| (10..90).contains(&i) && !gap.contains(&i);
            let signal = (0..101).map(|i| if lit(i) { 1.0 } else { 0.0 }).collect();
            lit_parts(&track, &TrackProfile { bin_px: 1.0, first_px: 0.0, signal, variance: vec![1.0; 101] }, 8.0)
        };
        // 36 of 80 px dark.
        let Scanned::Lit { ends, parts: Some([a, b]) } = lit_outside(32..68) else { panic!("two streaks") };
        assert_eq!([a.start.x, a.end.x, b.start.x, b.end.x], [9.5, 31.5, 67.5, 89.5]);
        assert_eq!([ends.start.x, ends.end.x], [9.5, 89.5]);
        assert!(matches!(lit_outside(45..55), Scanned::Lit { parts: None, .. }), "10 of 80 px dark");
    }

    #[test]
    fn a_faint_long_part_beside_a_bright_short_one_is_seen() {
        let lit = |i: i32| {
            if i < 8 {
                1.0
            } else if i < 37 {
                0.0
            } else {
                0.21
            }
        };
        let profile =
            TrackProfile { bin_px: 1.0, first_px: 0.0, signal: (0..189).map(lit).collect(), variance: vec![1.0; 189] };
        let track = Segment::from_coordinates(0.0, 0.0, 188.0, 0.0);
        let Scanned::Lit { parts: Some([a, b]), .. } = lit_parts(&track, &profile, 4.0) else { panic!("two streaks") };
        assert!(a.end.x < 10.0 && (35.0..45.0).contains(&b.start.x), "{a:?} {b:?}");
    }
}
