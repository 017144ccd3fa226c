//! Star trails in a row: rather one trail, that is no star's?
//!
//! Stars are taken out before what they leave is searched, so that a trail along their direction is taken for a row of
//! them first. Method: docs/algorithm.md, "Stars that trail".

use crate::Result;
use crate::backend::{Backend, TrackProfile};
use crate::geometry::{Point, Segment, track_angle_difference};
use crate::pipeline::believed::Believed;
use crate::pipeline::blends::{price_of_stars, price_of_target};
use crate::pipeline::measure::Trail;
use crate::pipeline::search::template_correlation;
use crate::pipeline::star_trails::{FREE_SNR, StarTrails};
use crate::pipeline::strip::BINS_AT_ONCE;

/// The middles of neighbours in a row lie this far apart along the stars' direction, in star lengths: they overlap, or a
/// bright star hides the one between them.
const NEXT_LENGTHS: (f64, f64) = (0.2, 2.2);

/// A trail turned further from the stars' direction than this slope is made of no row of them.
const MOST_SLOPE: f64 = 0.3;

/// How far the middle of a star may lie off the row, in PSF widths.
const OFF_ROW_SIGMAS: f64 = 1.0;

/// Stars made of one trail are as bright as the first of them within this factor: the outermost may have a part of a star's
/// length alone.
const AS_BRIGHT: f64 = 2.5;

/// Brighter ones are fitted well enough to tell, and their surroundings are spoiled.
const MOST_SNR: f64 = 40.0;

/// Stars in a row at most.
const MOST_STARS: usize = 12;

/// Part of the stars' S/N² that a trail through their middles may lack: it is not fitted yet.
const UNFITTED_LOSS: f64 = 0.1;

/// A bright trail is surely a star's where its own length is that of the others within so many of its errors, of no less
/// than [`LEAST_ERR_PX`].
const SURE_SIGMAS: f64 = 2.0;
const LEAST_ERR_PX: f64 = 0.5;

/// A star by the place of its middle, along and across the stars' direction.
#[derive(Debug, Clone, Copy)]
struct Member {
    star: usize,
    along_px: f64,
    across_px: f64,
    snr: f64,
}

/// Stars that may be one trail.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    stars: Vec<usize>,
    trail: Segment,
}

