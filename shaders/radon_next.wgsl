// One invocation: all nodes of the next two levels that begin in a few places and are made of one shift of the level below
// them: in each two of the middle level, and four of the upper one. Where one of them may be a peak the place is noted, every
// second start of the upper level is kept for what comes after it.
// In: nodes of the lower level, nodes of its weights, 1 / standard deviation of each shift. Out: nodes of the upper level
// [start, shift, column], and one Place for each that radon_peaks.wgsl shall look at, appended in no order.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/block.rs.

@group(0) @binding(5) var<storage, read_write> upper_nodes: array<i32>;
@group(0) @binding(6) var<storage, read_write> upper_weight_nodes: array<i32>;

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
    upper_nodes[i] = bitcast<i32>(node.x);
    if WEIGHTED {
        upper_weight_nodes[i] = bitcast<i32>(node.y);
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let work = work_of(group);
    let start = work.start;
    let shift = work.shift;
    for (var turn = 0; turn < COLUMNS; turn++) {
        let column = (i32(group.x) * COLUMNS + turn) * i32(WORKGROUP) + i32(lid) - work.most_left;
        if column >= params.columns {
            break;
        }
        let a = in_row(work.origins[0], work.lengths[0], shift, column);
        let b0 = in_row(work.origins[1], work.lengths[1], shift, column + shift);
        let b1 = in_row(work.origins[1], work.lengths[1], shift, column + shift + 1);
        let middle = array(a + b0, a + b1);
        var bits = reaches(work.least[0], MIDDLE, 2 * shift, middle[0])
            | (reaches(work.least[1], MIDDLE, 2 * shift + 1, middle[1]) << 1u);
        if work.is_upper {
            let c0 = in_row(work.origins[2], work.lengths[2], shift, column + 2 * shift);
            let c1 = in_row(work.origins[2], work.lengths[2], shift, column + 2 * shift + 1);
            let c2 = in_row(work.origins[2], work.lengths[2], shift, column + 2 * shift + 2);
            let d0 = in_row(work.origins[3], work.lengths[3], shift, column + 3 * shift);
            let d1 = in_row(work.origins[3], work.lengths[3], shift, column + 3 * shift + 1);
            let d2 = in_row(work.origins[3], work.lengths[3], shift, column + 3 * shift + 2);
            let d3 = in_row(work.origins[3], work.lengths[3], shift, column + 3 * shift + 3);
            let upper = array(middle[0] + (c0 + d0), middle[0] + (c1 + d1), middle[1] + (c1 + d2), middle[1] + (c2 + d3));
            bits |= (reaches(work.least[2], UPPER, 4 * shift, upper[0]) << 2u)
                | (reaches(work.least[3], UPPER, 4 * shift + 1, upper[1]) << 3u)
                | (reaches(work.least[4], UPPER, 4 * shift + 2, upper[2]) << 4u)
                | (reaches(work.least[5], UPPER, 4 * shift + 3, upper[3]) << 5u);
            if work.is_kept {
                keep(start, 4 * shift, column, upper[0]);
                keep(start, 4 * shift + 1, column, upper[1]);
                keep(start, 4 * shift + 2, column, upper[2]);
                keep(start, 4 * shift + 3, column, upper[3]);
            }
        }
        note(Place(start, shift, column, bits));
    }
}
