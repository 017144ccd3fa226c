//! Damped least squares of the trailed PSF. GPU twin: shaders/fit.wgsl.
//!
//! Besides the Gauss–Newton matrix the two ends get their own residual curvature: an end is a change point, where the
//! plain method wanders (docs/algorithm.md, "Measure").

use super::Image;
use super::trail::{Model, Sample};
use crate::backend::POINT_LENGTH_PX;
use crate::geometry::{Point, Segment};
use crate::pipeline::measure::{
    FitRequest, FitSettings, N_PARAMETERS, N_TRIANGLE, STOP_DELTA_CHI2, Shape, StampWalk, Trail, TrailFit, triangle,
};

/// One pixel of the stamp.
struct Pixel {
    x: usize,
    y: usize,
    /// Residual, with the start model added back where it had been taken out.
    data: f64,
    /// Inverse variance with the source's own photons.
    weight: f64,
    /// Inverse variance of the background alone.
    sky_weight: f64,
}

/// What one pass over the stamp adds up.
#[derive(Clone)]
struct Sums {
    normal: [f64; N_TRIANGLE],
    gradient: [f64; N_PARAMETERS],
    curvature: [f64; 2],
    chi2: f64,
    /// Σ w light² with background noise alone.
    power: f64,
}

/// Fits one request.
pub(super) fn fit(residual: &Image, weight: &Image, request: &FitRequest, settings: &FitSettings) -> TrailFit {
    let pixels = gather(residual, weight, request, settings);
    let free = settings.free_parameters();
    let mut trail = request.start;
    trail.flux = best_flux(&pixels, &trail);
    let bounds = Bounds::new(residual.width, residual.height, &trail, settings);
    let mut sums = accumulate(&pixels, &trail);
    let mut damping = 1e-3;
    let (mut iterations, mut converged) = (0, false);
    while iterations < settings.max_iterations && !converged {
        iterations += 1;
        let movable = bounds.movable(&free, &trail, &sums);
        let Some((step, gain)) = solve(&sums, &movable, damping) else {
            damping *= 10.0;
            continue;
        };
        if gain < STOP_DELTA_CHI2 {
            converged = true;
        }
        let trial = bounds.apply(&trail, &step, settings.shape);
        let trial_sums = accumulate(&pixels, &trial);
        if trial_sums.chi2 <= sums.chi2 {
            (trail, sums) = (trial, trial_sums);
            damping = (damping * 0.1).max(1e-6);
        } else if !converged {
            damping *= 10.0;
        }
    }
    let used = pixels.iter().filter(|p| p.weight > 0.0).count();
    TrailFit {
        trail,
        information: sums.normal,
        snr: trail.flux.signum() * sums.power.sqrt(),
        chi2: sums.chi2,
        n_pixels: used as f64,
        iterations,
        converged,
        end_coverage: end_coverage(&pixels, &trail),
    }
}

fn gather(residual: &Image, weight: &Image, request: &FitRequest, settings: &FitSettings) -> Vec<Pixel> {
    let (width, height) = (residual.width, residual.height);
    let start = &request.start;
    let model = Model::new(start);
    let reach = settings.reach_px as f32;
    let length = start.segment.length_px() as f32;
    let walk = StampWalk::new(&start.segment, settings.reach_px, width, height);
    let mut pixels = Vec::with_capacity(walk.steps * (2 * walk.half_width as usize + 1));
    for step in 0..walk.steps {
        for (x, y) in walk.pixels(step, width, height) {
            let (u, v) = model.along_across(x, y);
            if v.abs() > reach || u < -reach || u > length + reach {
                continue;
            }
            let i = y * width + x;
            let sky_weight = f64::from(weight.data[i].max(0.0));
            let light = f64::from(model.light(x, y));
            // clip / noise, in the frame's unit; of no account where the weight is zero.
            let most = settings.clip_sigmas / sky_weight.sqrt().max(1e-30);
            let photons = settings.photon_variance * light.max(0.0);
            pixels.push(Pixel {
                x,
                y,
                data: f64::from(residual.data[i]).clamp(-most, most) + if request.subtracted { light } else { 0.0 },
                weight: sky_weight / (1.0 + sky_weight * photons),
                sky_weight,
            });
        }
    }
    pixels
}

/// The flux that fits best with everything else as it is.
fn best_flux(pixels: &[Pixel], trail: &Trail) -> f64 {
    let unit = Model::new(&Trail { flux: 1.0, ..*trail });
    let (mut signal, mut power) = (0.0, 0.0);
    for p in pixels.iter().filter(|p| p.weight > 0.0) {
        let t = f64::from(unit.light(p.x, p.y));
        signal += p.weight * t * (p.data - trail.background);
        power += p.weight * t * t;
    }
    if power > 0.0 { signal / power } else { 0.0 }
}

