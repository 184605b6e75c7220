// `x[row] *= factors[row]`: the notes have the factors from `factors_at` on.

struct Params {
    len: u32,
    width: u32,
    factors_at: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read> notes: array<u32>;

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
    x[i] *= bitcast<f32>(notes[params.factors_at + i / params.width]);
}
