// One invocation: one pixel; takes the sky level off it and turns its weight into an inverse variance.
// In: B-spline coefficients of level and noise. In and out: values → residuals, weights.
// docs/algorithm.md, "Background". CPU twin: backend/cpu/background.rs, `normalise`.

override WORKGROUP: u32;

struct Params {
    width: u32,
    height: u32,
    nx: u32,
    ny: u32,
    noise_floor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> level: array<f32>;
@group(0) @binding(2) var<storage, read> noise: array<f32>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;
@group(0) @binding(4) var<storage, read_write> weights: array<f32>;

struct Knots {
    first: u32,
    weights: vec4<f32>,
}

/// Index of the first of four coefficients along one axis, and their weights.
fn knots_at(pixel: u32, side: u32, tiles: u32) -> Knots {
    let u = (f32(pixel) + 0.5) * f32(tiles) / f32(side) - 0.5;
    let cell = floor(u);
    let t = u - cell;
    let s = 1.0 - t;
    let weights = vec4(
        s * s * s / 6.0,
        (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0,
        (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0,
        t * t * t / 6.0,
    );
    return Knots(u32(i32(cell) + 1), weights);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let across = knots_at(id.x, params.width, params.nx);
    let down = knots_at(id.y, params.height, params.ny);
    let stride = params.nx + 4u;
    var sky = 0.0;
    var sd = 0.0;
    for (var i = 0u; i < 4u; i++) {
        var at_level = 0.0;
        var at_noise = 0.0;
        for (var j = 0u; j < 4u; j++) {
            let k = (down.first + j) * stride + across.first + i;
            at_level += down.weights[j] * level[k];
            at_noise += down.weights[j] * noise[k];
        }
        sky += across.weights[i] * at_level;
        sd += across.weights[i] * at_noise;
    }
    sd = max(sd, params.noise_floor);
    let pixel = id.y * params.width + id.x;
    values[pixel] -= sky;
    weights[pixel] = sign(weights[pixel]) / (sd * sd);
}
