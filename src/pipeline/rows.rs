//! Star trails in a row: rather one trail that is no star's?
//!
//! Stars are found before what is left of the frame is searched, and a trail along their direction is taken for a row of
//! them. Method: docs/algorithm.md, "Stars that trail".

use crate::Result;
use crate::backend::{Backend, TrackProfile};
use crate::geometry::Segment;
use crate::pipeline::measure::Trail;
use crate::pipeline::search::template_correlation;
use crate::pipeline::merge::Believed;
use crate::pipeline::star_trails::{self, FREE_SNR, StarTrails};

/// Middles of neighbours in a row lie this far apart along the stars' direction, in star lengths: they overlap, or a
/// bright star hides the one between them.
const NEXT_LENGTHS: (f64, f64) = (0.2, 2.2);

/// A row is turned from the stars' direction by less than this, rad: a trail turned further is no star's.
const MOST_TURN_RAD: f64 = 0.3;

/// How far the middle of a star may lie off the row, in PSF widths.
const OFF_ROW_SIGMAS: f64 = 1.0;

/// Stars of one trail are as bright as each other within this factor: where one is half as long as a star, the other takes
/// its light.
const AS_BRIGHT: f64 = 2.5;

/// Stars in a row at most.
const MOST_STARS: usize = 12;

/// Part of the stars' S/N² that a trail through them may lack: it is not fitted yet.
const UNFITTED_LOSS: f64 = 0.1;

/// S/N² that a trail must win, and what every star of a row costs: as where blends are parted.
const TRAIL_PRICE: f64 = 26.0;
const STAR_PRICE: f64 = 6.0;

/// A star's own length is that of the others within so many of its errors.
const SURE_SIGMAS: f64 = 2.0;

/// Stars that may be one trail.
struct Row {
    /// Indices of the stars.
    stars: Vec<usize>,
    segment: Segment,
}

impl StarTrails {
    /// Puts stars back that lie in a row and that one trail explains as well. The search that follows finds that trail,
    /// and holds it against stars once more. All stars have been taken out of the residual image.
    pub(crate) fn put_back_rows(&mut self, backend: &mut dyn Backend) -> Result<()> {
        let rows = self.rows();
        let tracks: Vec<Segment> = rows.iter().map(|r| r.segment).collect();
        let profiles = backend.profiles(&tracks, self.sigma() as f32)?;
        let mut gains: Vec<(f64, &Row)> =
            rows.iter().zip(&profiles).map(|(row, profile)| (self.gain(row, profile), row)).collect();
        gains.retain(|(gain, _)| *gain > 0.0);
        gains.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.stars.cmp(&b.1.stars)));
        let mut is_back = vec![false; self.trails.len()];
        for (_, row) in gains {
            if !row.stars.iter().any(|&i| is_back[i]) {
                row.stars.iter().for_each(|&i| is_back[i] = true);
            }
        }
        let back = self.trails.iter().zip(&is_back).filter(|(_, back)| **back);
        let back: Vec<Trail> = back.map(|(b, _)| b.trail()).collect();
        backend.add_trails(&back, 1.0)?;
        let mut is_back = is_back.into_iter();
        self.trails.retain(|_| is_back.next() == Some(false));
        Ok(())
    }

    /// S/N² by which a trail explains more than the stars in its place, prices included.
    fn gain(&self, row: &Row, left: &TrackProfile) -> f64 {
        let sigma = self.sigma();
        let star = |i: usize| (self.trails[i].trail().segment, self.trails[i].fit.snr);
        let (signal, variance) = (left.signal.iter().sum::<f32>(), left.variance.iter().sum::<f32>());
        let left = if variance > 0.0 { f64::from(signal) / f64::from(variance).sqrt() } else { 0.0 };
        let of_star = |&i: &usize| star(i).1 * template_correlation(&row.segment, &star(i).0, sigma);
        let trail = left + row.stars.iter().map(of_star).sum::<f64>();
        let pairs = row.stars.iter().flat_map(|&i| row.stars.iter().map(move |&j| (star(i), star(j))));
        let stars: f64 = pairs.map(|(a, b)| a.1 * b.1 * template_correlation(&a.0, &b.0, sigma)).sum();
        let prices = TRAIL_PRICE - STAR_PRICE * row.stars.len() as f64 - STAR_PRICE * (row.stars.len() as f64 - 2.0);
        trail * trail.max(0.0) - (1.0 - UNFITTED_LOSS) * stars - prices * self.scatter.max(1.0).powi(2)
    }

    /// A bright trail whose own ends say that it is a star's.
    fn is_sure(&self, star: &Believed) -> bool {
        let settings = self.settings((star.trail().sigma_eff_px, star.trail().sigma_eff_px));
        star.fit.snr >= FREE_SNR
            && star_trails::measured(&star.fit, &settings).is_some_and(|trail| {
                (trail.segment.length_px() - self.motion.length_px).abs() < SURE_SIGMAS * trail.length_err_px.max(0.5)
            })
    }

    /// Every part of every row.
    fn rows(&self) -> Vec<Row> {
        let (length_px, sigma) = (self.motion.length_px, self.sigma());
        let frame = Segment::around(crate::geometry::Point::new(0.0, 0.0), 1.0, self.motion.angle_rad);
        let mut stars: Vec<(usize, f64, f64, f64)> = self
            .trails
            .iter()
            .enumerate()
            .filter(|(_, b)| !self.is_sure(b))
            .map(|(i, b)| {
                let (along, across) = frame.along_across(b.trail().segment.midpoint());
                (i, along, across, b.fit.snr)
            })
            .collect();
        stars.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (nearest, furthest) = (NEXT_LENGTHS.0 * length_px, NEXT_LENGTHS.1 * length_px);
        let as_bright = |a: f64, b: f64| a < AS_BRIGHT * b && b < AS_BRIGHT * a;
        let mut rows = Vec::new();
        for (k, a) in stars.iter().enumerate() {
            let beyond = stars[k + 1..].iter().take_while(|b| b.1 - a.1 < furthest);
            for b in beyond.filter(|b| b.1 - a.1 > nearest && as_bright(a.3, b.3)) {
                let slope = (b.2 - a.2) / (b.1 - a.1);
                if slope.abs() > MOST_TURN_RAD.tan() {
                    continue;
                }
                // From the first on, as far as one follows the other.
                let mut row = vec![*a];
                for s in &stars[k + 1..] {
                    let last = row[row.len() - 1];
                    if s.1 - last.1 > furthest || row.len() == MOST_STARS {
                        break;
                    }
                    let off = s.2 - (a.2 + slope * (s.1 - a.1));
                    if s.1 - last.1 > nearest && off.abs() < OFF_ROW_SIGMAS * sigma && as_bright(s.3, a.3) {
                        row.push(*s);
                        let of = |r: &(usize, f64, f64, f64)| self.trails[r.0].trail().segment.midpoint();
                        let (first, last) = (of(&row[0]), of(&row[row.len() - 1]));
                        let half = 0.5 * length_px;
                        let segment = Segment::new(first, last).extended(half, half);
                        rows.push(Row { stars: row.iter().map(|r| r.0).collect(), segment });
                    }
                }
            }
        }
        rows
    }
}
