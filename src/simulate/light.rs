//! The light of a moving point source, integrated over time and pixels.

use std::f64::consts::SQRT_2;
use std::ops::Range;

use libm::erf;

use crate::{Point, Segment};

/// Abscissae and weights of the four-point Gauss-Legendre rule on [-1, 1].
const GAUSS_LEGENDRE: [(f64, f64); 4] = [
    (-0.861_136_311_594_052_6, 0.347_854_845_137_453_8),
    (-0.339_981_043_584_856_3, 0.652_145_154_862_546_1),
    (0.339_981_043_584_856_3, 0.652_145_154_862_546_1),
    (0.861_136_311_594_052_6, 0.347_854_845_137_453_8),
];

/// How far from its centre a point source is drawn, in PSF widths: beyond lies 2·10⁻⁹ of its light.
const REACH_SIGMA: f64 = 6.0;

/// Light on a rectangle of pixels, as shares of the total flux of the source.
///
/// `values` holds `[height, width]` in row-major order; the first is frame pixel (`x0`, `y0`). Their sum is 1 where the
/// source lies well inside the frame, less where the frame cuts it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamp {
    /// Frame column of the first column.
    pub x0: usize,
    /// Frame row of the first row.
    pub y0: usize,
    /// Pixels along a row; 0 when the source is out of the frame.
    pub width: usize,
    /// Number of rows; 0 when the source is out of the frame.
    pub height: usize,
    /// Share of the flux in each pixel.
    pub values: Vec<f64>,
}

impl Stamp {
    fn empty(columns: Range<usize>, rows: Range<usize>) -> Self {
        let values = vec![0.0; columns.len() * rows.len()];
        Self { x0: columns.start, y0: rows.start, width: columns.len(), height: rows.len(), values }
    }

    /// Every pixel as (column in the frame, row in the frame, share of the flux).
    pub fn pixels(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        self.values
            .chunks(self.width.max(1))
            .zip(self.y0..)
            .flat_map(move |(row, y)| row.iter().zip(self.x0..).map(move |(&share, x)| (x, y, share)))
    }

    /// Share of the flux inside the stamp, in [0, 1].
    #[must_use]
    pub fn total(&self) -> f64 {
        self.values.iter().sum()
    }

    /// Root of the summed squares, `√Σt²`: the matched-filter S/N of unit flux in white noise of unit rms.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.values.iter().map(|t| t * t).sum::<f64>().sqrt()
    }

    /// Matched-filter S/N of unit flux where the noise varies: `√Σ t²/var`, `variance` taken at (column, row).
    #[must_use]
    pub fn unit_snr(&self, variance: impl Fn(usize, usize) -> f64) -> f64 {
        self.pixels().filter(|p| p.2 > 0.0).map(|(x, y, t)| t * t / variance(x, y)).sum::<f64>().sqrt()
    }

    /// Adds a uniformly moving source of unit flux that goes from one end of the segment to the other.
    ///
    /// At each moment the light in a pixel is exact, a product of two differences of error functions; time is
    /// integrated over panels no longer than the PSF width.
    fn expose(&mut self, segment: &Segment, sigma_px: f64) {
        let length = segment.length_px();
        if length == 0.0 {
            return self.add_point(segment.start, sigma_px, 1.0);
        }
        let n_panels = (length / sigma_px).ceil();
        for panel in 0..n_panels as usize {
            for (abscissa, weight) in GAUSS_LEGENDRE {
                let time = (panel as f64 + 0.5 * (1.0 + abscissa)) / n_panels;
                self.add_point(segment.at(time), sigma_px, 0.5 * weight / n_panels);
            }
        }
    }

    fn add_point(&mut self, at: Point, sigma_px: f64, flux: f64) {
        let columns = reached(at.x, at.x, sigma_px, self.x0..self.x0 + self.width);
        let rows = reached(at.y, at.y, sigma_px, self.y0..self.y0 + self.height);
        let shares = pixel_shares(at.x, sigma_px, columns.clone());
        for (y, share_y) in rows.clone().zip(pixel_shares(at.y, sigma_px, rows)) {
            let first = (y - self.y0) * self.width + columns.start - self.x0;
            for (value, share_x) in self.values[first..].iter_mut().zip(&shares) {
                *value += flux * share_y * share_x;
            }
        }
    }
}

/// The pixels of `within` that light between two coordinates reaches along one axis.
fn reached(low: f64, high: f64, sigma_px: f64, within: Range<usize>) -> Range<usize> {
    let reach = REACH_SIGMA * sigma_px + 0.5;
    // Float to integer conversion saturates: coordinates left of the frame become 0.
    let first = (low - reach).floor().max(0.0) as usize;
    let last = (high + reach + 1.0).ceil().max(0.0) as usize;
    let first = first.clamp(within.start, within.end);
    first..last.clamp(first, within.end)
}

/// Integral of a unit Gaussian at `centre` over each of the pixels along one axis.
fn pixel_shares(centre: f64, sigma_px: f64, pixels: Range<usize>) -> Vec<f64> {
    let below = |edge: f64| 0.5 * erf((edge - centre) / (SQRT_2 * sigma_px));
    let mut left = below(pixels.start as f64 - 0.5);
    pixels
        .map(|pixel| {
            let right = below(pixel as f64 + 0.5);
            right - std::mem::replace(&mut left, right)
        })
        .collect()
}

