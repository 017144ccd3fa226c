//! Search stage: from the peaks of the transform to candidates, one for each place that could hold a streak.
//!
//! Method: docs/algorithm.md, "Search".

use std::cmp::Ordering;

use rayon::prelude::*;

use crate::Result;
use crate::error::require;
use crate::geometry::{Point, Segment};

/// What is searched for.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchConfig {
    /// Pixels beyond ± this many times the noise are clipped before the search, so that what is left of a star
    /// cannot pass for a line on its own. Streaks are measured unclipped.
    pub clip_sigmas: f64,
    /// Shortest streak reported, px. Below 8 px a streak cannot be told from a point source at sigma 1.5.
    pub min_length_px: f64,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self { clip_sigmas: 6.0, min_length_px: 8.0 }
    }
}

impl SearchConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        require("search.clip_sigmas", self.clip_sigmas, 3.0.., "3 or more")?;
        require("search.min_length_px", self.min_length_px, 4.0.., "4 or more")
    }
}

/// How peaks are looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SearchRequest {
    /// Least significance of a peak.
    pub(crate) threshold: f32,
    /// Filtered values beyond ± this count as this: two stars then make no streak.
    pub(crate) limit: f32,
    /// They count as the nearest whole number of these steps, of which sums hold no more than 16 bits do; as they are
    /// where there is none.
    pub(crate) step: Option<f32>,
    /// Some pixels have weight zero: their share of each node's variance is taken from the transform of the weights.
    pub(crate) weighted: bool,
}

impl SearchRequest {
    /// Filtered value of a one in the sums.
    pub(crate) fn unit(&self) -> f32 {
        self.step.unwrap_or(1.0)
    }
}

/// Fewest steps from zero to the limit. With these the rounding takes a hundredth of the S/N where the PSF's width is 0.8 px
/// (docs/algorithm.md, "Search").
const FEWEST_STEPS: usize = 7;

/// Values up to a limit, of lines of so many rows at most, are summed in these steps: a sum of whole numbers in 16 bits is
/// exact, and two of them take the time of one. None where lines are so long that too few steps are left.
pub(crate) fn step_of_sums(limit: f32, most_rows: usize) -> Option<f32> {
    let n_steps = i16::MAX as usize / most_rows.max(1);
    (n_steps >= FEWEST_STEPS).then(|| limit / n_steps as f32)
}

/// A node and its partner count together where each of them reaches this share of the threshold: where one of them is
/// weaker the other alone is as good.
pub(crate) const PARTNER_SHARE: f32 = 0.7;

/// Nodes with less of their variance than this on usable pixels are left out.
pub(crate) const MIN_COVERAGE: f32 = 0.1;

/// A local maximum of the transform: a segment of the set, and its significance `Σwzt / √(Σwt²)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Peak {
    pub(crate) segment: Segment,
    pub(crate) snr: f64,
}

impl Peak {
    /// The defined order: by descending significance, then by position.
    fn order(&self, other: &Self) -> Ordering {
        let place = |p: &Self| [p.segment.start.x, p.segment.start.y, p.segment.end.x, p.segment.end.y];
        let by_place = || place(self).iter().zip(place(other)).map(|(x, y)| x.total_cmp(&y)).find(|o| o.is_ne());
        other.snr.total_cmp(&self.snr).then_with(|| by_place().unwrap_or(Ordering::Equal))
    }
}

/// Puts peaks into their defined order.
pub(crate) fn sort_peaks(peaks: &mut [Peak]) {
    peaks.sort_unstable_by(Peak::order);
}

/// Correlation above which two templates stand for the same thing: at 0.2 real streaks begin to lose S/N, at 0.5
/// there are several times as many duplicates (docs/algorithm.md, "Search").
pub(crate) const SAME_CORRELATION: f64 = 0.3;

/// A peak is explained by a brighter one if it is no more than this many times the light that one spreads into it.
const EXPLAINED_BY: f64 = 1.5;

/// Side of the cells of [`best_of_cells`], px.
const CELL_PX: f64 = 8.0;

