// Products of a matrix with many rows of an input: a workgroup computes a tile of 64 rows of weights by 64 of the input,
// each of its 16 times 16 invocations four by four of them. Both are brought to shared memory 32 numbers of a row at a time.
//
// A product is summed up in the order of its row, four numbers after four, so that it doesn't depend on what else is in a
// tile. Rows are a multiple of 32 numbers; those past the last are computed as the last is, and left out.

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

const TILE: u32 = 64u;
const STEP: u32 = 32u;
const FOURS: u32 = STEP / 4u;

var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// 16 KiB together, all that WebGPU promises.
var<workgroup> tile_w: array<vec4<f32>, FOURS * TILE>;
var<workgroup> tile_x: array<vec4<f32>, FOURS * TILE>;

// Where the four numbers `four` of a row lie. Neither invocations that store fours of one row nor those that load one of
// consecutive rows meet in a bank of the memory.
fn place(four: u32, row: u32) -> u32 {
    return four * TILE + (row ^ four);
}

// Products of four rows of weights, which are the columns after transposition, with one of the input.
fn add_products(sums: vec4<f32>, w: mat4x4<f32>, x: vec4<f32>) -> vec4<f32> {
    return fma(w[3], vec4(x.w), fma(w[2], vec4(x.z), fma(w[1], vec4(x.y), fma(w[0], vec4(x.x), sums))));
}

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

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first_row = group_number(id, groups) * TILE;
    if first_row >= params.n_rows {
        return;
    }
    let first_token = id.z * TILE;
    let n_left = params.n_tokens - first_token;

    // What this invocation brings: a four of two rows of each.
    let four = local % FOURS;
    let in_tile = vec2(local / FOURS, local / FOURS + TILE / 2u);
    let rows = min(vec2(first_row) + in_tile, vec2(params.n_rows - 1u));
    let blocks = (vec2(params.first_row) + rows) * params.n_blocks;
    let tokens = min(vec2(first_token) + in_tile, vec2(params.n_tokens - 1u));
    let inputs = (vec2(params.first_token) + tokens) * (params.row_len / 4u);

    // What it computes: four rows of weights and four of the input, each 16 apart.
    let row = local % 16u;
    let token = local / 16u;
    var sums0 = vec4(0.0);
    var sums1 = vec4(0.0);
    var sums2 = vec4(0.0);
    var sums3 = vec4(0.0);
    for (var first = 0u; first < params.row_len; first += STEP) {
        let k = first + four * 4u;
        tile_w[place(four, in_tile.x)] = decode4(blocks.x + k / BLOCK_LEN, k % BLOCK_LEN);
        tile_w[place(four, in_tile.y)] = decode4(blocks.y + k / BLOCK_LEN, k % BLOCK_LEN);
        tile_x[place(four, in_tile.x)] = x[inputs.x + k / 4u];
        tile_x[place(four, in_tile.y)] = x[inputs.y + k / 4u];
        workgroupBarrier();
        for (var i = 0u; i < FOURS; i += 1u) {
            let w = transpose(mat4x4(
                tile_w[place(i, row)],
                tile_w[place(i, row + 16u)],
                tile_w[place(i, row + 32u)],
                tile_w[place(i, row + 48u)],
            ));
            sums0 = add_products(sums0, w, tile_x[place(i, token)]);
            // A short prompt fills a part of a tile. The order of sums is the same in every part.
            if n_left > 16u {
                sums1 = add_products(sums1, w, tile_x[place(i, token + 16u)]);
                if n_left > 32u {
                    sums2 = add_products(sums2, w, tile_x[place(i, token + 32u)]);
                    sums3 = add_products(sums3, w, tile_x[place(i, token + 48u)]);
                }
            }
        }
        workgroupBarrier();
    }
    store_four(first_token + token, first_row + row, sums0);
    store_four(first_token + token + 16u, first_row + row, sums1);
    store_four(first_token + token + 32u, first_row + row, sums2);
    store_four(first_token + token + 48u, first_row + row, sums3);
}
