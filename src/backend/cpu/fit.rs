//! Damped least squares of the trailed PSF. GPU twin: shaders/fit.wgsl.
//!
//! Besides the Gauss–Newton matrix the two ends get their own residual curvature: an end is a change point, where the
//! plain method wanders (docs/algorithm.md, "Measure").

use super::Image;
use super::stamp::{Stamp, Sums};
use crate::backend::POINT_LENGTH_PX;
use crate::geometry::{Point, Segment};
use crate::pipeline::measure::{
    BEYOND_BORDER_WIDTHS, FitRequest, FitSettings, MOST_DAMPING, MOST_STOP_DAMPING, N_PARAMETERS, STOP_DELTA_CHI2,
    Shape, TELLING_DAMPING, Trail, TrailFit, triangle,
};

/// Fits one request; the memory of `stamp` is used.
pub(super) fn fit(
    residual: &Image,
    weight: &Image,
    request: &FitRequest,
    settings: &FitSettings,
    stamp: &mut Stamp,
) -> TrailFit {
    stamp.gather(residual, weight, request, settings);
    let free = settings.free_parameters();
    let mut trail = request.start;
    trail.flux = stamp.best_flux(&trail);
    let bounds = Bounds::new(residual.width, residual.height, &trail, settings);
    let expected = Expected::new(settings);
    let mut sums = expected.counted(stamp.accumulate(&trail, &free), &trail);
    let mut damping = 1e-3;
    let (mut iterations, mut converged) = (0, false);
    while iterations < settings.max_iterations && !converged && damping <= MOST_DAMPING {
        iterations += 1;
        let movable = bounds.movable(&free, &trail, &sums);
        let Some((step, gain)) = solve(&sums, &movable, damping) else {
            damping *= 10.0;
            continue;
        };
        if gain < STOP_DELTA_CHI2 && damping < MOST_STOP_DAMPING {
            converged = true;
        }
        let trial = bounds.apply(&trail, &step, settings.shape);
        let trial_sums = expected.counted(stamp.accumulate(&trial, &free), &trial);
        if trial_sums.chi2 <= sums.chi2 {
            (trail, sums) = (trial, trial_sums);
            damping = (damping * 0.1).max(1e-6);
        } else if !converged {
            damping = (damping * 10.0).max(TELLING_DAMPING);
        }
    }
    TrailFit {
        trail,
        information: sums.normal,
        snr: trail.flux.signum() * sums.power.sqrt(),
        chi2: sums.chi2 - expected.chi2(&trail),
        n_pixels: stamp.n_usable() as f64,
        iterations,
        converged,
        end_coverage: stamp.end_coverage(&trail),
    }
}

/// What is known of the PSF width beforehand: it counts like a pixel.
struct Expected {
    sigma_px: f64,
    weight: f64,
}

impl Expected {
    fn new(settings: &FitSettings) -> Self {
        Self { sigma_px: settings.sigma_prior.map_or(0.0, |p| p.sigma_px), weight: settings.sigma_weight() }
    }

    fn chi2(&self, trail: &Trail) -> f64 {
        self.weight * (self.sigma_px - trail.sigma_eff_px).powi(2)
    }

    fn counted(&self, mut sums: Sums, trail: &Trail) -> Sums {
        sums.normal[triangle(6, 6)] += self.weight;
        sums.gradient[6] += self.weight * (self.sigma_px - trail.sigma_eff_px);
        sums.chi2 += self.chi2(trail);
        sums
    }
}

/// Least part of an end's Gauss–Newton term that its residual curvature may leave.
const MIN_CURVATURE: f64 = -0.7;

/// The damped step, and the improvement of χ² it promises; none where the matrix is singular.
fn solve(sums: &Sums, free: &[bool; N_PARAMETERS], damping: f64) -> Option<([f64; N_PARAMETERS], f64)> {
    let mut matrix = [[0.0; N_PARAMETERS]; N_PARAMETERS];
    let mut right = [0.0; N_PARAMETERS];
    for i in 0..N_PARAMETERS {
        for j in i..N_PARAMETERS {
            let value = if free[i] && free[j] { sums.normal[triangle(i, j)] } else { 0.0 };
            (matrix[i][j], matrix[j][i]) = (value, value);
        }
        if free[i] {
            right[i] = sums.gradient[i];
        }
    }
    for (end, i) in [(0, 1), (1, 3)] {
        if free[i] {
            matrix[i][i] += sums.curvature[end].max(MIN_CURVATURE * matrix[i][i]);
        }
    }
    for i in 0..N_PARAMETERS {
        matrix[i][i] = if free[i] { matrix[i][i] * (1.0 + damping) } else { 1.0 };
    }
    let step = cholesky_solve(&matrix, &right)?;
    let gain = (0..N_PARAMETERS).map(|i| step[i] * right[i]).sum();
    Some((step, gain))
}

