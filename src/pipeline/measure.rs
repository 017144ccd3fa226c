//! Measure stage: maximum-likelihood fits of the trailed PSF, and what follows from them.
//!
//! The fit itself runs on the device for all candidates at once; what is asked of it and how its sums become errors
//! is here. Method: docs/algorithm.md, "Measure".

use std::ops::Range;

use crate::backend::{POINT_LENGTH_PX, trail_reach_px};
use crate::detection::EndCovariance;
use crate::geometry::{Point, Segment};

/// The model: light spread evenly along a segment, convolved with a Gaussian PSF, on a flat background.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Trail {
    pub(crate) segment: Segment,
    /// Total flux, in the frame's unit.
    pub(crate) flux: f64,
    /// Level below the trail, in the frame's unit.
    pub(crate) background: f64,
    /// PSF width with pixel integration, see [`effective_sigma`](crate::pipeline::psf::effective_sigma).
    pub(crate) sigma_eff_px: f64,
}

impl Trail {
    /// Its light at a place, per px², background apart.
    pub(crate) fn light_at(&self, place: Point) -> f64 {
        let (along, across) = self.segment.along_across(place);
        let length = self.segment.length_px().max(f64::from(POINT_LENGTH_PX));
        let reach_px = trail_reach_px(self);
        if across.abs() > reach_px || along < -reach_px || along > length + reach_px {
            return 0.0;
        }
        let widths = across / self.sigma_eff_px;
        let step = |u: f64| 0.5 * (1.0 + libm::erf(u / self.sigma_eff_px * std::f64::consts::FRAC_1_SQRT_2));
        let bell = (-0.5 * widths * widths).exp() / (self.sigma_eff_px * std::f64::consts::TAU.sqrt());
        self.flux / length * (step(along) - step(along - length)) * bell
    }
}

/// What one fit starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FitRequest {
    pub(crate) start: Trail,
    /// The start model has been taken out of the residual image: the fit adds it back.
    pub(crate) subtracted: bool,
}

/// What kind of source is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Two free ends.
    Trail,
    /// One free position: both ends move together.
    Point,
}

/// The PSF width of the frame, with the standard deviation of single sources around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SigmaPrior {
    pub(crate) sigma_px: f64,
    pub(crate) spread_px: f64,
}

/// What is free in a fit, and when it stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FitSettings {
    pub(crate) shape: Shape,
    pub(crate) free_background: bool,
    pub(crate) free_sigma: bool,
    /// The PSF width stays within these.
    pub(crate) sigma_range: (f64, f64),
    /// What is known of it beforehand.
    pub(crate) sigma_prior: Option<SigmaPrior>,
    /// Pixels up to this far from the starting segment take part.
    pub(crate) reach_px: f64,
    /// Variance per unit of flux from the source's own photons: 1 / gain, or 0 where the gain is not known.
    pub(crate) photon_variance: f64,
    /// Pixels further than this many times the noise from zero are clipped: no single pixel can make a streak.
    pub(crate) clip_sigmas: f64,
    pub(crate) max_iterations: u32,
}

/// No clipping: beyond any pixel's significance.
pub(crate) const UNCLIPPED_SIGMAS: f64 = 1e9;

/// Stop when the next step is expected to improve χ² by less than this.
pub(crate) const STOP_DELTA_CHI2: f64 = 1e-3;

/// The ends of a trail may lie so many PSF widths outside of the frame and no further: from there on they cost
/// nothing, and would run away. Held at the border itself they would take half of the light off the last pixels.
pub(crate) const BEYOND_BORDER_WIDTHS: f64 = 3.0;

/// A step damped by this or more promises little wherever it starts: it does not end a fit. Half way between two steps of
/// damping, so that single precision counts alike.
pub(crate) const MOST_STOP_DAMPING: f64 = 0.03;

/// After a step that made χ² worse, damping is no less than this: with less the next step would be nearly the same.
pub(crate) const TELLING_DAMPING: f64 = 0.01;

/// Where even a step damped by this makes χ² worse there is no way down, such as where light that is taken away would have to
/// be given.
pub(crate) const MOST_DAMPING: f64 = 1e4;

