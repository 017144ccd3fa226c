// One workgroup: one footprint; gives weight zero to every pixel within it.
// In: footprints. In and out: weights.
// docs/algorithm.md, "Weigh". CPU twin: backend/cpu/compact.rs, `weigh_out`.

override WORKGROUP: u32;

struct Params {
    width: u32,
    height: u32,
    first: u32,
}

struct Footprint {
    x: f32,
    y: f32,
    radius: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> footprints: array<Footprint>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let f = footprints[params.first + group.x];
    let border = vec2(f32(params.width), f32(params.height)) - 1.0;
    let centre = vec2(f.x, f.y);
    let low = vec2<i32>(max(ceil(centre - f.radius), vec2(0.0)));
    let high = vec2<i32>(min(floor(centre + f.radius), border));
    if any(high < low) {
        return;
    }
    let columns = u32(high.x - low.x + 1);
    let rows = u32(high.y - low.y + 1);
    for (var k = lid; k < columns * rows; k += WORKGROUP) {
        let x = u32(low.x) + k % columns;
        let y = u32(low.y) + k / columns;
        let d = vec2(f32(x), f32(y)) - centre;
        if dot(d, d) <= f.radius * f.radius {
            // Footprints overlap: whoever comes, writes the same.
            weights[y * params.width + x] = 0.0;
        }
    }
}
