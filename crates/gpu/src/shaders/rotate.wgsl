// Rotates pairs of values of every head of every row by the angles of the row: `n_pairs` cosines, then as many sines.
// An invocation turns a pair, `len` of them in all.

struct Params {
    len: u32,
    n_pairs: u32,
    n_heads: u32,
    head_len: u32,
    // From the first value of a pair to the second, and from a pair to the next.
    partner: u32,
    step: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read> angles: array<f32>;

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
    let pair = i % params.n_pairs;
    let head = i / params.n_pairs;
    let angle = head / params.n_heads * 2u * params.n_pairs + pair;
    let cosine = angles[angle];
    let sine = angles[angle + params.n_pairs];
    let first = head * params.head_len + pair * params.step;
    let a = x[first];
    let b = x[first + params.partner];
    x[first] = a * cosine - b * sine;
    x[first + params.partner] = a * sine + b * cosine;
}
