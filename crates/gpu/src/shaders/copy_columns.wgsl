// Copies `width` columns of each row.

struct Params {
    len: u32,
    width: u32,
    first_to: u32,
    stride_to: u32,
    first_from: u32,
    stride_from: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> to: array<f32>;
@group(0) @binding(1) var<storage, read> source: array<f32>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = value_number(id, groups, local);
    if i >= params.len {
        return;
    }
    let row = i / params.width;
    let column = i % params.width;
    to[params.first_to + row * params.stride_to + column] =
        source[params.first_from + row * params.stride_from + column];
}
