// What the passes share that make the next two levels, packed and not.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/block.rs.

/// Columns of one invocation.
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

/// Nodes of the upper level begin here as well.
fn makes_upper(start: i32) -> bool {
    return params.levels[UPPER].n_shifts > 0 && start % 2 == 0;
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