impl StarTrails {
    /// Puts stars back that lie in a row and that one trail explains as well. The search that follows finds that trail,
    /// and holds it against stars once more. All stars have been taken out of the residual image.
    pub(crate) fn put_back_rows(&mut self, backend: &mut dyn Backend) -> Result<()> {
        let rows = self.rows();
        let longest_px = rows.iter().map(|r| r.trail.length_px()).fold(1.0, f64::max);
        let mut gains: Vec<(f64, &Row)> = Vec::new();
        for rows in rows.chunks((BINS_AT_ONCE as f64 / longest_px).max(1.0) as usize) {
            let tracks: Vec<Segment> = rows.iter().map(|r| r.trail).collect();
            let left = backend.profiles(&tracks, self.sigma() as f32)?;
            gains
                .extend(rows.iter().zip(&left).filter_map(|(row, left)| Some((self.gain_over_stars(row, left)?, row))));
        }
        gains.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.stars.cmp(&b.1.stars)));
        let mut is_back = vec![false; self.trails.len()];
        for (_, row) in gains {
            if row.stars.iter().all(|&i| !is_back[i]) {
                row.stars.iter().for_each(|&i| is_back[i] = true);
            }
        }
        let back: Vec<Trail> = self.trails.iter().zip(&is_back).filter(|(_, b)| **b).map(|(s, _)| s.trail()).collect();
        backend.add_trails(&back, 1.0)?;
        let mut is_back = is_back.into_iter();
        self.trails.retain(|_| is_back.next() == Some(false));
        Ok(())
    }

    /// S/N² by which a trail explains more than the stars in its place, prices and what a fit may win included; none where it
    /// explains less. Along its track lies what the stars have `left`.
    fn gain_over_stars(&self, row: &Row, left: &TrackProfile) -> Option<f64> {
        let (light, variance) = (left.signal.iter().sum::<f32>(), left.variance.iter().sum::<f32>());
        let left_snr = if variance > 0.0 { f64::from(light / variance.sqrt()) } else { 0.0 };
        let stars: Vec<(Segment, f64)> =
            row.stars.iter().map(|&i| (self.trails[i].trail().segment, self.trails[i].fit.snr)).collect();
        let overlap = |a: &Segment, b: &Segment| template_correlation(a, b, self.sigma());
        let of_stars: f64 = stars.iter().map(|(star, snr)| snr * overlap(&row.trail, star)).sum();
        let by_trail = (left_snr + of_stars).max(0.0).powi(2);
        let pairs = stars.iter().flat_map(|a| stars.iter().map(move |b| (a, b)));
        let by_stars: f64 = pairs.map(|(a, b)| a.1 * b.1 * overlap(&a.0, &b.0)).sum();
        let turn_rad = track_angle_difference(row.trail.angle_rad(), self.motion.angle_rad);
        let prices = price_of_target(turn_rad) - price_of_stars(stars.len(), 0);
        let gain = by_trail - (1.0 - UNFITTED_LOSS) * by_stars - prices * self.scatter.max(1.0).powi(2);
        (gain > 0.0).then_some(gain)
    }

    /// Every row once, from any star on and up to any other.
    fn rows(&self) -> Vec<Row> {
        let members = self.members();
        let stars = &members;
        let from = |k: usize| {
            let (first, beyond) = (stars[k], &stars[k + 1..]);
            let near = beyond.iter().take_while(move |s| s.along_px - first.along_px < self.next_px().1);
            near.filter(move |s| self.is_next(&first, s)).flat_map(move |s| self.rows_through(&stars[k..], s))
        };
        let mut rows: Vec<Row> = (0..stars.len()).flat_map(from).collect();
        rows.sort_by(|a, b| a.stars.cmp(&b.stars));
        rows.dedup_by(|a, b| a.stars == b.stars);
        rows
    }

    /// Rows that begin with the first of some stars, in the direction of a second one.
    fn rows_through(&self, stars: &[Member], second: &Member) -> Vec<Row> {
        let first = stars[0];
        let slope = (second.across_px - first.across_px) / (second.along_px - first.along_px);
        if slope.abs() > MOST_SLOPE {
            return Vec::new();
        }
        let is_on = |s: &Member| {
            let off_px = s.across_px - first.across_px - slope * (s.along_px - first.along_px);
            off_px.abs() < OFF_ROW_SIGMAS * self.sigma()
                && s.snr < AS_BRIGHT * first.snr
                && first.snr < AS_BRIGHT * s.snr
        };
        let (mut row, mut rows) = (vec![first], Vec::new());
        for star in &stars[1..] {
            let last = row[row.len() - 1];
            if star.along_px - last.along_px > self.next_px().1 || row.len() == MOST_STARS {
                break;
            }
            if self.is_next(&last, star) && is_on(star) {
                row.push(*star);
                let middle = |s: &Member| self.trails[s.star].trail().segment.midpoint();
                let half_px = 0.5 * self.motion.length_px;
                let trail = Segment::new(middle(&first), middle(star)).extended(half_px, half_px);
                rows.push(Row { stars: row.iter().map(|s| s.star).collect(), trail });
            }
        }
        rows
    }

    fn next_px(&self) -> (f64, f64) {
        (NEXT_LENGTHS.0 * self.motion.length_px, NEXT_LENGTHS.1 * self.motion.length_px)
    }

    fn is_next(&self, before: &Member, after: &Member) -> bool {
        let (nearest, furthest) = self.next_px();
        (nearest..furthest).contains(&(after.along_px - before.along_px))
    }

    /// Trails that could be parts of one that is no star's, along the stars' direction.
    fn members(&self) -> Vec<Member> {
        let direction = Segment::around(Point::new(0.0, 0.0), 1.0, self.motion.angle_rad);
        let member = |(star, b): (usize, &Believed)| {
            let (along_px, across_px) = direction.along_across(b.trail().segment.midpoint());
            Member { star, along_px, across_px, snr: b.fit.snr }
        };
        let mut members: Vec<Member> = self
            .trails
            .iter()
            .enumerate()
            .filter(|(_, b)| b.fit.snr < MOST_SNR && !self.is_sure(b))
            .map(member)
            .collect();
        members.sort_by(|a, b| a.along_px.total_cmp(&b.along_px));
        members
    }

    /// A bright trail whose own ends say that it is a star's.
    fn is_sure(&self, star: &Believed) -> bool {
        star.fit.snr >= FREE_SNR
            && self.measured(star).is_some_and(|trail| {
                let off_px = (trail.segment.length_px() - self.motion.length_px).abs();
                off_px < SURE_SIGMAS * trail.length_err_px.max(LEAST_ERR_PX)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::believed::Origin;
    use crate::pipeline::measure::TrailFit;
    use crate::pipeline::strip::Doubt;
    use crate::pipeline::tracking::StarMotion;

    const STAR_PX: f64 = 20.0;
    const TURN: f64 = 0.3;

    /// Stars by their middles along and across their direction, and S/N.
    fn stars(places: &[(f64, f64, f64)]) -> StarTrails {
        let (s, c) = TURN.sin_cos();
        let star = |&(u, v, snr): &(f64, f64, f64)| {
            let segment = Segment::around(Point::new(200.0 + u * c - v * s, 200.0 + u * s + v * c), STAR_PX, TURN);
            let fit = TrailFit::unfitted(Trail { segment, flux: 1.0, background: 0.0, sigma_eff_px: 1.5 });
            Believed::new(TrailFit { snr, ..fit }, Origin::Star)
        };
        let (length_px, angle_rad) = (STAR_PX, TURN);
        StarTrails {
            motion: StarMotion { length_px, angle_rad, length_err_px: 0.1, angle_err_rad: 0.001, n_stars: 100 },
            psf_sigma_px: 1.5,
            n_widths: 0,
            doubt: Doubt::NONE,
            spread_px: 0.0,
            scatter: 1.0,
            trails: places.iter().map(star).collect(),
            wings: Vec::new(),
        }
    }

    /// The gain of the row of all stars, whose light has been taken out to the last.
    fn gain(stars: &StarTrails) -> Option<f64> {
        let rows = stars.rows();
        let all = rows.iter().find(|r| r.stars.len() == stars.trails.len()).expect("one row of all");
        stars.gain_over_stars(
            all,
            &TrackProfile { signal: vec![0.0; 80], variance: vec![1.0; 80], ..Default::default() },
        )
    }

    #[test]
    fn even_stars_end_to_end_are_one_trail() {
        let row = |step: f64, snr: [f64; 4]| -> StarTrails {
            let at = |k: usize| (step * k as f64, 0.02 * step * k as f64, snr[k]);
            stars(&(0..4).map(at).collect::<Vec<_>>())
        };
        let even = row(20.0, [11.0, 10.0, 9.5, 10.5]);
        // They explain 422 together, of which a tenth is forgiven, and a trail through them as much but for a hundredth; four
        // stars in a row cost 36, a trail 26.
        assert!(gain(&even).is_some_and(|gain| (46.0..53.0).contains(&gain)), "{:?}", gain(&even));
        assert!((even.rows().iter().find(|r| r.stars.len() == 4).unwrap().trail.length_px() - 80.0).abs() < 0.1);
        assert_eq!(gain(&row(27.0, [10.0; 4])), None, "gaps between them");
        assert_eq!(gain(&stars(&[(0.0, 0.0, 20.0), (10.0, 0.0, 20.0)])), None, "lit twice where they overlap");
        assert_eq!(gain(&row(20.0, [20.0, 9.0, 20.0, 9.0])), None, "uneven");
    }

    #[test]
    fn rows_are_straight() {
        let n_stars = |places: &[(f64, f64, f64)]| stars(places).rows().iter().map(|r| r.stars.len()).max();
        assert_eq!(n_stars(&[(0.0, 0.0, 9.0), (20.0, 3.0, 9.0), (40.0, 6.0, 9.0)]), Some(3));
        assert_eq!(n_stars(&[(0.0, 0.0, 9.0), (20.0, 3.0, 9.0), (40.0, 0.0, 9.0)]), Some(2), "bent");
        assert_eq!(n_stars(&[(0.0, 0.0, 9.0), (20.0, 8.0, 9.0)]), None, "side by side");
        assert_eq!(n_stars(&[(0.0, 0.0, 9.0), (50.0, 0.0, 9.0)]), None, "far apart");
        assert_eq!(n_stars(&[(0.0, 0.0, 9.0), (20.0, 0.0, 30.0), (40.0, 0.0, 9.0)]), Some(2), "over a bright one");
    }
}