/// Where the pixels have less than this share of what is known of the width, they say next to nothing.
const LEAST_OWN_SHARE: f64 = 0.05;

/// Number of model parameters: flux, end 1 along and across, end 2 along and across, background, PSF width.
pub(crate) const N_PARAMETERS: usize = 7;
/// Elements of the upper triangle of a matrix of that size, row by row.
pub(crate) const N_TRIANGLE: usize = N_PARAMETERS * (N_PARAMETERS + 1) / 2;

/// Result of one fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TrailFit {
    pub(crate) trail: Trail,
    /// Fisher information of (flux, along 1, across 1, along 2, across 2, background, width), upper triangle. Of a
    /// point, along 1 and across 1 stand for x and y.
    pub(crate) information: [f64; N_TRIANGLE],
    /// Matched-filter S/N of the fitted model against background noise.
    pub(crate) snr: f64,
    pub(crate) chi2: f64,
    pub(crate) n_pixels: f64,
    pub(crate) iterations: u32,
    pub(crate) converged: bool,
    /// Fraction of the light within two PSF widths of either end that fell on usable pixels.
    pub(crate) end_coverage: [f64; 2],
}

/// Index into the upper triangle, `i <= j`.
pub(crate) const fn triangle(i: usize, j: usize) -> usize {
    i * N_PARAMETERS - i * (i + 1) / 2 + j
}

/// Errors of a fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FitErrors {
    pub(crate) covariance_px2: EndCovariance,
    pub(crate) flux_err: f64,
    pub(crate) sigma_eff_err: f64,
}

impl TrailFit {
    /// A trail that nothing is known of yet.
    pub(crate) fn unfitted(trail: Trail) -> Self {
        Self {
            trail,
            information: [0.0; N_TRIANGLE],
            snr: 0.0,
            chi2: 0.0,
            n_pixels: 0.0,
            iterations: 0,
            converged: false,
            end_coverage: [0.0; 2],
        }
    }

    pub(crate) fn chi2_reduced(&self, settings: &FitSettings) -> f64 {
        let free = settings.free_parameters().iter().filter(|f| **f).count();
        self.chi2 / (self.n_pixels - free as f64).max(1.0)
    }

    /// What reduced χ² has above one and three standard errors of chance.
    pub(crate) fn misfit(&self, settings: &FitSettings) -> f64 {
        (self.chi2_reduced(settings) - 1.0 - 3.0 * (2.0 / self.n_pixels.max(1.0)).sqrt()).max(0.0)
    }

    /// As a fit that held the background: what a backend says of it then does not count.
    pub(crate) fn without_background(mut self) -> Self {
        for i in 0..N_PARAMETERS {
            self.information[triangle(i.min(5), i.max(5))] = f64::from(u8::from(i == 5));
        }
        self
    }

    /// Inverts the Fisher information; none where it is singular.
    pub(crate) fn errors(&self, settings: &FitSettings) -> Option<FitErrors> {
        self.errors_with(settings, [true; 2])
    }

