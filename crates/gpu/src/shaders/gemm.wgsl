// Products of a matrix with many rows of an input. Rows past the last are computed as the last is, and left out.

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
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

fn store(token: u32, row: u32, sum: f32) {
    if token >= params.n_tokens || row >= params.n_rows {
        return;
    }
    var product = sum;
    if params.has_bias == 1u {
        product += bias[params.first_bias + row];
    }
    let at = (params.first_token + token) * params.stride_out + params.first_out + row;
    if params.adds == 1u {
        product += out[at];
    }
    out[at] = product;
}

fn store_four(token: u32, row: u32, sums: vec4<f32>) {
    store(token, row, sums.x);
    store(token, row + 16u, sums.y);
    store(token, row + 32u, sums.z);
    store(token, row + 48u, sums.w);
}

fn multiply_tile(id: vec3<u32>, groups: vec3<u32>, local: u32, subgroup: u32) {
    let first_row = group_number(id, groups) * TILE;
    if first_row >= params.n_rows {
        return;
    }
    let first_token = id.z * TILE;
    let n_left = params.n_tokens - first_token;

    let brought = rows_brought(local);
    let rows = min(vec2(first_row) + brought, vec2(params.n_rows - 1u));
    let blocks = (vec2(params.first_row) + rows) * params.n_blocks;
    let tokens = min(vec2(first_token) + brought, vec2(params.n_tokens - 1u));
    let inputs = (vec2(params.first_token) + tokens) * input_stride(params.row_len);
    let sums = sums_of_tile(blocks, inputs, params.row_len, n_left, local, subgroup);
    let row = first_row + local % 16u;
    let token = first_token + local / 16u;
    store_four(token, row, sums[0]);
    store_four(token + 16u, row, sums[1]);
    store_four(token + 32u, row, sums[2]);
    store_four(token + 48u, row, sums[3]);
}
