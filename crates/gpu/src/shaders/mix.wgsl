// `out[row] += Σ share · x`, over what the experts of a row made of it, in the order of their numbers.

struct Params {
    len: u32,
    width: u32,
    n_used: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> shares: array<f32>;

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
    let first = i / params.width * params.n_used;
    let column = i % params.width;
    var sum = out[i];
    for (var pair = first; pair < first + params.n_used; pair += 1u) {
        sum += shares[pair] * x[pair * params.width + column];
    }
    out[i] = sum;
}
