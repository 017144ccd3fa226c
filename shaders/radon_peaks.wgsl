// One invocation: one node; reports it where its significance is a local maximum above the threshold, and the pair that
// it makes with the next start.
// In: nodes of a level, nodes of its weights, 1 / standard deviation of each shift. Out: one Found for each peak,
// appended in no order.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/block.rs, `look_closer`.

override WORKGROUP: u32;

const LEAST = -3.4e38;

struct Params {
    /// Which level of which task this is, for the host.
    level: u32,
    height: i32,
    n_shifts: i32,
    stride: i32,
    /// First shift computed, and the first one reported, counted from it.
    first_shift: i32,
    first_reported: i32,
    /// Where the level's inverse standard deviations begin, and those of pairs.
    first_sd: i32,
    first_paired_sd: i32,
    /// Rows from one start to the next.
    start_step: i32,
    /// Starts that have a partner at the next one.
    n_paired_starts: i32,
    weighted: u32,
    min_coverage: f32,
    threshold: f32,
    /// What each of a pair must reach.
    partner_threshold: f32,
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
    /// 1 where it is that of a node and its partner.
    paired: u32,
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

/// A sum in units of its standard deviation, which usable pixels make only a share of.
fn in_sds(value: f32, inverse_sd: f32, weight: f32, n_rows: i32) -> f32 {
    let plain = value * inverse_sd;
    if params.weighted == 0u {
        return plain;
    }
    let share = weight * (1.0 / f32(n_rows));
    if share <= params.min_coverage {
        return 0.0;
    }
    return plain / sqrt(share);
}

fn node_index(start: i32, shift: i32, x: i32) -> i32 {
    return (start * params.n_shifts + shift) * params.stride + x;
}

fn is_computed(shift: i32, x: i32) -> bool {
    return shift >= 0 && shift < params.n_shifts && x >= 0 && x < params.stride;
}

/// Significance of a node; less than everything where none is computed.
fn significance(start: i32, shift: i32, x: i32) -> f32 {
    if !is_computed(shift, x) {
        return LEAST;
    }
    let i = node_index(start, shift, x);
    return in_sds(nodes[i], inverse_sd[params.first_sd + shift], weight_nodes[i], params.height);
}

/// Where the partner of a node is: the line goes on from there.
fn partner_column(shift: i32, x: i32) -> i32 {
    let rows = params.height - 1;
    return x + (2 * (params.first_shift + shift) * params.start_step + rows) / (2 * rows);
}

/// Significance of a node and its partner together.
fn paired_significance(start: i32, shift: i32, x: i32) -> f32 {
    if !is_computed(shift, x) {
        return LEAST;
    }
    let i = node_index(start, shift, x);
    var value = nodes[i];
    var weight = weight_nodes[i];
    let partner_x = partner_column(shift, x);
    if partner_x < params.stride {
        let partner = node_index(start + 1, shift, partner_x);
        value += nodes[partner];
        weight += weight_nodes[partner];
    }
    return in_sds(value, inverse_sd[params.first_paired_sd + shift], weight, 2 * params.height);
}

fn significance_of(paired: bool, start: i32, shift: i32, x: i32) -> f32 {
    if paired {
        return paired_significance(start, shift, x);
    }
    return significance(start, shift, x);
}

fn report_peak(paired: bool, start: i32, shift: i32, x: i32) {
    let value = significance_of(paired, start, shift, x);
    if value <= params.threshold {
        return;
    }
    // Greater than the neighbours before it in (shift, column), not less than those after: a plateau counts once.
    for (var dx = -1; dx <= 1; dx++) {
        if value <= significance_of(paired, start, shift - 1, x + dx)
            || value < significance_of(paired, start, shift + 1, x + dx) {
            return;
        }
    }
    if value <= significance_of(paired, start, shift, x - 1) || value < significance_of(paired, start, shift, x + 1) {
        return;
    }
    let slot = atomicAdd(&peaks.count, 1u);
    if slot < params.capacity {
        peaks.list[slot] = Found(params.level, u32(start), u32(shift), u32(x), value, select(0u, 1u, paired));
    }
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
    if value < params.partner_threshold {
        return;
    }
    report_peak(false, start, shift, x);
    if start < params.n_paired_starts
        && significance(start + 1, shift, partner_column(shift, x)) >= params.partner_threshold {
        report_peak(true, start, shift, x);
    }
}
