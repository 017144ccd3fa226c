// One invocation: one pixel, from its raw bits to a value and a weight.
// In: raw pixels as the sensor gave them (packed into words), the mask as bits. Out: value; weight 1 usable,
// 0 missing, −1 saturated.
// docs/algorithm.md, "Ingest". CPU twin: backend/cpu/ingest.rs.

override WORKGROUP: u32;

struct Params {
    width: u32,
    /// Number of FORMAT_*.
    format: u32,
    has_mask: u32,
    has_saturation: u32,
    saturation: f32,
    has_blank: u32,
    blank: i32,
}

const FORMAT_U8 = 0u;
const FORMAT_U16 = 1u;
const FORMAT_I16 = 2u;
const FORMAT_I32 = 3u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> raw: array<u32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;
@group(0) @binding(4) var<storage, read_write> weights: array<f32>;

fn integer(i: u32) -> i32 {
    switch params.format {
        case FORMAT_U8: {
            return i32((raw[i / 4u] >> (8u * (i % 4u))) & 0xffu);
        }
        case FORMAT_U16: {
            return i32((raw[i / 2u] >> (16u * (i % 2u))) & 0xffffu);
        }
        case FORMAT_I16: {
            return extractBits(bitcast<i32>(raw[i / 2u]), 16u * (i % 2u), 16u);
        }
        default: {
            return bitcast<i32>(raw[i]);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width {
        return;
    }
    let i = id.y * params.width + id.x;
    var value: f32;
    var missing: bool;
    if params.format <= FORMAT_I32 {
        let exact = integer(i);
        value = f32(exact);
        missing = params.has_blank != 0u && exact == params.blank;
    } else {
        // NaN and infinity have all exponent bits set; float comparisons may not tell them.
        missing = (raw[i] & 0x7f800000u) == 0x7f800000u;
        value = bitcast<f32>(select(raw[i], 0u, missing));
    }
    var weight = 1.0;
    if params.has_saturation != 0u && value >= params.saturation {
        weight = -1.0;
    }
    if missing {
        value = 0.0;
        weight = 0.0;
    }
    if params.has_mask != 0u && (mask[i / 32u] >> (i % 32u) & 1u) != 0u {
        weight = 0.0;
    }
    values[i] = value;
    weights[i] = weight;
}
