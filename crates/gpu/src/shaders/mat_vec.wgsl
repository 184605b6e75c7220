// Products of a matrix with rows of an input, one row of weights by a workgroup for each: for rows whose length `rows.wgsl`
// and `gemm.wgsl` can't take. The order of a sum depends on the length of the row alone.
//
// A decoder gives `BLOCK_LEN` and `decode4(block, i)`: the weights i to i + 3 of a block, where i is a multiple of 4.

override GROUP_LEN: u32;

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

var<workgroup> partial: array<f32, GROUP_LEN>;

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
    var sum = 0.0;
    for (var i = 4u * local; i < params.row_len; i += 4u * GROUP_LEN) {
        let decoded = decode4(first_block + i / BLOCK_LEN, i % BLOCK_LEN);
        if i + 4u <= params.row_len {
            sum += dot(decoded, vec4(x[first + i], x[first + i + 1u], x[first + i + 2u], x[first + i + 3u]));
        } else {
            // Rows of single numbers may end anywhere; what comes after is of another row.
            for (var j = 0u; i + j < params.row_len; j += 1u) {
                sum += decoded[j] * x[first + i + j];
            }
        }
    }
    partial[local] = sum;
    workgroupBarrier();
    for (var n = GROUP_LEN / 2u; n > 0u; n /= 2u) {
        if local < n {
            partial[local] += partial[local + n];
        }
        workgroupBarrier();
    }
    if local == 0u {
        var product = partial[0];
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
