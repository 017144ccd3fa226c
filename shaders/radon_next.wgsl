// One invocation: all nodes of the next two levels that begin in one place and are made of one shift of the level below
// them: two of the middle level, and four of the upper one. Where one of them may be a peak the place is noted, every
// second start of the upper level is kept for what comes after it.
// In: nodes of the lower level, nodes of its weights, 1 / standard deviation of each shift. Out: nodes of the upper level
// [start, shift, column], and one Place for each that radon_peaks.wgsl shall look at, appended in no order.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/block.rs.

@group(0) @binding(5) var<storage, read_write> upper_nodes: array<f32>;
@group(0) @binding(6) var<storage, read_write> upper_weight_nodes: array<f32>;

/// Whether a node, alone or with its partner, may be a peak.
fn may_be_peak(which: u32, shift: i32, node: Node) -> bool {
    let level = params.levels[which];
    return shift >= level.first_reported && shift < level.end_reported
        && significance_of(which, node, shift) >= params.partner_threshold;
}

fn keep(start: i32, shift: i32, column: i32, node: Node) {
    let upper = params.levels[UPPER];
    let row = shift - upper.first_shift;
    if row < 0 || row >= upper.n_shifts || column < -shift {
        return;
    }
    let i = (start / 4 * upper.n_shifts + row) * params.upper_stride + column + upper.pad;
    upper_nodes[i] = node.x;
    if WEIGHTED {
        upper_weight_nodes[i] = node.y;
    }
}

/// The four nodes of the upper level; a bit for each that may be a peak.
fn upper_level(start: i32, shift: i32, column: i32, middle: array<Node, 2>) -> u32 {
    var c = array<Node, 3>();
    for (var k = 0; k < 3; k++) {
        c[k] = lower_at(start + 4, shift, column + 2 * shift + k);
    }
    var d = array<Node, 4>();
    for (var k = 0; k < 4; k++) {
        d[k] = lower_at(start + 6, shift, column + 3 * shift + k);
    }
    let upper = array(
        middle[0] + (c[0] + d[0]),
        middle[0] + (c[1] + d[1]),
        middle[1] + (c[1] + d[2]),
        middle[1] + (c[2] + d[3]),
    );
    var bits = 0u;
    if start / 2 < params.levels[UPPER].reported_starts {
        for (var k = 0; k < 4; k++) {
            bits |= u32(may_be_peak(UPPER, 4 * shift + k, upper[k])) << u32(k);
        }
    }
    if params.keep != 0u && start % 4 == 0 {
        for (var k = 0; k < 4; k++) {
            keep(start, 4 * shift + k, column, upper[k]);
        }
    }
    return bits;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let start = i32(id.z);
    let shift = params.first_shift + i32(id.y);
    let is_upper = params.levels[UPPER].n_shifts > 0 && start % 2 == 0;
    // Lines further left stay outside of the frame.
    let most_left = select(2 * shift + 1, 4 * shift + 3, is_upper);
    let column = i32(id.x) - most_left;
    if column >= params.columns {
        return;
    }
    let a = lower_at(start, shift, column);
    let b = array(lower_at(start + 2, shift, column + shift), lower_at(start + 2, shift, column + shift + 1));
    let middle = array(a + b[0], a + b[1]);
    var bits = 0u;
    if start < params.levels[MIDDLE].reported_starts {
        bits = u32(may_be_peak(MIDDLE, 2 * shift, middle[0])) | u32(may_be_peak(MIDDLE, 2 * shift + 1, middle[1])) << 1u;
    }
    if is_upper {
        bits |= upper_level(start, shift, column, middle) << 2u;
    }
    if bits != 0u {
        let slot = atomicAdd(&places.counts[params.turn], 1u);
        if slot < params.most_places {
            places.list[slot] = Place(start, shift, column, bits);
        }
    }
}