    /// As [`errors`](Self::errors), where an end that was not seen stays in its place along the track: the pixels do
    /// not know it, nor how much light lies beyond.
    pub(crate) fn errors_with(&self, settings: &FitSettings, seen: [bool; 2]) -> Option<FitErrors> {
        let mut free = settings.free_parameters();
        free[1] &= seen[0];
        free[3] &= seen[1];
        let mut matrix = [[0.0; N_PARAMETERS]; N_PARAMETERS];
        for i in 0..N_PARAMETERS {
            for j in 0..N_PARAMETERS {
                matrix[i][j] = match (free[i] && free[j], i == j) {
                    (true, _) => self.information[triangle(i.min(j), i.max(j))],
                    (false, same) => f64::from(u8::from(same)),
                };
            }
        }
        let mut inverse = invert(&matrix)?;
        // What is held has no error.
        for i in (0..N_PARAMETERS).filter(|&i| !free[i]) {
            inverse[i][i] = 0.0;
        }
        let variance = |i: usize| if free[i] { inverse[i][i] } else { 0.0 };
        let mut covariance_px2 = [[0.0; 4]; 4];
        match settings.shape {
            Shape::Trail => {
                // (along, across) of each end, turned into (x, y).
                let (c, s) = self.trail.segment.direction();
                let turn = [[c, -s, 0.0, 0.0], [s, c, 0.0, 0.0], [0.0, 0.0, c, -s], [0.0, 0.0, s, c]];
                for (i, row) in covariance_px2.iter_mut().enumerate() {
                    for (j, value) in row.iter_mut().enumerate() {
                        *value = (0..4)
                            .flat_map(|k| (0..4).map(move |l| (k, l)))
                            .map(|(k, l)| turn[i][k] * inverse[k + 1][l + 1] * turn[j][l])
                            .sum();
                    }
                }
            }
            Shape::Point => {
                for (i, row) in covariance_px2.iter_mut().enumerate() {
                    for (j, value) in row.iter_mut().enumerate() {
                        *value = inverse[i % 2 + 1][j % 2 + 1];
                    }
                }
            }
        }
        let finite = covariance_px2.iter().flatten().all(|v| v.is_finite()) && variance(0) > 0.0;
        finite.then(|| FitErrors {
            covariance_px2,
            flux_err: variance(0).sqrt(),
            sigma_eff_err: variance(6).max(0.0).sqrt(),
        })
    }
}

/// The width of a trail as its pixels say, whatever is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OwnWidth {
    pub(crate) sigma_eff_px: f64,
    pub(crate) err_px: f64,
}

impl TrailFit {
    /// Takes the prior out of the fitted width again, as of normal errors: what prior and pixels say together is the mean
    /// of both, weighted by their inverse variances. Where the pixels say next to nothing the fitted width stays.
    pub(crate) fn own_width(&self, settings: &FitSettings, sigma_eff_err_px: f64) -> OwnWidth {
        let fitted_px = self.trail.sigma_eff_px;
        let fitted = OwnWidth { sigma_eff_px: fitted_px, err_px: sigma_eff_err_px };
        let (of_both, of_prior) = (sigma_eff_err_px.powi(-2), settings.sigma_weight());
        let of_pixels = of_both - of_prior;
        let Some(prior) = settings.sigma_prior.filter(|_| of_pixels > LEAST_OWN_SHARE * of_both) else {
            return fitted;
        };
        let own_px = prior.sigma_px + (fitted_px - prior.sigma_px) * of_both / of_pixels;
        let (least, most) = settings.sigma_range;
        OwnWidth { sigma_eff_px: own_px.clamp(least, most), err_px: of_pixels.sqrt().recip() }
    }

    /// Errors of a trail whose length and angle are known with some error, and held: it moves as a whole.
    pub(crate) fn errors_of_known_vector(&self, length_err_px: f64, angle_err_rad: f64) -> Option<FitErrors> {
        // Flux, along and across: both ends move alike.
        let parts: [&[usize]; 3] = [&[0], &[1, 3], &[2, 4]];
        let mut matrix = [[0.0; N_PARAMETERS]; N_PARAMETERS];
        for (i, row) in matrix.iter_mut().enumerate() {
            for (j, element) in row.iter_mut().enumerate() {
                *element = match (parts.get(i), parts.get(j)) {
                    (Some(a), Some(b)) => {
                        let pairs = a.iter().flat_map(|p| b.iter().map(move |q| (*p.min(q), *p.max(q))));
                        pairs.map(|(p, q)| self.information[triangle(p, q)]).sum()
                    }
                    _ => f64::from(u8::from(i == j)),
                };
            }
        }
        let inverse = invert(&matrix)?;
        let segment = &self.trail.segment;
        let (half_length, half_turn) = (0.5 * length_err_px, 0.5 * segment.length_px() * angle_err_rad);
        let (c, s) = segment.direction();
        let turn = [[c, -s], [s, c]];
        let covariance_px2 = std::array::from_fn(|row| {
            std::array::from_fn(|column| {
                let side = if row / 2 == column / 2 { 1.0 } else { -1.0 };
                let own = [
                    [inverse[1][1] + side * half_length.powi(2), inverse[1][2]],
                    [inverse[1][2], inverse[2][2] + side * half_turn.powi(2)],
                ];
                (0..4).map(|k| turn[row % 2][k / 2] * own[k / 2][k % 2] * turn[column % 2][k % 2]).sum()
            })
        });
        Some(FitErrors { covariance_px2, flux_err: inverse[0][0].sqrt(), sigma_eff_err: 0.0 })
    }
}

