// One workgroup: one tile of the mesh, clipped at three standard deviations around its median until it settles.
// In: values, weights (usable where > 0). Out: one Statistics per tile.
// docs/algorithm.md, "Background". CPU twin: backend/cpu/tiles.rs.
//
// Order statistics are exact: a radix select over keys that sort as the values do, eight bits a pass, of those bits
// in which the kept values differ at all. Every invocation keeps its first keys: of most tiles the
// memory is read once.

override WORKGROUP: u32;

struct Params {
    width: u32,
    height: u32,
    nx: u32,
    ny: u32,
    /// Of larger tiles so many rows and columns, those in the middle, are looked at.
    most_px: u32,
    /// If 1, of these rows the first and the last of every four are looked at alone.
    half_of_rows: u32,
    max_rounds: u32,
    clip_sigmas: f32,
}

struct Statistics {
    n_usable: u32,
    n_clipped: u32,
    mean: f32,
    median: f32,
    sd: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> statistics: array<Statistics>;

const BINS = 256u;
/// Bins one invocation adds up before the rank is looked for.
const COARSE = 16u;
const LARGEST = 3.4e38;
/// Keys that an invocation keeps: of tiles of 64 × 64 px all.
const OWN = 32u;
/// Of a pixel that is not usable: greater than that of any value.
const NO_KEY = 0xffffffffu;

struct Tile {
    left: u32,
    top: u32,
    width: u32,
    n: u32,
}

/// What one look at the kept pixels of a tile tells; keys are those of the extreme values.
struct Survey {
    n: u32,
    sum: f32,
    squares: f32,
    first_key: u32,
    last_key: u32,
}

/// A value found by its rank: how many kept values are less, how many equal.
struct Ranked {
    key: u32,
    below: u32,
    equal: u32,
}

/// Keys of the least and the greatest value that are kept.
struct Range {
    low: u32,
    high: u32,
}

var<private> own: array<u32, OWN>;
var<workgroup> histogram: array<atomic<u32>, BINS>;
var<workgroup> coarse: array<u32, COARSE>;
var<workgroup> surveys: array<Survey, WORKGROUP>;
var<workgroup> extremes: array<vec2<u32>, WORKGROUP>;
var<workgroup> chosen: vec3<u32>;

/// Sorts as the values do. Zero has one key, whatever its sign.
fn key_of(value: f32) -> u32 {
    let bits = bitcast<u32>(select(value, 0.0, value == 0.0));
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

fn keys_between(low: f32, high: f32) -> Range {
    return Range(key_of(low), key_of(high));
}

/// Key of a pixel of the tile, as it is in memory.
fn load_key(tile: Tile, k: u32) -> u32 {
    let line = k / tile.width;
    let row = tile.top + line + params.half_of_rows * (line + line % 2u);
    let i = row * params.width + tile.left + k % tile.width;
    return select(NO_KEY, key_of(values[i]), weights[i] > 0.0);
}

/// Key of an invocation's pixel; its pixels lie a workgroup apart.
fn key_at(lid: u32, tile: Tile, turn: u32) -> u32 {
    if turn < OWN {
        return own[turn];
    }
    return load_key(tile, turn * WORKGROUP + lid);
}

/// Pixels of an invocation.
fn n_turns(lid: u32, tile: Tile) -> u32 {
    return (tile.n + WORKGROUP - 1u - lid) / WORKGROUP;
}

fn is_kept(key: u32, range: Range) -> bool {
    return key >= range.low && key <= range.high;
}

/// Number, sums relative to the pivot, and extremes of the kept pixels.
fn survey(lid: u32, tile: Tile, range: Range, pivot: f32) -> Survey {
    var seen = Survey(0u, 0.0, 0.0, NO_KEY, 0u);
    for (var turn = 0u; turn < n_turns(lid, tile); turn++) {
        let key = key_at(lid, tile, turn);
        if is_kept(key, range) {
            let d = value_of(key) - pivot;
            seen.n += 1u;
            seen.sum += d;
            seen.squares += d * d;
            seen.first_key = min(seen.first_key, key);
            seen.last_key = max(seen.last_key, key);
        }
    }
    surveys[lid] = seen;
    // A tree of fixed shape: the same sum in every run.
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lid < half {
            let other = surveys[lid + half];
            seen.n += other.n;
            seen.sum += other.sum;
            seen.squares += other.squares;
            seen.first_key = min(seen.first_key, other.first_key);
            seen.last_key = max(seen.last_key, other.last_key);
            surveys[lid] = seen;
        }
    }
    return workgroupUniformLoad(&surveys[0]);
}

/// The kept value of a rank, counted from 0.
fn select_rank(lid: u32, tile: Tile, range: Range, seen: Survey, wanted: u32) -> Ranked {
    var found = Ranked(seen.first_key, 0u, seen.n);
    var rank = wanted;
    var bits = 32u - countLeadingZeros(seen.first_key ^ seen.last_key);
    while bits > 0u {
        let shift = bits - min(bits, 8u);
        for (var bin = lid; bin < BINS; bin += WORKGROUP) {
            atomicStore(&histogram[bin], 0u);
        }
        workgroupBarrier();
        let mask = (1u << (bits - shift)) - 1u;
        // Most keys share their first bits: a run of them is counted once.
        var run_bin = 0u;
        var run = 0u;
        for (var turn = 0u; turn < n_turns(lid, tile); turn++) {
            let key = key_at(lid, tile, turn);
            if is_kept(key, range) && (bits == 32u || ((key ^ found.key) >> bits) == 0u) {
                let bin = (key >> shift) & mask;
                if bin != run_bin && run > 0u {
                    atomicAdd(&histogram[run_bin], run);
                    run = 0u;
                }
                run_bin = bin;
                run += 1u;
            }
        }
        if run > 0u {
            atomicAdd(&histogram[run_bin], run);
        }
        workgroupBarrier();
        let per_part = BINS / COARSE;
        if lid < COARSE {
            var total = 0u;
            for (var bin = lid * per_part; bin < (lid + 1u) * per_part; bin++) {
                total += atomicLoad(&histogram[bin]);
            }
            coarse[lid] = total;
        }
        workgroupBarrier();
        if lid == 0u {
            var below = 0u;
            var part = 0u;
            while part + 1u < COARSE && below + coarse[part] <= rank {
                below += coarse[part];
                part += 1u;
            }
            var bin = part * per_part;
            while bin + 1u < BINS && below + atomicLoad(&histogram[bin]) <= rank {
                below += atomicLoad(&histogram[bin]);
                bin += 1u;
            }
            chosen = vec3(bin, below, atomicLoad(&histogram[bin]));
        }
        let choice = workgroupUniformLoad(&chosen);
        found.key = (found.key & ~(mask << shift)) | (choice.x << shift);
        // Bits still unknown are zero from here on, so that the last pass leaves the whole key.
        found.key = found.key & ~((1u << shift) - 1u);
        found.below += choice.y;
        found.equal = choice.z;
        rank -= choice.y;
        bits = shift;
    }
    return found;
}

/// Greatest kept key below the given one and least above it, or the key itself where there is none.
fn neighbours_of(lid: u32, tile: Tile, range: Range, key: u32) -> vec2<u32> {
    var below = 0u;
    var above = NO_KEY;
    for (var turn = 0u; turn < n_turns(lid, tile); turn++) {
        let other = key_at(lid, tile, turn);
        if is_kept(other, range) {
            below = max(below, select(0u, other, other < key));
            above = min(above, select(NO_KEY, other, other > key));
        }
    }
    extremes[lid] = vec2(below, above);
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lid < half {
            let other = extremes[lid + half];
            below = max(below, other.x);
            above = min(above, other.y);
            extremes[lid] = vec2(below, above);
        }
    }
    let found = workgroupUniformLoad(&extremes[0]);
    return vec2(select(found.x, key, found.x == 0u), select(found.y, key, found.y == NO_KEY));
}

