// What all kernels that multiply rows of weights with few rows of an input are made of. A team of invocations multiplies four
// rows of weights at once, so that it loads the input once for them.

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
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// The first of a workgroup's rows.
fn first_row_of(group: u32) -> u32 {
    return group * (GROUP_LEN / TEAM_LEN * TEAM_ROWS);
}

// Where the four rows of weights from `row` on begin in the buffer. Those past the last are as the last.
fn blocks_of(row: u32) -> vec4<u32> {
    let rows = vec4(params.first_row) + min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(params.n_rows - 1u));
    return rows * params.n_blocks;
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
