//! The trailed PSF at a pixel, with its derivatives. GPU twin: shaders/shared/trail.wgsl.
//!
//! Coordinates are local to the segment's midpoint pixel, so that single precision suffices anywhere in the frame.

use crate::backend::POINT_LENGTH_PX;
use crate::pipeline::measure::{N_PARAMETERS, Trail};

/// A trail made ready for evaluation, in single precision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    origin: (i64, i64),
    x1: f32,
    y1: f32,
    /// Unit vector along the track.
    c: f32,
    s: f32,
    length: f32,
    sigma: f32,
    /// Flux per length, or flux of a point.
    density: f32,
}

const INV_SQRT_TAU: f32 = 0.398_942_3;

/// Value and derivatives at one pixel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    /// The model without its background.
    pub(super) light: f32,
    /// Derivatives by flux, along 1, across 1, along 2, across 2, background and width.
    pub(super) gradient: [f32; N_PARAMETERS],
    /// Second derivatives by along 1 and along 2 of the two ends' edges.
    pub(super) curvature: [f32; 2],
}

impl Model {
    pub(super) fn new(trail: &Trail) -> Self {
        let middle = trail.segment.midpoint();
        let origin = (middle.x.round() as i64, middle.y.round() as i64);
        let (c, s) = trail.segment.direction();
        let length = trail.segment.length_px() as f32;
        let point = length < POINT_LENGTH_PX;
        Self {
            origin,
            x1: (trail.segment.start.x - origin.0 as f64) as f32,
            y1: (trail.segment.start.y - origin.1 as f64) as f32,
            c: c as f32,
            s: s as f32,
            length,
            sigma: trail.sigma_eff_px as f32,
            density: if point { trail.flux as f32 } else { trail.flux as f32 / length },
        }
    }

    fn is_point(&self) -> bool {
        self.length < POINT_LENGTH_PX
    }

    /// Coordinates along (from the first end) and across the track.
    pub(super) fn along_across(&self, x: usize, y: usize) -> (f32, f32) {
        let dx = (x as i64 - self.origin.0) as f32 - self.x1;
        let dy = (y as i64 - self.origin.1) as f32 - self.y1;
        (dx * self.c + dy * self.s, -dx * self.s + dy * self.c)
    }

    /// The model without its background.
    pub(super) fn light(&self, x: usize, y: usize) -> f32 {
        let (u, v) = self.along_across(x, y);
        let inv = 1.0 / self.sigma;
        let across = INV_SQRT_TAU * inv * (-0.5 * (v * inv).powi(2)).exp();
        let along = if self.is_point() {
            INV_SQRT_TAU * inv * (-0.5 * (u * inv).powi(2)).exp()
        } else {
            step(u * inv).0 - step((u - self.length) * inv).0
        };
        self.density * across * along
    }

    /// The model with everything a fit of a trail needs.
    pub(super) fn sample(&self, x: usize, y: usize) -> Sample {
        let (u, v) = self.along_across(x, y);
        let inv = 1.0 / self.sigma;
        let across = INV_SQRT_TAU * inv * (-0.5 * (v * inv).powi(2)).exp();
        if self.is_point() {
            let along = INV_SQRT_TAU * inv * (-0.5 * (u * inv).powi(2)).exp();
            let unit = across * along;
            let light = self.density * unit;
            let towards = light * inv * inv;
            // For a point c = 1 and s = 0: along is x, across is y.
            let width = light * inv * ((u * inv).powi(2) + (v * inv).powi(2) - 2.0);
            return Sample {
                light,
                gradient: [unit, towards * u, towards * v, 0.0, 0.0, 1.0, width],
                curvature: [0.0; 2],
            };
        }
        let (step1, edge1) = step(u * inv);
        let (step2, edge2) = step((u - self.length) * inv);
        let (edge1, edge2) = (edge1 * inv, edge2 * inv);
        let inside = step1 - step2;
        let k = self.density * across;
        let per_length = inside / self.length;
        let fraction = u / self.length;
        // Moving one end across turns the track about the other end: v changes, and u a little.
        let slide = v / self.length * (edge1 - edge2);
        let lift = v * inv * inv * inside;
        Sample {
            light: k * inside,
            gradient: [
                across * per_length,
                k * (per_length - edge1),
                k * (lift * (1.0 - fraction) - slide),
                k * (edge2 - per_length),
                k * (lift * fraction + slide),
                1.0,
                k * inv * (inside * ((v * inv).powi(2) - 1.0) - u * edge1 + (u - self.length) * edge2),
            ],
            curvature: [k * edge1 * u * inv * inv, -k * edge2 * (u - self.length) * inv * inv],
        }
    }
}

