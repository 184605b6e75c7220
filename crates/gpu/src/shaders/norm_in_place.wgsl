// `x = norm(x)`, of each of `n_parts` equal parts of a row by itself, with weights of its own: a workgroup norms a part.

struct Params {
    n_parts_in_all: u32,
    n_parts: u32,
    part_len: u32,
    eps: f32,
    has_bias: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let part = group_number(id, groups);
    if part >= params.n_parts_in_all {
        return;
    }
    let first = part * params.part_len;
    let first_weight = part % params.n_parts * params.part_len;
    let found = moments(first, params.part_len, params.eps, local);
    for (var i = local; i < params.part_len; i += 256u) {
        var value = (x[first + i] - found.x) * (found.y * weight[first_weight + i]);
        if params.has_bias == 1u {
            value += bias[first_weight + i];
        }
        x[first + i] = value;
    }
}
