// One invocation: a few pixels below each other in the second, vertical pass of the PSF filter, for values and for coverage.
// In: what filter_rows.wgsl gave, the same taps. Out: filtered image and coverage.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/filter.rs.

override WORKGROUP: u32;

/// Pixels of one invocation: each row is read for all of them at once.
const ROWS = 8u;

struct Params {
    width: u32,
    height: u32,
    radius: u32,
    with_saturated: u32,
    clip: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> taps: array<f32>;
@group(0) @binding(2) var<storage, read> value_in: array<f32>;
@group(0) @binding(3) var<storage, read> coverage_in: array<f32>;
@group(0) @binding(4) var<storage, read_write> filtered: array<f32>;
@group(0) @binding(5) var<storage, read_write> coverage: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let n_taps = i32(2u * params.radius + 1u);
    let top = i32(id.y * ROWS);
    var sums = array<vec2<f32>, ROWS>();
    for (var k = 0; k < n_taps + i32(ROWS) - 1; k++) {
        let y = top + k - i32(params.radius);
        if y >= 0 && y < i32(params.height) {
            let i = u32(y) * params.width + id.x;
            let pixel = vec2(value_in[i], coverage_in[i]);
            for (var row = 0; row < i32(ROWS); row++) {
                let tap = k - row;
                if tap >= 0 && tap < n_taps {
                    sums[row] += vec2(taps[tap], taps[n_taps + tap]) * pixel;
                }
            }
        }
    }
    for (var row = 0u; row < ROWS; row++) {
        let y = id.y * ROWS + row;
        if y < params.height {
            filtered[y * params.width + id.x] = sums[row].x;
            coverage[y * params.width + id.x] = sums[row].y;
        }
    }
}
