// Nodes of two levels, made of those of the kept level below them, and what tells whether one may be a peak.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/block.rs.

override WORKGROUP: u32;
/// Some pixels are missing: every node's share of usable ones counts.
override WEIGHTED: bool;
/// Sums are whole numbers that 16 bits hold, and two of a row are a word: the one in the even column, and 65536 times its
/// neighbour. Words add up as they are.
override PACKED: bool;

const MIDDLE = 0u;
const UPPER = 1u;

/// A level whose peaks are looked for.
struct Level {
    /// Which level of which task this is, for the host; the upper one has no shifts where there is none.
    id: u32,
    height: i32,
    start_step: i32,
    first_shift: i32,
    n_shifts: i32,
    pad: i32,
    /// Shifts and starts that are reported.
    first_reported: i32,
    end_reported: i32,
    reported_starts: i32,
    /// Starts that have a partner at the next one.
    n_paired_starts: i32,
    /// Where the level's inverse standard deviations begin, and those of pairs.
    first_sd: i32,
    first_paired_sd: i32,
}

struct Params {
    levels: array<Level, 2>,
    /// The level below; its nodes start every half of their height.
    n_starts: i32,
    first_shift: i32,
    n_shifts: i32,
    pad: i32,
    stride: i32,
    columns: i32,
    /// Nodes of the upper level are kept.
    keep: u32,
    upper_stride: i32,
    min_coverage: f32,
    threshold: f32,
    /// What each of a pair must reach.
    partner_threshold: f32,
    /// Room for places and for peaks.
    most_places: u32,
    most_peaks: u32,
    /// Which of the two counters of places is in use.
    turn: u32,
}

/// Where nodes are that may be peaks: start and column of all, the lower shift they are made of, and one bit for each of
/// them, those of the middle level first.
struct Place {
    start: i32,
    shift: i32,
    column: i32,
    bits: u32,
}

struct Places {
    /// Of this pass and of the next one.
    counts: array<atomic<u32>, 2>,
    /// The most there were in any pass.
    most: atomic<u32>,
    unused: u32,
    list: array<Place>,
}

/// A sum, and the weights in it.
alias Node = vec2<f32>;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> nodes: array<i32>;
@group(0) @binding(2) var<storage, read> weight_nodes: array<i32>;
@group(0) @binding(3) var<storage, read> inverse_sd: array<f32>;
@group(0) @binding(4) var<storage, read_write> places: Places;

/// Where column 0 of a row of the level below is.
fn origin_of(start: i32, shift: i32) -> i32 {
    return (start * params.n_shifts + shift - params.first_shift) * params.stride + params.pad;
}

/// Columns of such a row, from the first on where a line comes in through the side; none beyond the last start.
fn length_of(start: i32, shift: i32) -> u32 {
    return select(0u, u32(params.columns + shift), start < params.n_starts);
}

/// The two sums of a word.
fn unpacked(word: i32) -> vec2<i32> {
    let even = extractBits(word, 0u, 16u);
    return vec2(even, (word - even) >> 16u);
}

fn sum_at(i: i32) -> f32 {
    if PACKED {
        let sums = unpacked(nodes[i >> 1u]);
        return f32(select(sums.x, sums.y, (i & 1) == 1));
    }
    return bitcast<f32>(nodes[i]);
}

/// A node of such a row; nothing beyond its ends.
fn in_row(origin: i32, length: u32, shift: i32, column: i32) -> Node {
    let outside = u32(column + shift) >= length;
    let i = select(origin + column, 0, outside);
    var node = Node(sum_at(i), 0.0);
    if WEIGHTED {
        node.y = bitcast<f32>(weight_nodes[i]);
    }
    return select(node, Node(0.0), outside);
}

/// A node of the level below.
fn lower_at(start: i32, shift: i32, column: i32) -> Node {
    return in_row(origin_of(start, shift), length_of(start, shift), shift, column);
}

/// A node of the middle level; starts are those of the lower level.
fn middle_at(start: i32, shift: i32, column: i32) -> Node {
    return lower_at(start, shift / 2, column) + lower_at(start + 2, shift / 2, column + (shift + 1) / 2);
}

fn node_at(which: u32, start: i32, shift: i32, column: i32) -> Node {
    let first = middle_at(start, select(shift, shift / 2, which == UPPER), column);
    if which == MIDDLE {
        return first;
    }
    return first + middle_at(start + 4, shift / 2, column + (shift + 1) / 2);
}

/// Lower starts from one start of a level to the next.
fn starts_apart(which: u32) -> i32 {
    return select(1, 2, which == UPPER);
}

/// Where the partner of a node is: the line goes on from there.
fn partner_column(which: u32, shift: i32, column: i32) -> i32 {
    let rows = params.levels[which].height - 1;
    return column + (2 * shift * params.levels[which].start_step + rows) / (2 * rows);
}

/// A sum in units of its standard deviation, which usable pixels make only a share of.
fn in_sds(node: Node, inverse_sd: f32, n_rows: i32) -> f32 {
    let plain = node.x * inverse_sd;
    if !WEIGHTED {
        return plain;
    }
    let share = node.y * (1.0 / f32(n_rows));
    if share <= params.min_coverage {
        return 0.0;
    }
    return plain / sqrt(share);
}

fn significance_of(which: u32, node: Node, shift: i32) -> f32 {
    let level = params.levels[which];
    return in_sds(node, inverse_sd[level.first_sd + shift - level.first_shift], level.height);
}
