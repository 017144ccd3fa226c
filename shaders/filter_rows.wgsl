// One workgroup: part of one row in the first, horizontal pass of the PSF filter, for values and for coverage.
// In: residuals, weights, taps of the filter then of the coverage. Out: both, convolved along the rows.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/filter.rs.

override WORKGROUP: u32;

/// Widest kernel on either side that fits.
const MOST_RADIUS = 64u;

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

/// Residual / noise, clipped, and 1 where the pixel is usable: of the row's part and a radius on either side.
var<workgroup> pixels: array<vec2<f32>, WORKGROUP + 2u * MOST_RADIUS>;
var<workgroup> both_taps: array<vec2<f32>, 2u * MOST_RADIUS + 1u>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = group.y * params.width;
    let first = i32(group.x * WORKGROUP) - i32(params.radius);
    for (var k = lid; k < WORKGROUP + 2u * params.radius; k += WORKGROUP) {
        let x = first + i32(k);
        // Missing pixels and the outside count as zero.
        var pixel = vec2(0.0);
        if x >= 0 && x < i32(params.width) {
            let i = row + u32(x);
            let usable = select(max(weights[i], 0.0), abs(weights[i]), params.with_saturated != 0u);
            if usable > 0.0 {
                pixel = vec2(clamp(residual[i] * sqrt(usable), -params.clip, params.clip), 1.0);
            }
        }
        pixels[k] = pixel;
    }
    let n_taps = 2u * params.radius + 1u;
    for (var k = lid; k < n_taps; k += WORKGROUP) {
        both_taps[k] = vec2(taps[k], taps[n_taps + k]);
    }
    workgroupBarrier();
    let x = group.x * WORKGROUP + lid;
    if x >= params.width {
        return;
    }
    var sums = vec2(0.0);
    for (var k = 0u; k < n_taps; k++) {
        sums += both_taps[k] * pixels[lid + k];
    }
    value_out[row + x] = sums.x;
    coverage_out[row + x] = sums.y;
}
