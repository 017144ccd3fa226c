// One invocation: one pixel of one trail's walk; adds a multiple of the model to it.
// In: trails, the centres of their walks. In and out: residuals.
// docs/algorithm.md, "Measure". CPU twin: backend/cpu/trail.rs. Needs shared/trail.wgsl.
//
// One dispatch adds one trail, so that no two invocations meet in a pixel.

override WORKGROUP: u32;

struct Params {
    width: u32,
    height: u32,
    trail: u32,
    factor: f32,
}

struct Trail {
    walk: Walk,
    model: Model,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> trails: array<Trail>;
@group(0) @binding(2) var<storage, read> centres: array<i32>;
@group(0) @binding(3) var<storage, read_write> residual: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let walk = trails[params.trail].walk;
    if id.x >= walk.steps {
        return;
    }
    let pixel = walked_pixel(walk, id.x, centres[walk.first_centre + id.x], i32(id.y) - walk.half_width);
    if !is_inside(pixel, params.width, params.height) {
        return;
    }
    let x = f32(pixel.x - walk.origin_x);
    let y = f32(pixel.y - walk.origin_y);
    residual[u32(pixel.y) * params.width + u32(pixel.x)] += params.factor * light_at(trails[params.trail].model, x, y);
}