fn accumulate(pixels: &[Pixel], trail: &Trail) -> Sums {
    let model = Model::new(trail);
    let background = trail.background as f32;
    let mut sums =
        Sums { normal: [0.0; N_TRIANGLE], gradient: [0.0; N_PARAMETERS], curvature: [0.0; 2], chi2: 0.0, power: 0.0 };
    for p in pixels.iter().filter(|p| p.weight > 0.0) {
        let Sample { light, gradient, curvature } = model.sample(p.x, p.y);
        let rest = p.data - f64::from(light + background);
        let w = p.weight;
        sums.chi2 += w * rest * rest;
        sums.power += p.sky_weight * f64::from(light * light);
        for (total, c) in sums.curvature.iter_mut().zip(curvature) {
            *total += w * rest * f64::from(c);
        }
        let mut k = 0;
        for i in 0..N_PARAMETERS {
            let wg = w * f64::from(gradient[i]);
            sums.gradient[i] += wg * rest;
            for &g in &gradient[i..] {
                sums.normal[k] += wg * f64::from(g);
                k += 1;
            }
        }
    }
    sums
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

/// An end this near to the frame's border, px, lies on it.
const ON_BORDER_PX: f64 = 1e-3;

/// Where the parameters may go.
struct Bounds {
    right: f64,
    bottom: f64,
    sigma: (f64, f64),
    /// Largest move of an end in one step, along and across, px.
    most_along: f64,
    most_across: f64,
}

impl Bounds {
    fn new(width: usize, height: usize, start: &Trail, settings: &FitSettings) -> Self {
        let sigma = start.sigma_eff_px;
        Self {
            right: width as f64 - 0.5,
            bottom: height as f64 - 0.5,
            sigma: settings.sigma_range,
            most_along: 2.0 * sigma + 0.3 * start.segment.length_px(),
            most_across: 1.5 * sigma,
        }
    }

    fn apply(&self, trail: &Trail, step: &[f64; N_PARAMETERS], shape: Shape) -> Trail {
        let (c, s) = trail.segment.direction();
        let moved = |p: Point, along: f64, across: f64| {
            let along = along.clamp(-self.most_along, self.most_along);
            let across = across.clamp(-self.most_across, self.most_across);
            Point::new(p.x + along * c - across * s, p.y + along * s + across * c)
        };
        let segment = match shape {
            Shape::Trail => {
                let start = moved(trail.segment.start, step[1], step[2]);
                let end = moved(trail.segment.end, step[3], step[4]);
                self.inside(&trail.segment, Segment::new(start, end))
            }
            Shape::Point => {
                let p = moved(trail.segment.start, step[1], step[2]);
                let p = Point::new(p.x.clamp(-0.5, self.right), p.y.clamp(-0.5, self.bottom));
                Segment::new(p, p)
            }
        };
        Trail {
            segment,
            // A trail of no light has no place: its flux shrinks, but does not change sign.
            flux: (trail.flux + step[0]).max(0.1 * trail.flux.abs()),
            background: trail.background + step[5],
            sigma_eff_px: (trail.sigma_eff_px * (1.0 + (step[6] / trail.sigma_eff_px).clamp(-0.3, 0.3)))
                .clamp(self.sigma.0, self.sigma.1),
        }
    }

    /// The free parameters without those that cannot move: an end on the border that is drawn outwards stays there.
    /// Were it asked to move in vain, the step of all others would count on it.
    fn movable(&self, free: &[bool; N_PARAMETERS], trail: &Trail, sums: &Sums) -> [bool; N_PARAMETERS] {
        let mut movable = *free;
        let (c, s) = trail.segment.direction();
        for (i, p) in [(1, trail.segment.start), (3, trail.segment.end)] {
            let leaves = |place: f64, last: f64, move_by: f64| {
                (place < -0.5 + ON_BORDER_PX && move_by < 0.0) || (place > last - ON_BORDER_PX && move_by > 0.0)
            };
            let pull = sums.gradient[i];
            let held = leaves(p.x, self.right, pull * c) || leaves(p.y, self.bottom, pull * s);
            // A point's position is bounded on its own.
            movable[i] &= !(held && free[3]);
        }
        movable
    }

    /// Ends stay within the frame: beyond it they cost nothing, and would run away.
    fn inside(&self, before: &Segment, after: Segment) -> Segment {
        let clipped = after.clipped_to((self.right + 0.5) as usize, (self.bottom + 0.5) as usize);
        clipped.filter(|s| s.length_px() > 10.0 * f64::from(POINT_LENGTH_PX)).unwrap_or(*before)
    }
}

/// Fraction of the track's width, within two PSF widths of either end, that lies on usable pixels.
fn end_coverage(pixels: &[Pixel], trail: &Trail) -> [f64; 2] {
    let model = Model::new(trail);
    let (mut seen, mut all) = ([0.0; 2], [0.0; 2]);
    let sigma = trail.sigma_eff_px as f32;
    let length = trail.segment.length_px() as f32;
    for p in pixels {
        let (u, v) = model.along_across(p.x, p.y);
        let share = f64::from((-0.5 * (v / sigma).powi(2)).exp());
        for (end, from_end) in [u, u - length].into_iter().enumerate() {
            if from_end.abs() <= 2.0 * sigma {
                all[end] += share;
                seen[end] += share * f64::from(u8::from(p.weight > 0.0));
            }
        }
    }
    [0, 1].map(|e| if all[e] > 0.0 { seen[e] / all[e] } else { 0.0 })
}