fn cholesky_solve(
    matrix: &[[f64; N_PARAMETERS]; N_PARAMETERS],
    right: &[f64; N_PARAMETERS],
) -> Option<[f64; N_PARAMETERS]> {
    let mut lower = [[0.0; N_PARAMETERS]; N_PARAMETERS];
    for i in 0..N_PARAMETERS {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let rest = matrix[i][j] - dot;
            if i == j {
                if rest <= 1e-7 * matrix[i][i] || rest.is_nan() {
                    return None;
                }
                lower[i][i] = rest.sqrt();
            } else {
                lower[i][j] = rest / lower[j][j];
            }
        }
    }
    let mut x = *right;
    for i in 0..N_PARAMETERS {
        let dot: f64 = (0..i).map(|k| lower[i][k] * x[k]).sum();
        x[i] = (x[i] - dot) / lower[i][i];
    }
    for i in (0..N_PARAMETERS).rev() {
        let dot: f64 = (i + 1..N_PARAMETERS).map(|k| lower[k][i] * x[k]).sum();
        x[i] = (x[i] - dot) / lower[i][i];
    }
    Some(x)
}

/// An end this near to the outermost place, px, lies on it.
const ON_BORDER_PX: f64 = 1e-3;

/// Where the parameters may go.
struct Bounds {
    width: usize,
    height: usize,
    /// Outside of the frame.
    margin_px: f64,
    sigma: (f64, f64),
    /// Largest move of an end in one step, along and across, px.
    most_along: f64,
    most_across: f64,
}

impl Bounds {
    fn new(width: usize, height: usize, start: &Trail, settings: &FitSettings) -> Self {
        let sigma = start.sigma_eff_px;
        Self {
            width,
            height,
            margin_px: if settings.shape == Shape::Trail { BEYOND_BORDER_WIDTHS * sigma } else { 0.0 },
            sigma: settings.sigma_range,
            most_along: 2.0 * sigma + 0.3 * start.segment.length_px(),
            most_across: 1.5 * sigma,
        }
    }

    /// First and last place of an axis.
    fn range(&self, side: usize) -> (f64, f64) {
        (-0.5 - self.margin_px, side as f64 - 0.5 + self.margin_px)
    }

    fn apply(&self, trail: &Trail, step: &[f64; N_PARAMETERS], shape: Shape) -> Trail {
        let (c, s) = trail.segment.direction();
        let moved = |p: Point, along: f64, across: f64| {
            let along = along.clamp(-self.most_along, self.most_along);
            let across = across.clamp(-self.most_across, self.most_across);
            Point::new(p.x + along * c - across * s, p.y + along * s + across * c)
        };
        let (segment, seen) = match shape {
            Shape::Trail => {
                let start = moved(trail.segment.start, step[1], step[2]);
                let end = moved(trail.segment.end, step[3], step[4]);
                self.inside(&trail.segment, Segment::new(start, end))
            }
            Shape::Point => {
                let p = moved(trail.segment.start, step[1], step[2]);
                let (xs, ys) = (self.range(self.width), self.range(self.height));
                let p = Point::new(p.x.clamp(xs.0, xs.1), p.y.clamp(ys.0, ys.1));
                (Segment::new(p, p), 1.0)
            }
        };
        Trail {
            segment,
            // A trail of no light has no place: its flux shrinks, but does not change sign.
            flux: seen * (trail.flux + step[0]).max(0.1 * trail.flux.abs()),
            background: trail.background + step[5],
            sigma_eff_px: (trail.sigma_eff_px * (1.0 + (step[6] / trail.sigma_eff_px).clamp(-0.3, 0.3)))
                .clamp(self.sigma.0, self.sigma.1),
        }
    }

    /// The free parameters without those that cannot move: an end at its outermost place that is drawn further stays
    /// there, and so does a width at its limit. Were they asked to move in vain, the step of all others would count on
    /// it.
    fn movable(&self, free: &[bool; N_PARAMETERS], trail: &Trail, sums: &Sums) -> [bool; N_PARAMETERS] {
        let mut movable = *free;
        let (c, s) = trail.segment.direction();
        for (i, p) in [(1, trail.segment.start), (3, trail.segment.end)] {
            let leaves = |place: f64, side: usize, move_by: f64| {
                let (first, last) = self.range(side);
                (place < first + ON_BORDER_PX && move_by < 0.0) || (place > last - ON_BORDER_PX && move_by > 0.0)
            };
            let pull = sums.gradient[i];
            let held = leaves(p.x, self.width, pull * c) || leaves(p.y, self.height, pull * s);
            // A point's position is bounded on its own.
            movable[i] &= !(held && free[3]);
        }
        let (sigma, pull) = (trail.sigma_eff_px, sums.gradient[6]);
        movable[6] &= !((sigma <= self.sigma.0 && pull < 0.0) || (sigma >= self.sigma.1 && pull > 0.0));
        movable
    }

    /// The segment within its bounds, and the fraction of its length that is left: what is cut off takes its light
    /// with it.
    fn inside(&self, before: &Segment, after: Segment) -> (Segment, f64) {
        let clipped = after.clipped_near(self.width, self.height, self.margin_px);
        match clipped.filter(|s| s.length_px() > 10.0 * f64::from(POINT_LENGTH_PX)) {
            Some(inside) => (inside, inside.length_px() / after.length_px()),
            None => (*before, 1.0),
        }
    }
}