/// The best peak of every cell of midpoint and quarter turn, in their order: a bright streak or star excites tens of
/// thousands of peaks, most of them side by side. Of a part of the peaks it leaves what the best of all may come from.
pub(crate) fn best_of_cells(peaks: &[Peak]) -> Vec<Peak> {
    let cell = |p: &Peak| {
        let middle = p.segment.midpoint();
        let quarter = (4.0 * p.segment.angle_rad() / std::f64::consts::PI) as i32;
        [(middle.x / CELL_PX) as i32, (middle.y / CELL_PX) as i32, quarter]
    };
    let cells: Vec<[i32; 3]> = peaks.par_iter().with_min_len(MIN_TOGETHER).map(cell).collect();
    let first: [i32; 3] = std::array::from_fn(|k| cells.iter().map(|c| c[k]).min().unwrap_or(0));
    let last: [i32; 3] = std::array::from_fn(|k| cells.iter().map(|c| c[k]).max().unwrap_or(0));
    let sides: [usize; 3] = std::array::from_fn(|k| (last[k] - first[k]) as usize + 1);
    // One more than the index of the best; 0 where there is none.
    let mut best = vec![0_u32; sides.iter().product()];
    for (i, cell) in cells.iter().enumerate() {
        let index = (0..3).fold(0, |index, k| index * sides[k] + (cell[k] - first[k]) as usize);
        let best = &mut best[index];
        if *best == 0 || peaks[i].order(&peaks[*best as usize - 1]).is_lt() {
            *best = i as u32 + 1;
        }
    }
    let mut kept: Vec<Peak> = best.into_iter().filter(|i| *i > 0).map(|i| peaks[i as usize - 1]).collect();
    sort_peaks(&mut kept);
    kept
}

/// Keeps the best peak of every place, best first, `most` at most.
///
/// A peak is dropped when its template resembles that of a better one, or when its significance is no more than the
/// better one's light would give it. `peaks` must be in their defined order.
pub(crate) fn suppress(peaks: &[Peak], sigma_eff_px: f64, most: usize) -> Vec<Peak> {
    let mut kept = Kept::new(sigma_eff_px);
    for some in peaks.chunks(TOGETHER) {
        // On all cores against what was kept before them, then one by one against each other.
        let left: Vec<&Peak> = some.par_iter().with_min_len(MIN_TOGETHER).filter(|peak| !kept.explains(peak)).collect();
        let mut new = Kept::new(sigma_eff_px);
        for peak in left {
            if !new.explains(peak) {
                new.push(peak);
            }
        }
        new.peaks.iter().for_each(|peak| kept.push(peak));
        if kept.peaks.len() >= most {
            break;
        }
    }
    kept.peaks.truncate(most);
    kept.peaks
}

/// Peaks that are held against those kept before at once, and by one thread.
const TOGETHER: usize = 512;
const MIN_TOGETHER: usize = 64;

/// The peaks that are kept, ready to have others held against them.
struct Kept {
    sigma_eff_px: f64,
    peaks: Vec<Peak>,
    templates: Vec<Template>,
    middles: Middles,
}

impl Kept {
    fn new(sigma_eff_px: f64) -> Self {
        Self { sigma_eff_px, peaks: Vec::new(), templates: Vec::new(), middles: Middles::default() }
    }

    fn push(&mut self, peak: &Peak) {
        self.peaks.push(*peak);
        self.templates.push(Template::of(&peak.segment));
        self.middles.push(&peak.segment);
    }

    /// Whether a peak is the same as one of these, or made by its light.
    fn explains(&self, peak: &Peak) -> bool {
        let template = Template::of(&peak.segment);
        let explained_by = |k: usize| {
            let (better, sigma) = (&self.templates[k], self.sigma_eff_px);
            let is_enough = |rho: f64| rho > SAME_CORRELATION || peak.snr < EXPLAINED_BY * rho * self.peaks[k].snr;
            is_enough(better.most_correlation(&template, sigma)) && is_enough(better.correlation(&template, sigma))
        };
        self.middles.near(&peak.segment, (FAR_WIDTHS * self.sigma_eff_px) as f32).any(explained_by)
    }
}

/// Segments by their middles, directions and halves: most pairs are apart, and need no correlation. Each list has a
/// chunk's worth of them, and is filled up with segments that nothing is near.
#[derive(Debug, Default)]
pub(crate) struct Middles {
    chunks: Vec<[[f32; AT_ONCE]; 5]>,
    n: usize,
}

/// Segments that are looked at together.
const AT_ONCE: usize = 16;

impl Middles {
    /// x and y of the middle, direction, half the length and half a pixel more.
    fn of(segment: &Segment) -> [f32; 5] {
        let (middle, (c, s)) = (segment.midpoint(), segment.direction());
        [middle.x, middle.y, c, s, 0.5 * segment.length_px() + 0.5].map(|v| v as f32)
    }

    pub(crate) fn push(&mut self, segment: &Segment) {
        if self.n.is_multiple_of(AT_ONCE) {
            let mut empty = [[0.0; AT_ONCE]; 5];
            empty[4] = [f32::NEG_INFINITY; AT_ONCE];
            self.chunks.push(empty);
        }
        if let Some(chunk) = self.chunks.last_mut() {
            let middle = Self::of(segment);
            (0..5).for_each(|i| chunk[i][self.n % AT_ONCE] = middle[i]);
        }
        self.n += 1;
    }

