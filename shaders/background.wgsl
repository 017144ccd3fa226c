// One workgroup: one tile of the mesh, clipped at three standard deviations around its median until it settles.
// In: values, weights (usable where > 0). Out: one Statistics per tile.
// docs/algorithm.md, "Background". CPU twin: backend/cpu/background.rs.
//
// Order statistics are exact: a radix select over keys that sort as the values do, eight bits a pass, of those bits
// in which the kept values differ at all.

override WORKGROUP: u32;

struct Params {
    width: u32,
    height: u32,
    nx: u32,
    ny: u32,
    /// Of larger tiles so many rows and columns, those in the middle, are looked at.
    most_px: u32,
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

struct Range {
    low: f32,
    high: f32,
}

var<workgroup> histogram: array<atomic<u32>, BINS>;
var<workgroup> coarse: array<u32, COARSE>;
var<workgroup> sums: array<vec2<f32>, WORKGROUP>;
var<workgroup> counted: atomic<u32>;
var<workgroup> least: atomic<u32>;
var<workgroup> greatest: atomic<u32>;
var<workgroup> surveyed: Survey;
var<workgroup> chosen: vec3<u32>;
var<workgroup> neighbours: vec2<u32>;

/// Sorts as the values do. Zero has one key, whatever its sign.
fn key_of(value: f32) -> u32 {
    let bits = bitcast<u32>(select(value, 0.0, value == 0.0));
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

fn index_of(tile: Tile, k: u32) -> u32 {
    return (tile.top + k / tile.width) * params.width + tile.left + k % tile.width;
}

fn is_kept(i: u32, range: Range) -> bool {
    return weights[i] > 0.0 && values[i] >= range.low && values[i] <= range.high;
}

/// Number, sums relative to the pivot, and extremes of the kept pixels.
fn survey(lid: u32, tile: Tile, range: Range, pivot: f32) -> Survey {
    if lid == 0u {
        atomicStore(&counted, 0u);
        atomicStore(&least, 0xffffffffu);
        atomicStore(&greatest, 0u);
    }
    workgroupBarrier();
    var n = 0u;
    var sum = vec2<f32>(0.0);
    var first_key = 0xffffffffu;
    var last_key = 0u;
    for (var k = lid; k < tile.n; k += WORKGROUP) {
        let i = index_of(tile, k);
        if is_kept(i, range) {
            let d = values[i] - pivot;
            let key = key_of(values[i]);
            n += 1u;
            sum += vec2(d, d * d);
            first_key = min(first_key, key);
            last_key = max(last_key, key);
        }
    }
    atomicAdd(&counted, n);
    atomicMin(&least, first_key);
    atomicMax(&greatest, last_key);
    sums[lid] = sum;
    // A tree of fixed shape: the same sum in every run.
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lid < half {
            sums[lid] += sums[lid + half];
        }
    }
    workgroupBarrier();
    if lid == 0u {
        surveyed = Survey(atomicLoad(&counted), sums[0].x, sums[0].y, atomicLoad(&least), atomicLoad(&greatest));
    }
    return workgroupUniformLoad(&surveyed);
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
        for (var k = lid; k < tile.n; k += WORKGROUP) {
            let i = index_of(tile, k);
            if is_kept(i, range) {
                let key = key_of(values[i]);
                if bits == 32u || ((key ^ found.key) >> bits) == 0u {
                    atomicAdd(&histogram[(key >> shift) & mask], 1u);
                }
            }
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
    if lid == 0u {
        atomicStore(&least, 0xffffffffu);
        atomicStore(&greatest, 0u);
    }
    workgroupBarrier();
    for (var k = lid; k < tile.n; k += WORKGROUP) {
        let i = index_of(tile, k);
        if is_kept(i, range) {
            let other = key_of(values[i]);
            if other < key {
                atomicMax(&greatest, other);
            }
            if other > key {
                atomicMin(&least, other);
            }
        }
    }
    workgroupBarrier();
    if lid == 0u {
        let previous = atomicLoad(&greatest);
        let next = atomicLoad(&least);
        neighbours = vec2(select(previous, key, previous == 0u), select(next, key, next == 0xffffffffu));
    }
    return workgroupUniformLoad(&neighbours);
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
    let tile = Tile(columns.x, rows.x, columns.y, columns.y * rows.y);

    var result = Statistics(0u, 0u, 0.0, 0.0, 0.0);
    var range = Range(-LARGEST, LARGEST);
    let all = survey(lid, tile, range, 0.0);
    if all.n > 0u {
        // Sums relative to the first median keep single precision exact on integer frames.
        let pivot = value_of(select_rank(lid, tile, range, all, (all.n - 1u) / 2u).key);
        let lower = pivot - value_of(select_rank(lid, tile, range, all, lower_rank(all.n - 1u)).key);
        if lower > 0.0 {
            range = Range(pivot - 4.0 * lower, pivot + 4.0 * lower);
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
            range = Range(result.median - params.clip_sigmas * sd, result.median + params.clip_sigmas * sd);
        }
    }
    if lid == 0u {
        statistics[group.y * params.nx + group.x] = result;
    }
}
