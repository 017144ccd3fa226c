// One invocation: one pixel; takes off the offsets of its column and row, and gives it weight zero where either saw no
// sky.
// In: offset of each column, then of each row, and their factors, 0 or 1. In and out: residuals, weights.
// docs/algorithm.md, "Background". CPU twin: backend/cpu/background.rs, `take_off_lines`.

override WORKGROUP: u32;

struct Params {
    width: u32,
    height: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> offsets: array<f32>;
@group(0) @binding(2) var<storage, read> factors: array<f32>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;
@group(0) @binding(4) var<storage, read_write> weights: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let row = params.width + id.y;
    let pixel = id.y * params.width + id.x;
    values[pixel] -= offsets[id.x] + offsets[row];
    weights[pixel] *= factors[id.x] * factors[row];
}
