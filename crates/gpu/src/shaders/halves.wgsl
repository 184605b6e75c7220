// Rows of floats as numbers of half precision, for products of small matrices. A row is scaled by a power of two, which rounds
// nothing, so that its largest number is below 1024: no number is too large then, and those that lose bits are too small to
// matter. The exponent follows the row, in a four of its own.

enable f16;

struct Params {
    n_rows: u32,
    first_row: u32,
    row_len: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> out: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;

var<workgroup> largest: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = group_number(id, groups);
    if group >= params.n_rows {
        return;
    }
    let row = params.first_row + group;
    let n_fours = params.row_len / 4u;
    var most = vec4(0.0);
    for (var i = local; i < n_fours; i += 256u) {
        most = max(most, abs(x[row * n_fours + i]));
    }
    largest[local] = max(max(most.x, most.y), max(most.z, most.w));
    workgroupBarrier();
    for (var n = 128u; n > 0u; n /= 2u) {
        if local < n {
            largest[local] = max(largest[local], largest[local + n]);
        }
        workgroupBarrier();
    }
    // Bounded, so that the factor is a float where all are zero, and where one is infinite.
    let exponent = clamp(i32(bitcast<u32>(largest[0]) >> 23u) - 127, -100, 127) - 9;
    let factor = bitcast<f32>(u32(127 - exponent) << 23u);
    let first_out = row * (n_fours + 1u);
    for (var i = local; i < n_fours; i += 256u) {
        out[first_out + i] = vec4<f16>(x[row * n_fours + i] * factor);
    }
    if local == 0u {
        out[first_out + n_fours] = vec4<f16>(f16(exponent));
    }
}
