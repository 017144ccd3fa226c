//! The trailed PSF at a pixel, with its derivatives. GPU twin: shaders/shared/trail.wgsl.
//!
//! Coordinates are local to a pixel near the segment's middle, so that single precision suffices anywhere in the frame.
//! Everything is written for one pixel and inlined into loops over many, which vectorise.

use crate::backend::POINT_LENGTH_PX;
use crate::gauss::{INV_SQRT_TAU, STEP_WIDTHS, bell, step};
use crate::geometry::Segment;
use crate::pipeline::measure::{N_PARAMETERS, Trail};

/// The pixel that coordinates are relative to: that at the middle of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Origin {
    x: i64,
    y: i64,
}

impl Origin {
    pub(super) fn of(segment: &Segment) -> Self {
        let middle = segment.midpoint();
        Self { x: middle.x.round() as i64, y: middle.y.round() as i64 }
    }

    pub(super) fn local_x(&self, x: usize) -> f32 {
        (x as i64 - self.x) as f32
    }

    pub(super) fn local_y(&self, y: usize) -> f32 {
        (y as i64 - self.y) as f32
    }
}

/// A trail made ready for evaluation, in single precision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    x1: f32,
    y1: f32,
    /// Unit vector along the track.
    c: f32,
    s: f32,
    pub(super) length: f32,
    pub(super) sigma: f32,
    inv_sigma: f32,
    inv_length: f32,
    /// Flux per length, or flux of a point.
    density: f32,
}

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
    /// The trail in coordinates relative to `origin`.
    pub(super) fn new(trail: &Trail, origin: Origin) -> Self {
        let (c, s) = trail.segment.direction();
        let length = trail.segment.length_px() as f32;
        let point = length < POINT_LENGTH_PX;
        Self {
            x1: (trail.segment.start.x - origin.x as f64) as f32,
            y1: (trail.segment.start.y - origin.y as f64) as f32,
            c: c as f32,
            s: s as f32,
            length,
            sigma: trail.sigma_eff_px as f32,
            inv_sigma: 1.0 / trail.sigma_eff_px as f32,
            inv_length: 1.0 / length.max(POINT_LENGTH_PX),
            density: if point { trail.flux as f32 } else { trail.flux as f32 / length },
        }
    }

    #[inline(always)]
    pub(super) fn is_point(&self) -> bool {
        self.length < POINT_LENGTH_PX
    }

    /// Coordinates along (from the first end) and across the track.
    #[inline(always)]
    pub(super) fn along_across(&self, x: f32, y: f32) -> (f32, f32) {
        let (dx, dy) = (x - self.x1, y - self.y1);
        (dx * self.c + dy * self.s, dy * self.c - dx * self.s)
    }

    /// Whether places so far along the track see its first end, and its last.
    #[inline(always)]
    pub(super) fn sees_ends(&self, u: f32) -> [bool; 2] {
        let end = STEP_WIDTHS * self.sigma;
        [u < end, u > self.length - end]
    }

    /// The transverse profile, its integral one.
    #[inline(always)]
    fn profile(&self, v: f32) -> f32 {
        INV_SQRT_TAU * self.inv_sigma * bell(v * self.inv_sigma)
    }
}

/// A way to evaluate a model: exact where it may be used. Types, so that each is inlined into loops of its own.
pub(super) trait Form {
    /// Whether the edges of the light at the first end and at the last are evaluated.
    const ENDS: [bool; 2];

    /// The model without its background.
    fn light(model: &Model, x: f32, y: f32) -> f32;

    /// The model with everything a fit needs.
    fn sample(model: &Model, x: f32, y: f32) -> Sample;
}

/// A trail where its first end or its last may be seen.
pub(super) struct Near<const FIRST: bool, const LAST: bool>;

/// A point.
pub(super) struct Spot;