impl FitSettings {
    /// Inverse variance of the PSF width that is known beforehand; 0 where none is, or it is not free.
    pub(crate) fn sigma_weight(&self) -> f64 {
        self.sigma_prior.filter(|_| self.free_sigma).map_or(0.0, |p| p.spread_px.powi(-2))
    }

    /// Which of the parameters move.
    pub(crate) fn free_parameters(&self) -> [bool; N_PARAMETERS] {
        let second_end = self.shape == Shape::Trail;
        [true, true, true, second_end, second_end, self.free_background, self.free_sigma]
    }
}

/// Inverse of a symmetric positive definite matrix by Cholesky factors, scaled to a unit diagonal first; none where
/// it is not positive definite.
pub(crate) fn invert(matrix: &[[f64; N_PARAMETERS]; N_PARAMETERS]) -> Option<[[f64; N_PARAMETERS]; N_PARAMETERS]> {
    let scale: Vec<f64> = (0..N_PARAMETERS).map(|i| 1.0 / matrix[i][i].sqrt()).collect();
    if !scale.iter().all(|s| s.is_finite()) {
        return None;
    }
    let mut lower = [[0.0; N_PARAMETERS]; N_PARAMETERS];
    for i in 0..N_PARAMETERS {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let rest = matrix[i][j] * scale[i] * scale[j] - dot;
            lower[i][j] = if i == j {
                if rest < 1e-12 {
                    return None;
                }
                rest.sqrt()
            } else {
                rest / lower[j][j]
            };
        }
    }
    let mut inverse = [[0.0; N_PARAMETERS]; N_PARAMETERS];
    for column in 0..N_PARAMETERS {
        let mut x = [0.0; N_PARAMETERS];
        for i in 0..N_PARAMETERS {
            let dot: f64 = (0..i).map(|k| lower[i][k] * x[k]).sum();
            x[i] = (f64::from(u8::from(i == column)) - dot) / lower[i][i];
        }
        for i in (0..N_PARAMETERS).rev() {
            let dot: f64 = (i + 1..N_PARAMETERS).map(|k| lower[k][i] * x[k]).sum();
            x[i] = (x[i] - dot) / lower[i][i];
        }
        for i in 0..N_PARAMETERS {
            inverse[i][column] = x[i] * scale[i] * scale[column];
        }
    }
    Some(inverse)
}

/// The pixels a fit or a model looks at: steps along the flatter axis, offsets across it.
///
/// Both backends take the same ones: for each step the pixels up to `half_width` from [`centre`](Self::centre). The GPU
/// walks them step by step, the CPU row by row as they lie in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StampWalk {
    pub(crate) along_x: bool,
    pub(crate) first: i64,
    pub(crate) steps: usize,
    pub(crate) half_width: i64,
    /// Line through the track: across-axis coordinate = `intercept + slope · step`.
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
}

impl StampWalk {
    pub(crate) fn new(track: &Segment, reach_px: f64, width: usize, height: usize) -> Self {
        let (c, s) = track.direction();
        let along_x = c.abs() >= s.abs();
        let turn = |p: Point| if along_x { (p.x, p.y) } else { (p.y, p.x) };
        let ((a1, b1), (a2, b2)) = (turn(track.start), turn(track.end));
        let (steepness, side) = if along_x { (s / c, width) } else { (c / s, height) };
        let first = ((a1.min(a2) - reach_px).floor() as i64).clamp(0, side as i64);
        let last = ((a1.max(a2) + reach_px).ceil() as i64).clamp(-1, side as i64 - 1);
        let (middle_a, middle_b) = (0.5 * (a1 + a2), 0.5 * (b1 + b2));
        Self {
            along_x,
            first,
            steps: (last - first + 1).max(0) as usize,
            half_width: (reach_px * (1.0 + steepness * steepness).sqrt()).ceil() as i64,
            slope: steepness,
            intercept: middle_b - steepness * middle_a,
        }
    }

