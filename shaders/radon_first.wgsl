// One invocation: two neighbouring nodes of the first level that is kept, sums over digital lines of 4 or 6 pixels.
// In: an image, its rows those of the octant. Out: nodes [start, shift, column], as shared/radon.wgsl reads them.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/tile.rs, `View`.

override WORKGROUP: u32;
/// Two neighbours in a word.
override PACKED: bool;

struct Params {
    /// The octant's view of the frame.
    rows: i32,
    columns: i32,
    mirrored: u32,
    /// The level.
    height: i32,
    start_step: i32,
    first_shift: i32,
    n_shifts: i32,
    pad: i32,
    stride: i32,
    /// Values beyond ± this count as this.
    limit: f32,
    /// They count as the nearest whole number of steps, of which a value of one has so many; 0 where they count as they
    /// are.
    per_step: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> image: array<f32>;
@group(0) @binding(2) var<storage, read_write> nodes: array<i32>;

/// A pixel of the octant's view.
fn pixel(row: i32, column: i32) -> f32 {
    if row >= params.rows || column < 0 || column >= params.columns {
        return 0.0;
    }
    let x = select(column, params.columns - 1 - column, params.mirrored != 0u);
    let value = clamp(image[row * params.columns + x], -params.limit, params.limit);
    return select(value, round(value * params.per_step), params.per_step > 0.0);
}

/// The sum over a digital line.
fn sum_along(row: i32, shift: i32, column: i32) -> f32 {
    let half = params.height / 2;
    let lower_shift = shift / 2;
    var sums = vec2<f32>(0.0);
    for (var k = 0; k < half; k++) {
        // The digital line of half the height: one row, two or three.
        let there = column + (k * lower_shift + 1) / 2;
        sums += vec2(pixel(row + k, there), pixel(row + half + k, there + (shift + 1) / 2));
    }
    return sums.x + sums.y;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let x = 2 * i32(id.x);
    if x >= params.stride {
        return;
    }
    let shift = params.first_shift + i32(id.y);
    let row = i32(id.z) * params.start_step;
    let column = x - params.pad;
    let sums = vec2(sum_along(row, shift, column), sum_along(row, shift, column + 1));
    let i = (i32(id.z) * params.n_shifts + i32(id.y)) * params.stride + x;
    if PACKED {
        nodes[i >> 1u] = i32(sums.x) + 65536 * i32(sums.y);
    } else {
        nodes[i] = bitcast<i32>(sums.x);
        nodes[i + 1] = bitcast<i32>(sums.y);
    }
}
