// One invocation: one pixel; gives it weight zero where it stands alone above its neighbours.
// In: residuals. In and out: weights, of which an invocation reads and writes its own only.
// docs/algorithm.md, "Weigh". CPU twin: backend/cpu/compact.rs, `weigh_out_hot`.

override WORKGROUP: u32;

struct Params {
    width: u32,
    height: u32,
    threshold: f32,
    ratio: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> residual: array<f32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;

/// Beyond the border is dark.
fn residual_at(x: i32, y: i32) -> f32 {
    if x < 0 || y < 0 || x >= i32(params.width) || y >= i32(params.height) {
        return 0.0;
    }
    return residual[u32(y) * params.width + u32(x)];
}

/// Fifth smallest of the eight neighbours.
fn median_around(x: i32, y: i32) -> f32 {
    var sorted: array<f32, 8>;
    var n = 0;
    for (var k = 0; k < 9; k++) {
        if k == 4 {
            continue;
        }
        let value = residual_at(x + k % 3 - 1, y + k / 3 - 1);
        var slot = n;
        while slot > 0 && sorted[slot - 1] > value {
            sorted[slot] = sorted[slot - 1];
            slot--;
        }
        sorted[slot] = value;
        n++;
    }
    return sorted[4];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width || id.y >= params.height {
        return;
    }
    let i = id.y * params.width + id.x;
    let w = weights[i];
    let value = residual[i];
    if w <= 0.0 || value <= 0.0 || value * value * w <= params.threshold * params.threshold {
        return;
    }
    if value > params.ratio * max(median_around(i32(id.x), i32(id.y)), 0.0) {
        weights[i] = 0.0;
    }
}
