// One invocation: one pixel; where the filtered image has a local maximum there, walks outwards in every direction.
// In: filtered image, residuals, weights. Out: one Source for each maximum, appended in no order.
// docs/algorithm.md, "Weigh". CPU twin: backend/cpu/compact.rs, `find_compact`.

override WORKGROUP: u32;

const N_DIRECTIONS = 16u;
const LEAST = -3.4e38;

struct Params {
    width: u32,
    height: u32,
    capacity: u32,
    threshold: f32,
    wing_level: f32,
    /// Longest walk, steps.
    max_walk: u32,
    // A uniform array of vectors begins at a multiple of 16 bytes.
    unused_1: u32,
    unused_2: u32,
    /// Unit vectors of the walks, two in each element.
    directions: array<vec4<f32>, 8>,
}

struct Source {
    x: u32,
    y: u32,
    peak: f32,
    centre: f32,
    saturated: u32,
    /// One byte for each direction.
    core_reach: array<u32, 4>,
    wing_reach: array<u32, 4>,
}

struct Sources {
    count: atomic<u32>,
    list: array<Source>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> filtered: array<f32>;
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> sources: Sources;

/// The filtered image; less than everything beyond its border.
fn at(x: i32, y: i32) -> f32 {
    if x < 0 || y < 0 || x >= i32(params.width) || y >= i32(params.height) {
        return LEAST;
    }
    return filtered[u32(y) * params.width + u32(x)];
}

/// Greater than the neighbours read before it, and not less than those after: a plateau counts once.
fn is_peak(x: i32, y: i32, value: f32) -> bool {
    return value > at(x - 1, y - 1) && value > at(x, y - 1) && value > at(x + 1, y - 1) && value > at(x - 1, y)
        && value >= at(x + 1, y) && value >= at(x - 1, y + 1) && value >= at(x, y + 1) && value >= at(x + 1, y + 1);
}

/// Steps to the last pixel before the image falls below the level.
fn reach(x: i32, y: i32, direction: vec2<f32>, level: f32) -> u32 {
    for (var r = 1u; r <= params.max_walk; r++) {
        let offset = vec2<i32>(round(f32(r) * direction));
        if at(x + offset.x, y + offset.y) < level {
            return r - 1u;
        }
    }
    return params.max_walk;
}

/// Whether a pixel, or one no more than two columns and two rows away, is saturated.
fn touches_saturated(x: i32, y: i32) -> bool {
    for (var row = max(y - 2, 0); row <= min(y + 2, i32(params.height) - 1); row++) {
        for (var column = max(x - 2, 0); column <= min(x + 2, i32(params.width) - 1); column++) {
            if weights[u32(row) * params.width + u32(column)] < 0.0 {
                return true;
            }
        }
    }
    return false;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let i = id.y * params.width + id.x;
    let peak = filtered[i];
    let x = i32(id.x);
    let y = i32(id.y);
    if peak <= params.threshold || !is_peak(x, y, peak) {
        return;
    }
    let slot = atomicAdd(&sources.count, 1u);
    if slot >= params.capacity {
        return;
    }
    var source = Source();
    source.x = id.x;
    source.y = id.y;
    source.peak = peak;
    source.centre = residual[i] * sqrt(abs(weights[i]));
    source.saturated = u32(touches_saturated(x, y));
    for (var k = 0u; k < N_DIRECTIONS; k++) {
        let pair = params.directions[k / 2u];
        let direction = select(pair.xy, pair.zw, k % 2u == 1u);
        let byte = 8u * (k % 4u);
        source.core_reach[k / 4u] |= reach(x, y, direction, 0.25 * peak) << byte;
        source.wing_reach[k / 4u] |= reach(x, y, direction, params.wing_level) << byte;
    }
    sources.list[slot] = source;
}
