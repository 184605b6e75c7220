// What both kernels that multiply rows of weights with few rows of an input are made of. A team of invocations multiplies four
// rows of weights at once, so that it loads the input once for them: each invocation four numbers of each row, then those that
// come a team's length of fours later. Rows are a multiple of four numbers.
//
// A decoder gives `BLOCK_LEN` and `decode4(block, i)`: the weights i to i + 3 of a block, where i is a multiple of 4.

// Invocations of a team: a power of two, 4 to 64.
override TEAM_LEN: u32;

const GROUP_LEN: u32 = 64u;
const TEAM_ROWS: u32 = 4u;

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
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// The first of a workgroup's rows.
fn first_row_of(group: u32) -> u32 {
    return group * (GROUP_LEN / TEAM_LEN * TEAM_ROWS);
}

// Sums of what one invocation multiplies, `lane` in its team, of four rows from `row` on. Those past the last are as the last.
fn partial_products(row: u32, token: u32, lane: u32) -> vec4<f32> {
    let rows = vec4(params.first_row) + min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(params.n_rows - 1u));
    let blocks = rows * params.n_blocks;
    let first = token * (params.row_len / 4u);
    var sums = vec4(0.0);
    for (var i = 4u * lane; i < params.row_len; i += 4u * TEAM_LEN) {
        let input = x[first + i / 4u];
        let at = blocks + i / BLOCK_LEN;
        let in_block = i % BLOCK_LEN;
        sums += vec4(
            dot(decode4(at.x, in_block), input),
            dot(decode4(at.y, in_block), input),
            dot(decode4(at.z, in_block), input),
            dot(decode4(at.w, in_block), input),
        );
    }
    return sums;
}

// Stores the products of four rows: an invocation of the team for each.
fn store(first: u32, token: u32, lane: u32, products: vec4<f32>) {
    let row = first + lane;
    if lane >= TEAM_ROWS || row >= params.n_rows {
        return;
    }
    var product = products[lane];
    if params.has_bias == 1u {
        product += bias[params.first_bias + row];
    }
    let at = token * params.stride_out + params.first_out + row;
    if params.adds == 1u {
        product += out[at];
    }
    out[at] = product;
}