impl<const FIRST: bool, const LAST: bool> Near<FIRST, LAST> {
    /// Light that begins behind the first end, light that is behind the last, and the heights of both edges.
    #[inline(always)]
    fn edges(model: &Model, u: f32) -> ([f32; 2], [f32; 2]) {
        let inv = model.inv_sigma;
        let (step1, edge1) = if FIRST { step(u * inv) } else { (1.0, 0.0) };
        let (step2, edge2) = if LAST { step((u - model.length) * inv) } else { (0.0, 0.0) };
        ([step1, step2], [edge1 * inv, edge2 * inv])
    }
}

impl<const FIRST: bool, const LAST: bool> Form for Near<FIRST, LAST> {
    const ENDS: [bool; 2] = [FIRST, LAST];

    #[inline(always)]
    fn light(model: &Model, x: f32, y: f32) -> f32 {
        let (u, v) = model.along_across(x, y);
        let ([step1, step2], _) = Self::edges(model, u);
        model.density * model.profile(v) * (step1 - step2)
    }

    #[inline(always)]
    fn sample(model: &Model, x: f32, y: f32) -> Sample {
        let (u, v) = model.along_across(x, y);
        let inv = model.inv_sigma;
        let ([step1, step2], [edge1, edge2]) = Self::edges(model, u);
        let inside = step1 - step2;
        let across = model.profile(v);
        let k = model.density * across;
        let per_length = inside * model.inv_length;
        let fraction = u * model.inv_length;
        let lift = v * inv * inv * inside;
        let mut sample = Sample {
            light: k * inside,
            gradient: [
                across * per_length,
                k * per_length,
                k * (lift * (1.0 - fraction)),
                -k * per_length,
                k * (lift * fraction),
                1.0,
                k * inv * (inside * (v * inv * (v * inv) - 1.0)),
            ],
            curvature: [0.0; 2],
        };
        // Moving one end across turns the track about the other end: v changes, and u a little.
        let slide = k * v * model.inv_length;
        let [_, along1, across1, along2, across2, _, width] = &mut sample.gradient;
        if FIRST {
            let edge = k * edge1;
            *along1 -= edge;
            *across1 -= slide * edge1;
            *across2 += slide * edge1;
            *width -= edge * inv * u;
            sample.curvature[0] = edge * u * inv * inv;
        }
        if LAST {
            let (edge, beyond) = (k * edge2, u - model.length);
            *along2 += edge;
            *across1 += slide * edge2;
            *across2 -= slide * edge2;
            *width += edge * inv * beyond;
            sample.curvature[1] = -edge * beyond * inv * inv;
        }
        sample
    }
}

impl Form for Spot {
    const ENDS: [bool; 2] = [false; 2];

    #[inline(always)]
    fn light(model: &Model, x: f32, y: f32) -> f32 {
        let (u, v) = model.along_across(x, y);
        model.density * model.profile(v) * model.profile(u)
    }

    #[inline(always)]
    fn sample(model: &Model, x: f32, y: f32) -> Sample {
        // Along is x, across is y.
        let (u, v) = model.along_across(x, y);
        let inv = model.inv_sigma;
        let unit = model.profile(v) * model.profile(u);
        let light = model.density * unit;
        let towards = light * inv * inv;
        let width = light * inv * (u * inv * (u * inv) + v * inv * (v * inv) - 2.0);
        Sample { light, gradient: [unit, towards * u, towards * v, 0.0, 0.0, 1.0, width], curvature: [0.0; 2] }
    }
}

/// Which ends some places see, all of them together.
#[inline(always)]
pub(super) fn ends_seen<const N: usize>(model: &Model, x: &[f32; N], y: &[f32; N]) -> [bool; 2] {
    let [mut first, mut last] = [false; 2];
    for (&x, &y) in x.iter().zip(y) {
        let seen = model.sees_ends(model.along_across(x, y).0);
        first |= seen[0];
        last |= seen[1];
    }
    [first, last]
}

