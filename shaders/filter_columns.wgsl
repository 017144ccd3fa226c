// One invocation: four pixels below each other in the second, vertical pass of the PSF filter, for values and for coverage.
// In: what filter_rows.wgsl gave, the same taps. Out: filtered image and coverage.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/filter.rs.

override WORKGROUP: u32;

/// Pixels of one invocation: each row is read once for all of them.
const ROWS = 4u;

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
    let n_taps = 2u * params.radius + 1u;
    let top = i32(id.y * ROWS);
    // Taps that the row at hand has for each of the four pixels: from row to row they move on by one.
    var value_taps = vec4<f32>(0.0);
    var coverage_taps = vec4<f32>(0.0);
    var value = vec4<f32>(0.0);
    var covered = vec4<f32>(0.0);
    for (var k = 0u; k < n_taps + ROWS - 1u; k++) {
        var next = vec2<f32>(0.0);
        if k < n_taps {
            next = vec2(taps[k], taps[n_taps + k]);
        }
        value_taps = vec4(next.x, value_taps.xyz);
        coverage_taps = vec4(next.y, coverage_taps.xyz);
        let y = top + i32(k) - i32(params.radius);
        if y >= 0 && y < i32(params.height) {
            let i = u32(y) * params.width + id.x;
            value += value_taps * value_in[i];
            covered += coverage_taps * coverage_in[i];
        }
    }
    for (var row = 0u; row < min(ROWS, params.height - id.y * ROWS); row++) {
        let i = (id.y * ROWS + row) * params.width + id.x;
        filtered[i] = value[row];
        coverage[i] = covered[row];
    }
}
