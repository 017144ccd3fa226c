// One workgroup: so many bins of one track side by side, each the light in one row (or column) of the frame near the
// track.
// In: residuals, weights, tracks, parts of them. Out: signal and variance of each bin.
// docs/algorithm.md, "Measure". CPU twin: backend/cpu/profile.rs.

override WORKGROUP: u32;

const INV_SQRT_TAU = 0.3989423;
/// Places across the bins are counted in parts of a pixel, and what is left over: as good in the last bin as in the first.
const FIXED_BITS = 24u;
const FIXED = 16777216;

struct Params {
    width: u32,
    height: u32,
    n_parts: u32,
    row_of_groups: u32,
    sigma: f32,
}

struct Track {
    along_x: u32,
    /// Pixels looked at on either side.
    half_width: i32,
    /// Cosine between the track and the axis of its bins.
    along: f32,
    /// Pixels across from one bin to the next, fixed, and what is left over.
    slope: i32,
    slope_rest: f32,
}

/// A workgroup's bins.
struct Part {
    track: u32,
    n_bins: u32,
    /// Row or column of the frame of the first bin.
    first: i32,
    /// Where the track passes it: pixel, and how far beyond that, fixed, and what is left over.
    pixel: i32,
    beyond: i32,
    beyond_rest: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> residual: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> tracks: array<Track>;
@group(0) @binding(4) var<storage, read> parts: array<Part>;
@group(0) @binding(5) var<storage, read_write> sums: array<vec2<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let part_index = group.y * params.row_of_groups + group.x;
    if part_index >= params.n_parts {
        return;
    }
    let part = parts[part_index];
    if lid >= part.n_bins {
        return;
    }
    let track = tracks[part.track];
    let axis = part.first + i32(lid);
    // The pixel nearest to the track's centre, and its distance from that.
    let place = part.beyond + i32(lid) * track.slope + FIXED / 2;
    let middle = part.pixel + (place >> FIXED_BITS);
    let fixed = f32(FIXED / 2 - (place & (FIXED - 1))) / f32(FIXED);
    let from_centre = fixed - part.beyond_rest - f32(lid) * track.slope_rest;
    let along_x = track.along_x != 0u;
    let size = vec2(i32(params.width), i32(params.height));
    let sides = select(size.yx, size, along_x);
    var sum = vec2(0.0);
    if axis >= 0 && axis < sides.x {
        let first = max(middle - track.half_width, 0);
        let last = min(middle + track.half_width, sides.y - 1);
        for (var b = first; b <= last; b++) {
            let v = (f32(b - middle) + from_centre) * track.along / params.sigma;
            let g = INV_SQRT_TAU / params.sigma * exp(-0.5 * v * v);
            let pixel = select(axis * size.x + b, b * size.x + axis, along_x);
            let w = max(weights[pixel], 0.0);
            sum += vec2(w * residual[pixel] * g, w * g * g);
        }
    }
    sums[part_index * WORKGROUP + lid] = sum;
}
