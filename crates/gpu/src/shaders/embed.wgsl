// `out[i] = scale · table[ids[i]]`, for ids whose rows this buffer has: an invocation decodes four weights, `len` times four
// in all.

struct Params {
    len: u32,
    row_len: u32,
    n_blocks: u32,
    ids_at: u32,
    // Ids of which the buffer has rows, and the row of the first.
    first_id: u32,
    n_ids: u32,
    first_row: u32,
    scale: f32,
}

var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> notes: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = value_number(id, groups, local);
    if number >= params.len {
        return;
    }
    let fours = (params.row_len + 3u) / 4u;
    let row = number / fours;
    let i = number % fours * 4u;
    // Below the first id this is a large number.
    let in_part = notes[params.ids_at + row] - params.first_id;
    if in_part >= params.n_ids {
        return;
    }
    let block = (params.first_row + in_part) * params.n_blocks + i / BLOCK_LEN;
    let decoded = params.scale * decode4(block, i % BLOCK_LEN);
    for (var j = 0u; j < min(4u, params.row_len - i); j += 1u) {
        out[row * params.row_len + i + j] = decoded[j];
    }
}
