// radon_next.wgsl where two sums are a word: one invocation makes them for the columns of a word at a time, from the words
// that the lines below go through, and adds words.
// In: packed nodes of the lower level, 1 / standard deviation of each shift. Out: packed nodes of the upper level [start,
// shift, column], and one Place for each column that radon_peaks.wgsl shall look at, appended in no order.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/block.rs.

@group(0) @binding(5) var<storage, read_write> upper_nodes: array<i32>;

/// More than 16 bits hold.
const BEYOND = 32768.0;

/// A word of a row, that of an even column and the next; nothing beyond its ends.
fn word_at(origin: i32, length: u32, shift: i32, column: i32) -> i32 {
    let first = u32(column + shift);
    let is_there = vec2(first < length, first + 1u < length);
    let word = nodes[select(0, origin + column, any(is_there)) >> 1u];
    let even = extractBits(word, 0u, 16u);
    return select(0, even, is_there.x) + select(0, word - even, is_there.y);
}

/// The word of the columns between two words.
fn between(word: i32, next: i32) -> i32 {
    return unpacked(word).y + (next << 16u);
}

/// The words of a column, odd or even, and of the next one.
fn two_words(origin: i32, length: u32, shift: i32, column: i32) -> vec2<i32> {
    let odd = column & 1;
    let w0 = word_at(origin, length, shift, column - odd);
    let w1 = word_at(origin, length, shift, column - odd + 2);
    return select(vec2(w0, between(w0, w1)), vec2(between(w0, w1), w1), odd == 1);
}

/// Those of a column and of the next three.
fn four_words(origin: i32, length: u32, shift: i32, column: i32) -> vec4<i32> {
    let odd = column & 1;
    let w1 = word_at(origin, length, shift, column - odd + 2);
    let w2 = word_at(origin, length, shift, column - odd + 4);
    if odd == 1 {
        let w0 = word_at(origin, length, shift, column - 1);
        return vec4(between(w0, w1), w1, between(w1, w2), w2);
    }
    let w0 = word_at(origin, length, shift, column);
    return vec4(w0, between(w0, w1), w1, between(w1, w2));
}

/// The least whole number that is no less.
fn in_whole(least: f32) -> i32 {
    return i32(ceil(min(least, BEYOND)));
}

/// One bit for either column whose sum is no less.
fn reaches(least: i32, word: i32) -> vec2<u32> {
    return vec2<u32>(unpacked(word) >= vec2(least));
}

fn keep(start: i32, shift: i32, column: i32, word: i32) {
    let upper = params.levels[UPPER];
    let row = shift - upper.first_shift;
    if row < 0 || row >= upper.n_shifts || column + 1 < -shift {
        return;
    }
    upper_nodes[((start / 4 * upper.n_shifts + row) * params.upper_stride + column + upper.pad) >> 1u] = word;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let work = work_of(group);
    let start = work.start;
    let shift = work.shift;
    var least = array<i32, 6>();
    for (var k = 0; k < 6; k++) {
        least[k] = in_whole(work.least[k]);
    }
    // Words begin in even columns.
    let most_left = work.most_left + 1;
    for (var turn = 0; turn < COLUMNS / 2; turn++) {
        let column = 2 * ((i32(group.x) * COLUMNS / 2 + turn) * i32(WORKGROUP) + i32(lid)) - most_left;
        if column >= params.columns {
            break;
        }
        let a = word_at(work.origins[0], work.lengths[0], shift, column);
        let middle = a + two_words(work.origins[1], work.lengths[1], shift, column + shift);
        var bits = reaches(least[0], middle.x) | (reaches(least[1], middle.y) << vec2(1u));
        if work.is_upper {
            // An even column.
            let c0 = word_at(work.origins[2], work.lengths[2], shift, column + 2 * shift);
            let c2 = word_at(work.origins[2], work.lengths[2], shift, column + 2 * shift + 2);
            let c1 = between(c0, c2);
            let d = four_words(work.origins[3], work.lengths[3], shift, column + 3 * shift);
            let upper = middle.xxyy + vec4(c0, c1, c1, c2) + d;
            bits |= (reaches(least[2], upper.x) << vec2(2u)) | (reaches(least[3], upper.y) << vec2(3u))
                | (reaches(least[4], upper.z) << vec2(4u)) | (reaches(least[5], upper.w) << vec2(5u));
            if work.is_kept {
                keep(start, 4 * shift, column, upper.x);
                keep(start, 4 * shift + 1, column, upper.y);
                keep(start, 4 * shift + 2, column, upper.z);
                keep(start, 4 * shift + 3, column, upper.w);
            }
        }
        note(Place(start, shift, column, bits.x));
        note(Place(start, shift, column + 1, bits.y));
    }
}
