// Makes vectors of length 1 where they are, the first few of each row: a workgroup does a vector.

struct Params {
    n_groups: u32,
    first_row: u32,
    in_row: u32,
    len: u32,
    // From a row to the next.
    stride: u32,
    eps: f32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = group_number(id, groups);
    if group >= params.n_groups {
        return;
    }
    let row = params.first_row + group / params.in_row;
    let first = row * params.stride + group % params.in_row * params.len;
    var sum = 0.0;
    for (var i = local; i < params.len; i += 64u) {
        sum += x[first + i] * x[first + i];
    }
    partial[local] = sum;
    workgroupBarrier();
    for (var n = 32u; n > 0u; n /= 2u) {
        if local < n {
            partial[local] += partial[local + n];
        }
        workgroupBarrier();
    }
    let factor = 1.0 / sqrt(partial[0] + params.eps);
    for (var i = local; i < params.len; i += 64u) {
        x[first + i] *= factor;
    }
}
