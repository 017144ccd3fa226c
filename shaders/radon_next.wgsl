// One invocation: all nodes of the next two levels that begin in a few places and are made of one shift of the level below
// them: in each two of the middle level, and four of the upper one. Where one of them may be a peak the place is noted, every
// second start of the upper level is kept for what comes after it.
// In: nodes of the lower level, nodes of its weights, 1 / standard deviation of each shift. Out: nodes of the upper level
// [start, shift, column], and one Place for each that radon_peaks.wgsl shall look at, appended in no order.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/block.rs.

@group(0) @binding(5) var<storage, read_write> upper_nodes: array<f32>;
@group(0) @binding(6) var<storage, read_write> upper_weight_nodes: array<f32>;

/// Columns of one invocation, a workgroup apart.
const COLUMNS = 4;
/// No sum is as great.
const NEVER = 3.4e38;
/// What rounding may make of a limit.
const SLACK = 1.0 - 1e-6;

/// What all columns of an invocation share: the four nodes of the lower level that one of the upper level is made of,
/// those below each other first.
struct Rows {
    /// Where column 0 is.
    origins: array<i32, 4>,
    /// Columns there are from the first one on; none beyond the last start.
    lengths: array<u32, 4>,
    shift: i32,
}

fn rows_of(start: i32, shift: i32) -> Rows {
    var rows = Rows();
    rows.shift = shift;
    for (var k = 0; k < 4; k++) {
        rows.origins[k] = origin_of(start + 2 * k, shift);
        rows.lengths[k] = length_of(start + 2 * k, shift);
    }
    return rows;
}

/// The least sum of a node that may be a peak, alone or with its partner; with weights the least significance.
fn least_of(which: u32, start: i32, shift: i32) -> f32 {
    let level = params.levels[which];
    if start / starts_apart(which) >= level.reported_starts || shift < level.first_reported
        || shift >= level.end_reported {
        return NEVER;
    }
    // Where there are no pairs a node has to be a peak by itself.
    let least = SLACK * select(params.threshold, params.partner_threshold, level.n_paired_starts > 0);
    if WEIGHTED {
        return least;
    }
    return least / inverse_sd[level.first_sd + shift - level.first_shift];
}

fn reaches(least: f32, which: u32, shift: i32, node: Node) -> u32 {
    if WEIGHTED {
        return u32(least < NEVER && significance_of(which, node, shift) >= least);
    }
    return u32(node.x >= least);
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

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let start = i32(group.z);
    let shift = params.first_shift + i32(group.y);
    let is_upper = params.levels[UPPER].n_shifts > 0 && start % 2 == 0;
    let is_kept = is_upper && params.keep != 0u && start % 4 == 0;
    let rows = rows_of(start, shift);
    let least_1 = vec2(least_of(MIDDLE, start, 2 * shift), least_of(MIDDLE, start, 2 * shift + 1));
    var least_2 = vec4(NEVER);
    if is_upper {
        for (var k = 0; k < 4; k++) {
            least_2[k] = least_of(UPPER, start, 4 * shift + k);
        }
    }
    // Lines further left stay outside of the frame.
    let most_left = select(2 * shift + 1, 4 * shift + 3, is_upper);
    for (var turn = 0; turn < COLUMNS; turn++) {
        let column = (i32(group.x) * COLUMNS + turn) * i32(WORKGROUP) + i32(lid) - most_left;
        if column >= params.columns {
            break;
        }
        let a = in_row(rows.origins[0], rows.lengths[0], shift, column);
        let b0 = in_row(rows.origins[1], rows.lengths[1], shift, column + shift);
        let b1 = in_row(rows.origins[1], rows.lengths[1], shift, column + shift + 1);
        let middle = array(a + b0, a + b1);
        var bits = reaches(least_1.x, MIDDLE, 2 * shift, middle[0])
            | (reaches(least_1.y, MIDDLE, 2 * shift + 1, middle[1]) << 1u);
        if is_upper {
            let c0 = in_row(rows.origins[2], rows.lengths[2], shift, column + 2 * shift);
            let c1 = in_row(rows.origins[2], rows.lengths[2], shift, column + 2 * shift + 1);
            let c2 = in_row(rows.origins[2], rows.lengths[2], shift, column + 2 * shift + 2);
            let d0 = in_row(rows.origins[3], rows.lengths[3], shift, column + 3 * shift);
            let d1 = in_row(rows.origins[3], rows.lengths[3], shift, column + 3 * shift + 1);
            let d2 = in_row(rows.origins[3], rows.lengths[3], shift, column + 3 * shift + 2);
            let d3 = in_row(rows.origins[3], rows.lengths[3], shift, column + 3 * shift + 3);
            let upper = array(middle[0] + (c0 + d0), middle[0] + (c1 + d1), middle[1] + (c1 + d2), middle[1] + (c2 + d3));
            bits |= (reaches(least_2.x, UPPER, 4 * shift, upper[0]) << 2u)
                | (reaches(least_2.y, UPPER, 4 * shift + 1, upper[1]) << 3u)
                | (reaches(least_2.z, UPPER, 4 * shift + 2, upper[2]) << 4u)
                | (reaches(least_2.w, UPPER, 4 * shift + 3, upper[3]) << 5u);
            if is_kept {
                keep(start, 4 * shift, column, upper[0]);
                keep(start, 4 * shift + 1, column, upper[1]);
                keep(start, 4 * shift + 2, column, upper[2]);
                keep(start, 4 * shift + 3, column, upper[3]);
            }
        }
        if bits != 0u {
            let slot = atomicAdd(&places.counts[params.turn], 1u);
            if slot < params.most_places {
                places.list[slot] = Place(start, shift, column, bits);
            }
        }
    }
}
