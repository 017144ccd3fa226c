// One invocation: one pixel of the second, vertical pass of the PSF filter, for values and for coverage.
// In: what filter_rows.wgsl gave, the same taps. Out: filtered image and coverage.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/filter.rs.

override WORKGROUP: u32;

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
    var value = 0.0;
    var covered = 0.0;
    let first = params.radius - min(params.radius, id.y);
    let last = min(n_taps, params.height + params.radius - id.y);
    for (var k = first; k < last; k++) {
        let i = (id.y + k - params.radius) * params.width + id.x;
        value += taps[k] * value_in[i];
        covered += taps[n_taps + k] * coverage_in[i];
    }
    let pixel = id.y * params.width + id.x;
    filtered[pixel] = value;
    coverage[pixel] = covered;
}
