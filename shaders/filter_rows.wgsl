// One invocation: one pixel of the first, horizontal pass of the PSF filter, for values and for coverage.
// In: residuals, weights, taps of the filter then of the coverage. Out: both, convolved along the rows.
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
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> value_out: array<f32>;
@group(0) @binding(5) var<storage, read_write> coverage_out: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let n_taps = 2u * params.radius + 1u;
    let row = id.y * params.width;
    var value = 0.0;
    var coverage = 0.0;
    // Missing pixels and the outside count as zero.
    let first = params.radius - min(params.radius, id.x);
    let last = min(n_taps, params.width + params.radius - id.x);
    for (var k = first; k < last; k++) {
        let i = row + id.x + k - params.radius;
        let usable = select(max(weights[i], 0.0), abs(weights[i]), params.with_saturated != 0u);
        if usable > 0.0 {
            value += taps[k] * clamp(residual[i] * sqrt(usable), -params.clip, params.clip);
            coverage += taps[n_taps + k];
        }
    }
    value_out[row + id.x] = value;
    coverage_out[row + id.x] = coverage;
}
