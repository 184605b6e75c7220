// `acc[rows[i]] += weights[i] · x[i]`: the notes have rows and weights. No row is there twice, so that no two
// invocations add to one value.

struct Params {
    len: u32,
    width: u32,
    rows_at: u32,
    weights_at: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> acc: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> notes: array<u32>;

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
    let weight = bitcast<f32>(notes[params.weights_at + row]);
    acc[notes[params.rows_at + row] * params.width + i % params.width] += weight * x[i];
}
