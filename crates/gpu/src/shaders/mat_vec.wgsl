// Products of a matrix with rows of an input, one row of weights by a workgroup for each: for rows whose length `rows.wgsl`
// and `gemm.wgsl` can't take. The order of a sum depends on the length of the row alone.
//
// A decoder gives `BLOCK_LEN` and `decode4(block, i)`: the weights i to i + 3 of a block, where i is a multiple of 4.

struct Params {
    // Rows of weights, the first of them in the buffer, and blocks of each.
    n_rows: u32,
    first_row: u32,
    n_blocks: u32,
    row_len: u32,
    // Where the first row's product goes in a row of `out`, and how long that is.
    first_out: u32,
    stride_out: u32,
    first_bias: u32,
    has_bias: u32,
    adds: u32,
    first_token: u32,
    n_tokens: u32,
}

var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(GROUP_LEN)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group_number(id, groups);
    if row >= params.n_rows {
        return;
    }
    let token = params.first_token + id.z;
    let first_block = (params.first_row + row) * params.n_blocks;
    let first = token * params.row_len;
    let sum = sum_of_group(share_of_dot(first_block, first, params.row_len, local), local);
    if local == 0u {
        var product = sum;
        if params.has_bias == 1u {
            product += bias[params.first_bias + row];
        }
        let at = token * params.stride_out + params.first_out + row;
        if params.adds == 1u {
            product += out[at];
        }
        out[at] = product;
    }
}
