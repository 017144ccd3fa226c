// One invocation: one pixel; takes off the offsets of its column and row, and gives it weight zero where either saw no
// sky.
// In: offsets of the columns in the first half of the rows, then in the second, of the rows in the first half of the columns,
// then in the second; factors of columns, then of rows, 0 or 1. In and out: residuals, weights.
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
    let pixel = id.y * params.width + id.x;
    let column = select(0u, params.width, id.y >= params.height / 2u) + id.x;
    let row = 2u * params.width + select(0u, params.height, id.x >= params.width / 2u) + id.y;
    values[pixel] -= offsets[column] + offsets[row];
    weights[pixel] *= factors[id.x] * factors[params.width + id.y];
}
