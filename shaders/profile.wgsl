// One invocation: one bin of one track, the light in one row (or column) of the frame near the track.
// In: residuals, weights, tracks, bins with the track's place in them. Out: signal and variance of each bin.
// docs/algorithm.md, "Measure". CPU twin: backend/cpu/profile.rs.

override WORKGROUP: u32;

const INV_SQRT_TAU = 0.3989423;

struct Params {
    width: u32,
    height: u32,
    n_bins: u32,
    row_of_groups: u32,
    sigma: f32,
}

struct Track {
    along_x: u32,
    /// Pixels looked at on either side.
    half_width: i32,
    /// Cosine between the track and the axis of its bins.
    along: f32,
}

struct Bin {
    track: u32,
    /// Row or column of the frame.
    axis: i32,
    /// Pixel across it nearest to the track, and its distance from the track's centre, px.
    middle: i32,
    from_centre: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> residual: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> tracks: array<Track>;
@group(0) @binding(4) var<storage, read> bins: array<Bin>;
@group(0) @binding(5) var<storage, read_write> sums: array<vec2<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (group.y * params.row_of_groups + group.x) * WORKGROUP + lid;
    if i >= params.n_bins {
        return;
    }
    let bin = bins[i];
    let track = tracks[bin.track];
    let along_x = track.along_x != 0u;
    let size = vec2(i32(params.width), i32(params.height));
    let sides = select(size.yx, size, along_x);
    var sum = vec2(0.0);
    if bin.axis >= 0 && bin.axis < sides.x {
        let first = max(bin.middle - track.half_width, 0);
        let last = min(bin.middle + track.half_width, sides.y - 1);
        for (var b = first; b <= last; b++) {
            let v = (f32(b - bin.middle) + bin.from_centre) * track.along / params.sigma;
            let g = INV_SQRT_TAU / params.sigma * exp(-0.5 * v * v);
            let pixel = select(bin.axis * size.x + b, b * size.x + bin.axis, along_x);
            let w = max(weights[pixel], 0.0);
            sum += vec2(w * residual[pixel] * g, w * g * g);
        }
    }
    sums[i] = sum;
}
