// The trailed PSF at a pixel, with its derivatives, and the walk over its pixels.
// docs/algorithm.md, "Measure". CPU twins: backend/cpu/model.rs; `StampWalk` in pipeline/measure.rs.

const INV_SQRT_TAU = 0.3989423;
/// Below this length the two ends are one point.
const POINT_LENGTH = 0.05;
/// exp of less than this is nothing; clamped, since what underflow gives is up to the device.
const LEAST_EXPONENT = -80.0;

/// A trail in coordinates relative to a pixel near its middle.
struct Model {
    x1: f32,
    y1: f32,
    c: f32,
    s: f32,
    length: f32,
    sigma: f32,
    /// Flux per length, or flux of a point.
    density: f32,
}

/// The pixels a fit or a model looks at: steps along one axis, offsets across it.
struct Walk {
    along_x: u32,
    first: i32,
    steps: u32,
    half_width: i32,
    /// Where the walk's centres begin in the list of all.
    first_centre: u32,
    /// The pixel coordinates are relative to.
    origin_x: i32,
    origin_y: i32,
}

struct Sample {
    light: f32,
    gradient: array<f32, 7>,
    curvature: vec2<f32>,
}

fn bell(t: f32) -> f32 {
    return exp(max(-0.5 * t * t, LEAST_EXPONENT));
}

/// Φ(t) and φ(t) of the unit Gaussian, by Abramowitz & Stegun 7.1.26.
fn normal_step(t: f32) -> vec2<f32> {
    let x = abs(t) * 0.70710678;
    let e = bell(t);
    let k = 1.0 / (1.0 + 0.3275911 * x);
    let tail = k * (0.2548296 + k * (-0.28449672 + k * (1.4214138 + k * (-1.453152 + k * 1.0614054)))) * e;
    let upper = 1.0 - 0.5 * tail;
    return vec2(select(1.0 - upper, upper, t >= 0.0), INV_SQRT_TAU * e);
}

/// Coordinates along (from the first end) and across the track.
fn along_across(m: Model, x: f32, y: f32) -> vec2<f32> {
    let dx = x - m.x1;
    let dy = y - m.y1;
    return vec2(dx * m.c + dy * m.s, dy * m.c - dx * m.s);
}

/// The model without its background.
fn light_at(m: Model, x: f32, y: f32) -> f32 {
    let p = along_across(m, x, y);
    let inv = 1.0 / m.sigma;
    let across = INV_SQRT_TAU * inv * bell(p.y * inv);
    if m.length < POINT_LENGTH {
        return m.density * across * INV_SQRT_TAU * inv * bell(p.x * inv);
    }
    return m.density * across * (normal_step(p.x * inv).x - normal_step((p.x - m.length) * inv).x);
}

/// The model with its derivatives by flux, along 1, across 1, along 2, across 2, background and width, and the second
/// derivatives of the two ends' edges.
fn sample_at(m: Model, x: f32, y: f32) -> Sample {
    let p = along_across(m, x, y);
    let u = p.x;
    let v = p.y;
    let inv = 1.0 / m.sigma;
    let across = INV_SQRT_TAU * inv * bell(v * inv);
    if m.length < POINT_LENGTH {
        let unit = across * INV_SQRT_TAU * inv * bell(u * inv);
        let light = m.density * unit;
        let towards = light * inv * inv;
        // For a point c = 1 and s = 0: along is x, across is y.
        let width = light * inv * (u * inv * u * inv + v * inv * v * inv - 2.0);
        return Sample(light, array(unit, towards * u, towards * v, 0.0, 0.0, 1.0, width), vec2(0.0));
    }
    let step_1 = normal_step(u * inv);
    let step_2 = normal_step((u - m.length) * inv);
    let edge_1 = step_1.y * inv;
    let edge_2 = step_2.y * inv;
    let inside = step_1.x - step_2.x;
    let k = m.density * across;
    let per_length = inside / m.length;
    let fraction = u / m.length;
    // Moving one end across turns the track about the other end: v changes, and u a little.
    let slide = v / m.length * (edge_1 - edge_2);
    let lift = v * inv * inv * inside;
    return Sample(
        k * inside,
        array(
            across * per_length,
            k * (per_length - edge_1),
            k * (lift * (1.0 - fraction) - slide),
            k * (edge_2 - per_length),
            k * (lift * fraction + slide),
            1.0,
            k * inv * (inside * (v * inv * v * inv - 1.0) - u * edge_1 + (u - m.length) * edge_2),
        ),
        vec2(k * edge_1 * u * inv * inv, -k * edge_2 * (u - m.length) * inv * inv),
    );
}

/// The pixel of a walk at a step's centre plus an offset; it may lie outside the frame.
fn walked_pixel(walk: Walk, step: u32, centre: i32, offset: i32) -> vec2<i32> {
    let turned = vec2(walk.first + i32(step), centre + offset);
    return select(turned.yx, turned, walk.along_x != 0u);
}

fn is_inside(pixel: vec2<i32>, width: u32, height: u32) -> bool {
    return all(pixel >= vec2(0)) && pixel.x < i32(width) && pixel.y < i32(height);
}