/// The light of a streak of unit flux (of a point source where the segment has no length) in each pixel of a frame.
///
/// A source moves uniformly along the segment and is blurred by a circular Gaussian of width `sigma_px`. The stamp
/// covers what of it lies in a frame of `width` by `height` pixels; accuracy 10⁻⁶ of the peak.
///
/// ```
/// use skystreak::{Segment, simulate::unit_stamp};
///
/// let streak = Segment::from_coordinates(20.0, 30.0, 80.0, 45.0);
/// let stamp = unit_stamp(&streak, 1.5, 128, 64);
/// assert!((stamp.total() - 1.0).abs() < 1e-7);
/// // Flux that gives a matched-filter S/N of 10 in noise of 20 e- rms:
/// let flux_e = 10.0 * 20.0 / stamp.norm();
/// assert!((flux_e - 3_700.0).abs() < 50.0);
/// ```
#[must_use]
pub fn unit_stamp(segment: &Segment, sigma_px: f64, width: usize, height: usize) -> Stamp {
    let (a, b) = (segment.start, segment.end);
    let columns = reached(a.x.min(b.x), a.x.max(b.x), sigma_px, 0..width);
    let rows = reached(a.y.min(b.y), a.y.max(b.y), sigma_px, 0..height);
    let mut stamp =
        if columns.is_empty() || rows.is_empty() { Stamp::empty(0..0, 0..0) } else { Stamp::empty(columns, rows) };
    stamp.expose(segment, sigma_px);
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Light of a trailed Gaussian by nothing but sums: 100 moments per px, 100 by 100 points in each pixel.
    fn brute_force(segment: &Segment, sigma: f64, x: usize, y: usize) -> f64 {
        let n_moments = (segment.length_px() * 100.0).ceil().max(1.0) as usize;
        let along_axis = |pixel: usize, centre: f64| {
            let points = (0..100).map(|i| pixel as f64 + (f64::from(i) + 0.5) / 100.0 - 0.5 - centre);
            points.map(|d| (-d * d / (2.0 * sigma * sigma)).exp()).sum::<f64>() / 100.0
        };
        let moments = (0..n_moments).map(|moment| segment.at((moment as f64 + 0.5) / n_moments as f64));
        let sum: f64 = moments.map(|at| along_axis(x, at.x) * along_axis(y, at.y)).sum();
        sum / (std::f64::consts::TAU * sigma * sigma * n_moments as f64)
    }

    #[test]
    fn agrees_with_brute_force() {
        for sigma in [0.7, 1.5] {
            for (length, degrees) in [(0.0, 0.0), (0.4, 30.0), (6.0, 0.0), (9.0, 17.0), (7.5, 45.0), (8.0, 90.0)] {
                let segment = Segment::around(Point::new(12.3, 11.8), length, f64::to_radians(degrees));
                let stamp = unit_stamp(&segment, sigma, 25, 24);
                let peak = stamp.values.iter().copied().fold(0.0, f64::max);
                for (x, y, share) in stamp.pixels() {
                    if (x + 2 * y) % 7 == 0 {
                        let error = (share - brute_force(&segment, sigma, x, y)).abs();
                        assert!(error < 2e-5 * peak, "sigma {sigma}, {length} px at {degrees}: {error:e} at {x} {y}");
                    }
                }
            }
        }
    }

    #[test]
    fn light_is_conserved_and_cut_by_the_frame() {
        let segment = Segment::from_coordinates(-30.0, 20.0, 30.0, 20.0);
        assert!((unit_stamp(&segment, 1.2, 64, 64).total() - 30.5 / 60.0).abs() < 1e-6);
        let inside = Segment::from_coordinates(20.0, 20.0, 40.0, 43.0);
        assert!((unit_stamp(&inside, 1.2, 64, 64).total() - 1.0).abs() < 1e-7);
        let outside = unit_stamp(&Segment::from_coordinates(90.0, 20.0, 99.0, 20.0), 1.2, 64, 64);
        assert_eq!((outside.width, outside.height, outside.pixels().count()), (0, 0, 0));
    }

    #[test]
    fn frame_only_crops() {
        let segment = Segment::from_coordinates(5.0, -4.0, 12.0, 18.0);
        let shifted = Segment::from_coordinates(25.0, 26.0, 32.0, 48.0);
        let (small, large) = (unit_stamp(&segment, 1.0, 11, 13), unit_stamp(&shifted, 1.0, 99, 99));
        for (x, y, share) in small.pixels() {
            let whole = large.pixels().find(|p| (p.0, p.1) == (x + 20, y + 30)).map_or(0.0, |p| p.2);
            assert!((share - whole).abs() < 1e-12);
        }
    }

    #[test]
    fn snr_follows_the_closed_form() {
        // For pixels small against the PSF the sum of squares is the integral of the squared profile.
        for length in [0.0, 3.0, 25.0, 300.0] {
            let sigma: f64 = 6.0;
            let norm = unit_stamp(&Segment::around(Point::new(250.2, 99.7), length, 0.2), sigma, 500, 200).norm();
            let (root_pi, q) = (std::f64::consts::PI.sqrt(), length / (2.0 * sigma));
            let expected = if length == 0.0 {
                1.0 / (2.0 * root_pi * sigma)
            } else {
                ((length * erf(q) - 2.0 * sigma / root_pi * (1.0 - (-q * q).exp()))
                    / (2.0 * root_pi * sigma * length * length))
                    .sqrt()
            };
            assert!((norm / expected - 1.0).abs() < 3e-3, "{length}: {norm} {expected}");
        }
    }
}
