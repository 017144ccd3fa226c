// One invocation: one node; reports it where its significance is a local maximum above the threshold.
// In: nodes of a level, nodes of its weights, 1 / standard deviation of each shift. Out: one Found for each peak,
// appended in no order.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon.rs, `scan`.

override WORKGROUP: u32;

const LEAST = -3.4e38;

struct Params {
    /// Which level of which task this is, for the host.
    level: u32,
    height: i32,
    n_shifts: i32,
    stride: i32,
    /// First reported shift, counted from the first computed one.
    first_reported: i32,
    /// Where the level's inverse standard deviations begin.
    first_sd: i32,
    weighted: u32,
    min_coverage: f32,
    threshold: f32,
    capacity: u32,
}

struct Found {
    level: u32,
    start: u32,
    /// Counted from the first computed shift.
    shift: u32,
    /// Counted from the first computed column.
    column: u32,
    significance: f32,
}

struct Peaks {
    count: atomic<u32>,
    list: array<Found>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> nodes: array<f32>;
@group(0) @binding(2) var<storage, read> weight_nodes: array<f32>;
@group(0) @binding(3) var<storage, read> inverse_sd: array<f32>;
@group(0) @binding(4) var<storage, read_write> peaks: Peaks;

/// Significance of a node; less than everything where none is computed.
fn significance(start: i32, shift: i32, x: i32) -> f32 {
    if shift < 0 || shift >= params.n_shifts || x < 0 || x >= params.stride {
        return LEAST;
    }
    let i = (start * params.n_shifts + shift) * params.stride + x;
    let plain = nodes[i] * inverse_sd[params.first_sd + shift];
    if params.weighted == 0u {
        return plain;
    }
    let share = weight_nodes[i] * (1.0 / f32(params.height));
    if share <= params.min_coverage {
        return 0.0;
    }
    return plain / sqrt(share);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let x = i32(id.x);
    if x >= params.stride {
        return;
    }
    let start = i32(id.z);
    let shift = params.first_reported + i32(id.y);
    let value = significance(start, shift, x);
    if value <= params.threshold {
        return;
    }
    // Greater than the neighbours before it in (shift, column), not less than those after: a plateau counts once.
    for (var dx = -1; dx <= 1; dx++) {
        if value <= significance(start, shift - 1, x + dx) || value < significance(start, shift + 1, x + dx) {
            return;
        }
    }
    if value <= significance(start, shift, x - 1) || value < significance(start, shift, x + 1) {
        return;
    }
    let slot = atomicAdd(&peaks.count, 1u);
    if slot < params.capacity {
        peaks.list[slot] = Found(params.level, id.z, u32(shift), id.x, value);
    }
}