/// Median of grouped data, see the CPU twin.
fn grouped_median(lid: u32, tile: Tile, range: Range, seen: Survey) -> f32 {
    let found = select_rank(lid, tile, range, seen, (seen.n - 1u) / 2u);
    let around = neighbours_of(lid, tile, range, found.key);
    let middle = value_of(found.key);
    let previous = value_of(around.x);
    let next = value_of(around.y);
    if found.equal == 1u {
        return 0.5 * (middle + select(next, middle, seen.n % 2u == 1u));
    }
    let low = 0.5 * (previous + middle);
    let high = 0.5 * (middle + next);
    let fraction = (0.5 * f32(seen.n) - f32(found.below)) / f32(found.equal);
    return low + fraction * (high - low);
}

/// ⌊n Φ(−1)⌋ with Φ(−1) = 0.158655, in integers: n times its millionths would not fit.
fn lower_rank(n: u32) -> u32 {
    let thousands = (n / 1000u) * 158655u;
    return thousands / 1000u + ((thousands % 1000u) * 1000u + (n % 1000u) * 158655u) / 1000000u;
}

/// First of the pixels of one side of a tile that are looked at, and their number.
fn middle(begin: u32, end: u32) -> vec2<u32> {
    let n = min(end - begin, params.most_px);
    return vec2(begin + (end - begin - n) / 2u, n);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let columns = middle(group.x * params.width / params.nx, (group.x + 1u) * params.width / params.nx);
    let rows = middle(group.y * params.height / params.ny, (group.y + 1u) * params.height / params.ny);
    let half = rows.y / 4u * 2u + min(rows.y % 4u, 1u);
    let lines = select(rows.y, half, params.half_of_rows == 1u);
    let tile = Tile(columns.x, rows.x, columns.y, columns.y * lines);

    var result = Statistics(0u, 0u, 0.0, 0.0, 0.0);
    var range = keys_between(-LARGEST, LARGEST);
    for (var turn = 0u; turn < min(OWN, n_turns(lid, tile)); turn++) {
        own[turn] = load_key(tile, turn * WORKGROUP + lid);
    }
    let all = survey(lid, tile, range, 0.0);
    if all.n > 0u {
        // Sums relative to the first median keep single precision exact on integer frames.
        let pivot = value_of(select_rank(lid, tile, range, all, (all.n - 1u) / 2u).key);
        let lower = pivot - value_of(select_rank(lid, tile, range, all, lower_rank(all.n - 1u)).key);
        if lower > 0.0 {
            range = keys_between(pivot - 4.0 * lower, pivot + 4.0 * lower);
        }
        for (var round = 0u; round < params.max_rounds; round++) {
            let kept = survey(lid, tile, range, pivot);
            if kept.n == 0u {
                break;
            }
            let mean = kept.sum / f32(kept.n);
            let sd = sqrt(max(kept.squares / f32(kept.n) - mean * mean, 0.0));
            let settled = result.n_clipped == kept.n;
            result = Statistics(all.n, kept.n, pivot + mean, grouped_median(lid, tile, range, kept), sd);
            if settled {
                break;
            }
            range = keys_between(result.median - params.clip_sigmas * sd, result.median + params.clip_sigmas * sd);
        }
    }
    if lid == 0u {
        statistics[group.y * params.nx + group.x] = result;
    }
}
