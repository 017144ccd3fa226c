// What the passes share that make the next two levels, packed and not.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/block.rs.

/// Columns of one invocation.
const COLUMNS = 4;
/// No sum is as great.
const NEVER = 3.4e38;
/// What rounding may make of a limit.
const SLACK = 1.0 - 1e-6;

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

/// What all columns of an invocation share.
struct Work {
    start: i32,
    shift: i32,
    /// Nodes of the upper level begin here as well, and are kept.
    is_upper: bool,
    is_kept: bool,
    /// Of the four nodes of the lower level that one of the upper level is made of, those below each other first: where
    /// column 0 is, and how many columns there are from the first one on; none beyond the last start.
    origins: array<i32, 4>,
    lengths: array<u32, 4>,
    /// The least sums of the two nodes of the middle level and of the four of the upper one.
    least: array<f32, 6>,
    /// Lines that begin further left stay outside of the frame.
    most_left: i32,
}

fn work_of(group: vec3<u32>) -> Work {
    var work = Work();
    work.start = i32(group.z);
    work.shift = params.first_shift + i32(group.y);
    work.is_upper = params.levels[UPPER].n_shifts > 0 && work.start % 2 == 0;
    work.is_kept = work.is_upper && params.keep != 0u && work.start % 4 == 0;
    work.most_left = select(2 * work.shift + 1, 4 * work.shift + 3, work.is_upper);
    for (var k = 0; k < 4; k++) {
        work.origins[k] = origin_of(work.start + 2 * k, work.shift);
        work.lengths[k] = length_of(work.start + 2 * k, work.shift);
    }
    for (var k = 0; k < 2; k++) {
        work.least[k] = least_of(MIDDLE, work.start, 2 * work.shift + k);
    }
    for (var k = 0; k < 4; k++) {
        work.least[2 + k] = NEVER;
        if work.is_upper {
            work.least[2 + k] = least_of(UPPER, work.start, 4 * work.shift + k);
        }
    }
    return work;
}

/// Notes a place, if there is anything to look at.
fn note(place: Place) {
    if place.bits == 0u {
        return;
    }
    let slot = atomicAdd(&places.counts[params.turn], 1u);
    if slot < params.most_places {
        places.list[slot] = place;
    }
}