    /// Across-axis pixel nearest to the track at a step.
    pub(crate) fn centre(&self, step: usize) -> i64 {
        nearest(self.intercept + self.slope * (self.first + step as i64) as f64)
    }

    /// The rows of a frame that may hold some of the pixels.
    pub(crate) fn row_range(&self, height: usize) -> Range<usize> {
        let (low, high) = if self.steps > 0 && self.along_x {
            let (a, b) = (self.centre(0), self.centre(self.steps - 1));
            (a.min(b) - self.half_width, a.max(b) + self.half_width)
        } else {
            (self.first, self.first + self.steps as i64 - 1)
        };
        let inside = |row: i64| row.clamp(0, height as i64) as usize;
        inside(low)..inside(high + 1)
    }

    /// The rows of a frame that hold some of the pixels, each with its columns.
    pub(crate) fn rows(&self, width: usize, height: usize) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        self.rows_in(width, self.row_range(height))
    }

    /// Those of some of the rows of [`row_range`](Self::row_range).
    pub(crate) fn rows_in(
        &self,
        width: usize,
        rows: Range<usize>,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let walk = *self;
        rows.filter_map(move |row| {
            let y = row as i64;
            let (left, right) = if walk.along_x {
                walk.steps_across(y)?
            } else {
                let centre = walk.centre((y - walk.first) as usize);
                (centre - walk.half_width, centre + walk.half_width)
            };
            let (left, right) = (left.max(0), right.min(width as i64 - 1));
            (left <= right).then(|| (row, left as usize..right as usize + 1))
        })
    }

    /// First and last place along the walk from which a place `b` across it is within the half width.
    fn steps_across(&self, b: i64) -> Option<(i64, i64)> {
        let last = self.first + self.steps as i64 - 1;
        let holds = |a: &i64| (b - self.centre((a - self.first) as usize)).abs() <= self.half_width;
        // What lies nearer to the track than this is rounded to the half width or less.
        let reach = self.half_width as f64 + 0.5;
        let [p, q] = [b as f64 - reach, b as f64 + reach].map(|edge| (edge - self.intercept) / self.slope);
        // Of a level track either all steps hold the place, or none: what dividing by nothing gives is of no account.
        let level = self.slope.abs() < 1e-9;
        let from = if level { self.first } else { (p.min(q) as i64).max(self.first) };
        let to = if level { last } else { (p.max(q) as i64 + 1).min(last) };
        Some(((from..=to).find(holds)?, (from..=to).rev().find(holds)?))
    }
}

