// One invocation: one node of a task's first level, the sum of one or three pixels.
// In: an image, read through the octant's strides. Out: nodes [start, shift, column].
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/mod.rs, `Tile`.

override WORKGROUP: u32;

struct Params {
    /// The octant's view of the frame.
    rows: i32,
    columns: i32,
    origin: i32,
    row_stride: i32,
    column_stride: i32,
    /// The level.
    height: i32,
    start_step: i32,
    first_shift: i32,
    n_shifts: i32,
    pad: i32,
    stride: i32,
    /// Values beyond ± this count as this.
    limit: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> image: array<f32>;
@group(0) @binding(2) var<storage, read_write> nodes: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let x = i32(id.x);
    if x >= params.stride {
        return;
    }
    let shift = params.first_shift + i32(id.y);
    let first_row = i32(id.z) * params.start_step;
    var sum = 0.0;
    for (var k = 0; k < min(params.height, params.rows - first_row); k++) {
        // The digital line of one row, or of three: 0, ⌈shift / 2⌉, shift.
        let column = x - params.pad + (k * shift + 1) / 2;
        if column >= 0 && column < params.columns {
            let value = image[params.origin + (first_row + k) * params.row_stride + column * params.column_stride];
            sum += clamp(value, -params.limit, params.limit);
        }
    }
    nodes[(i32(id.z) * params.n_shifts + i32(id.y)) * params.stride + x] = sum;
}