/// The model's light at some places.
#[inline(always)]
pub(super) fn light<const N: usize>(model: &Model, x: &[f32; N], y: &[f32; N]) -> [f32; N] {
    if model.is_point() {
        return light_as::<Spot, N>(model, x, y);
    }
    match ends_seen(model, x, y) {
        [false, false] => light_as::<Near<false, false>, N>(model, x, y),
        [true, false] => light_as::<Near<true, false>, N>(model, x, y),
        [false, true] => light_as::<Near<false, true>, N>(model, x, y),
        [true, true] => light_as::<Near<true, true>, N>(model, x, y),
    }
}

#[inline(always)]
fn light_as<F: Form, const N: usize>(model: &Model, x: &[f32; N], y: &[f32; N]) -> [f32; N] {
    let mut light = [0.0; N];
    for ((light, &x), &y) in light.iter_mut().zip(x).zip(y) {
        *light = F::light(model, x, y);
    }
    light
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Segment;

    /// A trail, anywhere.
    type Whole = Near<true, true>;

    fn trail(x1: f64, y1: f64, x2: f64, y2: f64, flux: f64, sigma: f64) -> Trail {
        Trail { segment: Segment::from_coordinates(x1, y1, x2, y2), flux, background: 0.0, sigma_eff_px: sigma }
    }

    fn at_zero(trail: &Trail) -> Model {
        Model::new(trail, Origin::default())
    }

    #[test]
    fn all_the_light_is_there() {
        for t in [trail(30.2, 25.7, 61.3, 44.1, 1000.0, 1.5), trail(40.4, 40.1, 40.4, 40.1, 1000.0, 1.2)] {
            let model = at_zero(&t);
            let light =
                |x: f32, y: f32| if model.is_point() { Spot::light(&model, x, y) } else { Whole::light(&model, x, y) };
            let sum: f64 = (0..100 * 80).map(|i| f64::from(light((i % 100) as f32, (i / 100) as f32))).sum();
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
            at_zero(&t)
        };
        for parameter in [0, 1, 2, 3, 4, 6] {
            let h = if parameter == 0 { 5.0 } else { 0.02 };
            let (up, down) = (moved(parameter, h), moved(parameter, -h));
            let places =
                [(30.0, 25.0), (31.0, 27.0), (40.0, 30.0), (43.0, 29.0), (51.0, 34.0), (52.0, 36.0), (28.0, 24.0)];
            for (x, y) in places {
                let difference = (Whole::light(&up, x, y) - Whole::light(&down, x, y)) / (2.0 * h as f32);
                let derivative = Whole::sample(&at_zero(&base), x, y).gradient[parameter];
                assert!(
                    (difference - derivative).abs() < 0.01 * derivative.abs() + 2e-3,
                    "{parameter} at {x},{y}: {difference} {derivative}"
                );
            }
        }
    }

    #[test]
    fn far_from_an_end_the_short_forms_do() {
        let model = at_zero(&trail(10.3, 25.7, 91.3, 54.1, 500.0, 1.4));
        let close = |a: f32, b: f32, light: f32| (a - b).abs() < 2e-6 * light.max(b.abs());
        let check = |short: fn(&Model, f32, f32) -> Sample, places: &[(f32, f32)], sees: [bool; 2]| {
            for &(x, y) in places {
                assert_eq!(ends_seen(&model, &[x], &[y]), sees);
                let (all, short) = (Whole::sample(&model, x, y), short(&model, x, y));
                assert!((all.light - short.light).abs() < 1e-6 * all.light);
                assert_eq!(short.light, light(&model, &[x], &[y])[0]);
                let values = all.gradient.into_iter().chain(all.curvature);
                for (a, b) in values.zip(short.gradient.into_iter().chain(short.curvature)) {
                    assert!(close(a, b, all.light), "{a} {b} at {x},{y}");
                }
            }
        };
        check(Near::<false, false>::sample, &[(40.0, 36.0), (50.0, 41.0), (55.0, 39.0)], [false; 2]);
        check(Near::<true, false>::sample, &[(11.0, 26.0), (15.0, 28.0), (9.0, 24.0)], [true, false]);
        check(Near::<false, true>::sample, &[(91.0, 54.0), (87.0, 53.0), (93.0, 56.0)], [false, true]);
    }
}