/// As `value.round() as i64`, which is a call where a machine is not known to have an instruction for it.
#[inline(always)]
fn nearest(value: f64) -> i64 {
    let whole = value as i64;
    let rest = value - whole as f64;
    whole + i64::from(rest >= 0.5) - i64::from(rest <= -0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_integer_is_that_of_rounding() {
        for value in [0.0, 0.49, 0.5, 0.51, 1.5, 2.5, 9.499_999_999, 0.499_999_999_999_999_94, 1e15 + 0.5, -0.0] {
            assert_eq!((nearest(value), nearest(-value)), (value.round() as i64, (-value).round() as i64), "{value}");
        }
    }

    #[test]
    fn a_prior_is_taken_out_of_the_width_again() {
        let prior = SigmaPrior { sigma_px: 1.5, spread_px: 0.2 };
        let settings = FitSettings {
            shape: Shape::Trail,
            free_background: true,
            free_sigma: true,
            sigma_range: (0.3, 7.5),
            sigma_prior: Some(prior),
            reach_px: 10.0,
            photon_variance: 0.0,
            clip_sigmas: UNCLIPPED_SIGMAS,
            max_iterations: 40,
        };
        // Pixels that say 2.0 ± 0.3, and the mean of both.
        let (own_px, own_err_px) = (2.0, 0.3_f64);
        let weights = [own_err_px.powi(-2), prior.spread_px.powi(-2)];
        let both = weights[0] + weights[1];
        let sigma_eff_px = (weights[0] * own_px + weights[1] * prior.sigma_px) / both;
        let segment = Segment::from_coordinates(0.0, 0.0, 50.0, 0.0);
        let fit = TrailFit::unfitted(Trail { segment, flux: 1.0, background: 0.0, sigma_eff_px });
        let own = fit.own_width(&settings, both.sqrt().recip());
        assert!((own.sigma_eff_px - own_px).abs() < 1e-9 && (own.err_px - own_err_px).abs() < 1e-9, "{own:?}");
        let free = FitSettings { sigma_prior: None, ..settings };
        assert_eq!(fit.own_width(&free, 0.1), OwnWidth { sigma_eff_px, err_px: 0.1 });
        // Of the prior alone nothing is left to say.
        assert_eq!(fit.own_width(&settings, 0.2), OwnWidth { sigma_eff_px, err_px: 0.2 });
    }

    #[test]
    fn triangle_indices_are_dense() {
        let mut seen = [0; N_TRIANGLE];
        for i in 0..N_PARAMETERS {
            for j in i..N_PARAMETERS {
                seen[triangle(i, j)] += 1;
            }
        }
        assert_eq!(seen, [1; N_TRIANGLE]);
    }

    #[test]
    fn inverse_times_matrix_is_one() {
        let mut m = [[0.0; N_PARAMETERS]; N_PARAMETERS];
        for (i, row) in m.iter_mut().enumerate() {
            for (j, v) in row.iter_mut().enumerate() {
                *v = 10.0_f64.powi(i as i32 - 3)
                    * 10.0_f64.powi(j as i32 - 3)
                    * if i == j { 2.0 } else { 1.0 / (1.0 + i.abs_diff(j) as f64) };
            }
        }
        let inverse = invert(&m).unwrap();
        for (i, row) in m.iter().enumerate() {
            for j in 0..N_PARAMETERS {
                let dot: f64 = row.iter().zip(&inverse).map(|(a, b)| a * b[j]).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-6);
            }
        }
        assert_eq!(invert(&[[1.0; N_PARAMETERS]; N_PARAMETERS]), None);
    }

    #[test]
    fn the_walk_holds_every_pixel_within_reach() {
        for angle in [0.0_f64, 17.0, 45.0, 90.0, 133.0, 179.999] {
            let track = Segment::around(Point::new(50.0, 40.0), 30.0, angle.to_radians());
            let walk = StampWalk::new(&track, 5.0, 90, 100);
            let rows: Vec<(usize, Range<usize>)> = walk.rows(90, 100).collect();
            let held = |x: usize, y: usize| rows.iter().any(|(row, columns)| *row == y && columns.contains(&x));
            for (x, y) in (0..90).flat_map(|x| (0..100).map(move |y| (x, y))) {
                if track.distance_to(Point::new(x as f64, y as f64)) <= 5.0 {
                    assert!(held(x, y), "{angle}: {x} {y}");
                }
            }
        }
    }

    #[test]
    fn rows_hold_the_pixels_of_the_steps() {
        let (width, height) = (90, 100);
        for angle in [0.0_f64, 0.01, 17.0, 44.9, 45.0, 60.0, 90.0, 133.0, 150.0, 179.999] {
            let track = Segment::around(Point::new(75.3, 20.4), 60.0, angle.to_radians());
            let walk = StampWalk::new(&track, 5.0, width, height);
            let mut stepped: Vec<(usize, usize)> = (0..walk.steps)
                .flat_map(|step| {
                    let (a, centre) = (walk.first + step as i64, walk.centre(step));
                    (centre - walk.half_width..=centre + walk.half_width).map(move |b| (a, b))
                })
                .map(|(a, b)| if walk.along_x { (b, a) } else { (a, b) })
                .filter(|(y, x)| (0..height as i64).contains(y) && (0..width as i64).contains(x))
                .map(|(y, x)| (y as usize, x as usize))
                .collect();
            stepped.sort_unstable();
            let rows: Vec<(usize, usize)> =
                walk.rows(width, height).flat_map(|(y, columns)| columns.map(move |x| (y, x))).collect();
            assert_eq!(rows, stepped, "{angle}");
        }
    }
}
