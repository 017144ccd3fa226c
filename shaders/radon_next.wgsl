// One invocation: one node of a level, the sum of two nodes of the level below.
// In: nodes of the level below. Out: nodes [start, shift, column].
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon.rs, `sum_nodes`.

override WORKGROUP: u32;

struct Params {
    /// The level.
    start_step: i32,
    first_shift: i32,
    n_shifts: i32,
    pad: i32,
    stride: i32,
    /// The level below.
    lower_height: i32,
    lower_start_step: i32,
    lower_n_starts: i32,
    lower_first_shift: i32,
    lower_n_shifts: i32,
    lower_pad: i32,
    lower_stride: i32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> lower: array<f32>;
@group(0) @binding(2) var<storage, read_write> nodes: array<f32>;

/// A node of the level below; nothing beyond its ends.
fn half_at(row: i32, shift: i32, x: i32) -> f32 {
    let start = row / params.lower_start_step;
    if start >= params.lower_n_starts || x < 0 || x >= params.lower_stride {
        return 0.0;
    }
    return lower[(start * params.lower_n_shifts + shift - params.lower_first_shift) * params.lower_stride + x];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let x = i32(id.x);
    if x >= params.stride {
        return;
    }
    let shift = params.first_shift + i32(id.y);
    let row = i32(id.z) * params.start_step;
    let lower_x = x - params.pad + params.lower_pad;
    let sum = half_at(row, shift / 2, lower_x)
        + half_at(row + params.lower_height, shift / 2, lower_x + (shift + 1) / 2);
    nodes[(i32(id.z) * params.n_shifts + i32(id.y)) * params.stride + x] = sum;
}