    /// Those that neither the direction of one of the two nor the one across it shows to be further apart than `reach`:
    /// all others have nothing in common, by definition.
    pub(crate) fn near(&self, segment: &Segment, reach: f32) -> impl Iterator<Item = usize> {
        let [x, y, c, s, half] = Self::of(segment);
        let is_near = move |[xs, ys, cs, ss, halves]: &[[f32; AT_ONCE]; 5]| -> [bool; AT_ONCE] {
            std::array::from_fn(|i| {
                let (dx, dy, other) = (xs[i] - x, ys[i] - y, halves[i]);
                let (along, across) = ((c * cs[i] + s * ss[i]).abs(), (c * ss[i] - s * cs[i]).abs());
                ((dx * cs[i] + dy * ss[i]).abs() <= other + half * along + reach)
                    & ((dy * cs[i] - dx * ss[i]).abs() <= half * across + reach)
                    & ((dx * c + dy * s).abs() <= half + other * along + reach)
                    & ((dy * c - dx * s).abs() <= other * across + reach)
            })
        };
        let chunks = self.chunks.iter().enumerate().map(move |(k, chunk)| (k, is_near(chunk)));
        chunks
            .filter(|(_, near)| near.iter().fold(false, |any, n| any | n))
            .flat_map(|(k, near)| (0..AT_ONCE).filter(move |i| near[*i]).map(move |i| k * AT_ONCE + i))
    }
}

/// Tracks further apart than this many PSF widths have nothing in common.
pub(crate) const FAR_WIDTHS: f64 = 6.0;

/// Correlation of two unit-norm trail templates, ends taken as square:
/// `∫ exp(−v²/4σ²) dl / √(La Lb)` over the part of `b` that lies beside `a`.
pub(crate) fn template_correlation(a: &Segment, b: &Segment, sigma_eff_px: f64) -> f64 {
    Template::of(a).correlation(&Template::of(b), sigma_eff_px)
}

/// A segment with its direction and length, which many others are held against.
#[derive(Debug, Clone, Copy)]
struct Template {
    segment: Segment,
    direction: (f64, f64),
    length_px: f64,
}

impl Template {
    fn of(segment: &Segment) -> Self {
        Self { segment: *segment, direction: segment.direction(), length_px: segment.length_px().max(1.0) }
    }

    /// What the correlation is at most, by the lengths and the angle between the two: far less work.
    fn most_correlation(&self, other: &Self, sigma_eff_px: f64) -> f64 {
        const ROUNDING: f64 = 1.0 + 1e-9;
        let ((c1, s1), (c2, s2)) = (self.direction, other.direction);
        let (la, lb) = (self.length_px, other.length_px);
        // The part of the other whose foot lies on this one.
        let side_by_side = lb.min(la / (c1 * c2 + s1 * s2).abs());
        // ∫ exp(−v²/4σ²) dl over a line that crosses at an angle.
        let crossing = 2.0 * std::f64::consts::PI.sqrt() * sigma_eff_px / (c1 * s2 - s1 * c2).abs();
        ROUNDING * side_by_side.min(crossing) / (la * lb).sqrt()
    }

