// One invocation: one place that radon_next.wgsl has noted; reports the nodes there whose significance is a local maximum
// above the threshold, and the pairs that they make with the next start.
// In: the same nodes. Out: one Found for each peak, appended in no order.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/block.rs, `look_closer`.

const LEAST = -3.4e38;

struct Found {
    level: u32,
    start: u32,
    shift: u32,
    /// Of the octant's view; negative where the line enters through the side.
    column: i32,
    significance: f32,
    /// 1 where it is that of a node and its partner.
    paired: u32,
}

struct Peaks {
    count: atomic<u32>,
    list: array<Found>,
}

@group(0) @binding(5) var<storage, read_write> peaks: Peaks;

/// Significance of a node, or of a node and its partner; less than everything where none is computed.
fn significance_at(which: u32, paired: bool, start: i32, shift: i32, column: i32) -> f32 {
    let level = params.levels[which];
    let row = shift - level.first_shift;
    if row < 0 || row >= level.n_shifts || column < -level.pad || column >= params.columns {
        return LEAST;
    }
    let node = node_at(which, start, shift, column);
    if !paired {
        return significance_of(which, node, shift);
    }
    let partner = node_at(which, start + starts_apart(which), shift, partner_column(which, shift, column));
    return in_sds(node + partner, inverse_sd[level.first_paired_sd + row], 2 * level.height);
}

/// Reports a node, or a pair, if it is a peak.
fn report_peak(which: u32, paired: bool, start: i32, shift: i32, column: i32) {
    let value = significance_at(which, paired, start, shift, column);
    var is_peak = value > params.threshold;
    // Greater than the neighbours before it in (shift, column), not less than those after: a plateau counts once.
    for (var n = 0; n < 9 && is_peak; n++) {
        let neighbour = significance_at(which, paired, start, shift + n / 3 - 1, column + n % 3 - 1);
        is_peak = n == 4 || value > neighbour || (value == neighbour && n > 4);
    }
    if !is_peak {
        return;
    }
    let slot = atomicAdd(&peaks.count, 1u);
    if slot < params.most_peaks {
        let level_start = u32(start / starts_apart(which));
        peaks.list[slot] =
            Found(params.levels[which].id, level_start, u32(shift), column, value, select(0u, 1u, paired));
    }
}

/// Reports what there is of a node.
fn look(which: u32, start: i32, shift: i32, column: i32) {
    if significance_of(which, node_at(which, start, shift, column), shift) < params.partner_threshold {
        return;
    }
    report_peak(which, false, start, shift, column);
    let apart = starts_apart(which);
    if start / apart < params.levels[which].n_paired_starts {
        let partner = node_at(which, start + apart, shift, partner_column(which, shift, column));
        if significance_of(which, partner, shift) >= params.partner_threshold {
            report_peak(which, true, start, shift, column);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let noted = atomicLoad(&places.counts[params.turn]);
    if id.x == 0u {
        atomicMax(&places.most, noted);
        atomicStore(&places.counts[1u - params.turn], 0u);
    }
    for (var i = id.x; i < min(noted, params.most_places); i += groups.x * WORKGROUP) {
        let place = places.list[i];
        for (var bits = place.bits; bits != 0u; bits &= bits - 1u) {
            let k = i32(firstTrailingBit(bits));
            let which = select(MIDDLE, UPPER, k >= 2);
            let shift = select(2 * place.shift + k, 4 * place.shift + k - 2, which == UPPER);
            look(which, place.start, shift, place.column);
        }
    }
}
