// One workgroup: one square of an image, turned over its diagonal.
// In: an image. Out: the same with rows and columns exchanged, for the octants whose lines are flatter than 45 degrees.
// docs/algorithm.md, "Search". CPU twin: backend/cpu/radon/mod.rs, `Tile`.

override WORKGROUP: u32;

/// Side of a square.
const SIDE = 32u;

struct Params {
    width: u32,
    height: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> image: array<f32>;
@group(0) @binding(2) var<storage, read_write> turned: array<f32>;

// A column more than needed: the columns of the square then lie in different banks.
var<workgroup> square: array<array<f32, 33>, SIDE>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let column = lid % SIDE;
    for (var row = lid / SIDE; row < SIDE; row += WORKGROUP / SIDE) {
        let x = group.x * SIDE + column;
        let y = group.y * SIDE + row;
        if x < params.width && y < params.height {
            square[row][column] = image[y * params.width + x];
        }
    }
    workgroupBarrier();
    for (var row = lid / SIDE; row < SIDE; row += WORKGROUP / SIDE) {
        let x = group.x * SIDE + row;
        let y = group.y * SIDE + column;
        if x < params.width && y < params.height {
            turned[x * params.height + y] = square[column][row];
        }
    }
}