/// Φ(t) and φ(t) of the unit Gaussian: the error function by Abramowitz & Stegun 7.1.26 (absolute error 1.5e-7),
/// which shares its exponential with the density.
fn step(t: f32) -> (f32, f32) {
    let x = t.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let e = (-x * x).exp();
    let k = 1.0 / (1.0 + 0.327_591_1 * x);
    let tail = k * (0.254_829_6 + k * (-0.284_496_72 + k * (1.421_413_8 + k * (-1.453_152 + k * 1.061_405_4)))) * e;
    let upper = 1.0 - 0.5 * tail;
    (if t >= 0.0 { upper } else { 1.0 - upper }, INV_SQRT_TAU * e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Segment;

    fn trail(x1: f64, y1: f64, x2: f64, y2: f64, flux: f64, sigma: f64) -> Trail {
        Trail { segment: Segment::from_coordinates(x1, y1, x2, y2), flux, background: 0.0, sigma_eff_px: sigma }
    }

    #[test]
    fn all_the_light_is_there() {
        for t in [trail(30.2, 25.7, 61.3, 44.1, 1000.0, 1.5), trail(40.4, 40.1, 40.4, 40.1, 1000.0, 1.2)] {
            let model = Model::new(&t);
            let sum: f64 = (0..100 * 80).map(|i| f64::from(model.light(i % 100, i / 100))).sum();
            assert!((sum - 1000.0).abs() < 0.2, "{sum}");
        }
    }

    #[test]
    fn derivatives_match_differences() {
        let base = trail(30.2, 25.7, 51.3, 34.1, 500.0, 1.4);
        let (c, s) = base.segment.direction();
        let moved = |parameter: usize, by: f64| {
            let mut t = base;
            let (along, across) = ((c * by, s * by), (-s * by, c * by));
            let shift = |p: &mut crate::Point, d: (f64, f64)| (p.x, p.y) = (p.x + d.0, p.y + d.1);
            match parameter {
                0 => t.flux += by,
                1 => shift(&mut t.segment.start, along),
                2 => shift(&mut t.segment.start, across),
                3 => shift(&mut t.segment.end, along),
                4 => shift(&mut t.segment.end, across),
                _ => t.sigma_eff_px += by,
            }
            Model::new(&t)
        };
        for parameter in [0, 1, 2, 3, 4, 6] {
            let h = if parameter == 0 { 5.0 } else { 0.02 };
            let (up, down) = (moved(parameter, h), moved(parameter, -h));
            for (x, y) in [(30, 25), (31, 27), (40, 30), (43, 29), (51, 34), (52, 36), (28, 24)] {
                let difference = (up.light(x, y) - down.light(x, y)) / (2.0 * h as f32);
                let derivative = Model::new(&base).sample(x, y).gradient[parameter];
                assert!(
                    (difference - derivative).abs() < 0.01 * derivative.abs() + 2e-3,
                    "{parameter} at {x},{y}: {difference} {derivative}"
                );
            }
        }
    }

    #[test]
    fn the_step_is_the_normal_distribution() {
        for t in [-4.0_f32, -1.0, -0.1, 0.0, 0.5, 2.0, 5.0] {
            let exact = 0.5 * (1.0 + libm::erf(f64::from(t) / std::f64::consts::SQRT_2));
            assert!((f64::from(step(t).0) - exact).abs() < 3e-7);
        }
    }
}