    /// See [`template_correlation`].
    fn correlation(&self, other: &Self, sigma_eff_px: f64) -> f64 {
        let (la, lb) = (self.length_px, other.length_px);
        let seen_from_here = |p: Point| self.segment.along_across_in(self.direction, p);
        let ((u1, v1), (u2, v2)) = (seen_from_here(other.segment.start), seen_from_here(other.segment.end));
        let far = FAR_WIDTHS * sigma_eff_px;
        if v1.min(v2) > far || v1.max(v2) < -far || u1.min(u2) > la || u1.max(u2) < 0.0 {
            return 0.0;
        }
        // The part of the other, as fractions of its length, whose foot on this one's line lies within it.
        let du = u2 - u1;
        let (t0, t1) = if du.abs() < 1e-9 {
            (0.0, 1.0)
        } else {
            let (p, q) = (-u1 / du, (la - u1) / du);
            (p.min(q).max(0.0), p.max(q).min(1.0))
        };
        if t1 <= t0 {
            return 0.0;
        }
        let (va, vb) = (v1 + t0 * (v2 - v1), v1 + t1 * (v2 - v1));
        let width = 2.0 * sigma_eff_px;
        let mean = if (vb - va).abs() < 1e-3 * width {
            (-(0.5 * (va + vb) / width).powi(2)).exp()
        } else {
            let half_sqrt_pi = 0.5 * std::f64::consts::PI.sqrt();
            half_sqrt_pi * width * (libm::erf(vb / width) - libm::erf(va / width)) / (vb - va)
        };
        (t1 - t0) * lb * mean / (la * lb).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_in_steps_needs_more_than_16_bits() {
        for most_rows in [8, 96, 1024, 3072, 4096, 4681] {
            let step = step_of_sums(0.7, most_rows).unwrap();
            let most = (0.7 * (1.0 / step)).round_ties_even() * most_rows as f32;
            assert!((0.85 * 32767.0..=32767.0).contains(&most), "{most_rows}: {most}");
        }
        assert_eq!((step_of_sums(0.7, 4682), step_of_sums(0.7, 8192)), (None, None));
    }

    #[test]
    fn correlation_of_known_pairs() {
        let a = Segment::from_coordinates(0.0, 0.0, 100.0, 0.0);
        assert!((template_correlation(&a, &a, 1.5) - 1.0).abs() < 1e-12);
        let half = Segment::from_coordinates(0.0, 0.0, 50.0, 0.0);
        assert!((template_correlation(&a, &half, 1.5) - 0.5_f64.sqrt()).abs() < 1e-12);
        let beside = Segment::from_coordinates(0.0, 3.0, 100.0, 3.0);
        assert!((template_correlation(&a, &beside, 1.5) - (-1.0_f64).exp()).abs() < 1e-12);
        // Crossing at a right angle: ∫exp(−v²/4σ²)dv = 2√π σ over a length of 100.
        let across = Segment::around(Point::new(50.0, 0.0), 100.0, std::f64::consts::FRAC_PI_2);
        let expected = 2.0 * std::f64::consts::PI.sqrt() * 1.5 / 100.0;
        assert!((template_correlation(&a, &across, 1.5) - expected).abs() < 1e-9);
        let apart = Segment::from_coordinates(0.0, 30.0, 100.0, 30.0);
        assert_eq!(template_correlation(&a, &apart, 1.5), 0.0);
    }

    #[test]
    fn the_bound_on_correlation_holds() {
        let noise = crate::simulate::gaussian_frame(8, 4000, 12, 1.0);
        let (mut near, mut closest) = (0, 0.0_f64);
        for v in noise.chunks_exact(8) {
            let segment = |v: &[f32]| {
                let [x, y, angle, length] = [v[0], v[1], v[2], v[3]].map(f64::from);
                Segment::around(Point::new(10.0 * x, 10.0 * y), 20.0 * length.exp(), angle)
            };
            let [a, b] = [Template::of(&segment(&v[..4])), Template::of(&segment(&v[4..]))];
            let (rho, most) = (a.correlation(&b, 1.5), a.most_correlation(&b, 1.5));
            assert!(rho <= most, "{rho} {most} {a:?} {b:?}");
            near += usize::from(rho > 0.05);
            closest = closest.max(rho / most);
        }
        assert!(near > 500 && closest > 0.9, "{near} {closest}");
    }

    #[test]
    fn suppression_keeps_separate_places() {
        let peak = |y: f64, snr: f64| Peak { segment: Segment::from_coordinates(0.0, y, 60.0, y), snr };
        let mut peaks = vec![peak(40.0, 7.0), peak(0.0, 20.0), peak(1.0, 15.0), peak(7.0, 9.0)];
        sort_peaks(&mut peaks);
        assert_eq!(suppress(&peaks, 1.5, 2).len(), 2);
        let kept = suppress(&peaks, 1.5, usize::MAX);
        let snrs: Vec<f64> = kept.iter().map(|p| p.snr).collect();
        assert_eq!(snrs, [20.0, 9.0, 7.0]);
    }

    #[test]
    fn many_peaks_are_suppressed_as_one_by_one() {
        // Crowded, and more than are held against the others at once.
        let noise = crate::simulate::gaussian_frame(5, 3 * TOGETHER, 11, 1.0);
        let mut peaks: Vec<Peak> = noise
            .chunks_exact(5)
            .map(|v| {
                let [x, y, angle, snr, length] = [v[0], v[1], v[2], v[3], v[4]].map(f64::from);
                let middle = Point::new(500.0 + 300.0 * x, 500.0 + 300.0 * y);
                Peak { segment: Segment::around(middle, 60.0 * length.exp(), angle), snr: 8.0 + snr }
            })
            .collect();
        sort_peaks(&mut peaks);
        let mut expected: Vec<Peak> = Vec::new();
        for peak in &peaks {
            let explained_by = |better: &Peak| {
                let rho = template_correlation(&better.segment, &peak.segment, 1.5);
                rho > SAME_CORRELATION || peak.snr < EXPLAINED_BY * rho * better.snr
            };
            if !expected.iter().any(explained_by) {
                expected.push(*peak);
            }
        }
        assert!(expected.len() > TOGETHER && expected.len() < peaks.len(), "{}", expected.len());
        assert_eq!(suppress(&peaks, 1.5, usize::MAX), expected);
        assert_eq!(suppress(&peaks, 1.5, 300), expected[..300]);
    }
}
