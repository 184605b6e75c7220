// Products with the matrices of the experts that rows go to, where many rows go to each: a workgroup computes a tile of 64 rows
// of an expert's weights by 64 *pairs* of a row with that expert, in the order that `expert_order` has made. Rows of weights that
// this buffer lacks are left to the run with the buffer that has them.

struct Params {
    rows: ExpertRows,
    n_rows: u32,
    n_blocks: u32,
    row_len: u32,
    // Pairs that have a row of the input in common.
    in_input: u32,
    has_bias: u32,
    // Tiles of pairs: what the order begins with is the expert of each.
    n_tiles: u32,
}

var<immediate> params: Params;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> order: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> notes: array<u32>;

// Of a tile, the pair in a place; NOWHERE if there is none.
fn pair_of(tile: u32, i: u32) -> u32 {
    return order[params.n_tiles + tile * TILE + i];
}

fn store(expert: u32, pair: u32, row: u32, sum: f32) {
    if pair == NOWHERE || row >= params.n_rows || row_here(params.rows, expert, row) >= params.rows.n_here {
        return;
    }
    var product = sum;
    if params.has_bias == 1u {
        product += bias[expert * params.n_rows + row];
    }
    out[pair * params.n_rows + row] = product;
}

fn store_four(expert: u32, pair: u32, row: u32, sums: vec4<f32>) {
    store(expert, pair, row, sums.x);
    store(expert, pair, row + 16u, sums.y);
    store(expert, pair, row + 32u, sums.z);
    store(expert, pair, row + 48u, sums.w);
}

// Where a row of weights begins, or another where this buffer lacks it: its products are left out.
fn first_block(expert: u32, row: u32) -> u32 {
    let here = row_here(params.rows, expert, min(row, params.n_rows - 1u));
    return (params.rows.first_in_buffer + min(here, params.rows.n_here - 1u)) * params.n_blocks;
}

// Where the input of a place begins, in fours.
fn first_input(tile: u32, i: u32) -> u32 {
    let pair = pair_of(tile, i);
    return select(pair, pair_of(tile, 0u), pair == NOWHERE) / params.in_input * input_stride(params.row_len);
}

fn multiply_tile(id: vec3<u32>, groups: vec3<u32>, local: u32, subgroup: u32) {
    let first_row = group_number(id, groups) * TILE;
    let tile = id.z;
    // The same for all invocations: a load of a workgroup's number.
    let expert = order[tile];
    if first_row >= params.n_rows || expert == NOWHERE {
        return;
    }
    let brought = rows_brought(local);
    let blocks = vec2(first_block(expert, first_row + brought.x), first_block(expert, first_row + brought.y));
    let inputs = vec2(first_input(tile, brought.x), first_input(tile, brought.y));
    // The pairs of a tile come first in it.
    var n_left = TILE;
    if pair_of(tile, 16u) == NOWHERE {
        n_left = 16u;
    } else if pair_of(tile, 32u) == NOWHERE {
        n_left = 32u;
    }
    let sums = sums_of_tile(blocks, inputs, params.row_len, n_left, local, subgroup);
    let row = first_row + local % 16u;
    let place = local / 16u;
    store_four(expert, pair_of(tile, place), row, sums[0]);
    store_four(expert, pair_of(tile, place + 16u), row, sums[1]);
    store_four(expert, pair_of(tile, place + 32u), row, sums[2]);
    store_four(expert, pair_of(tile, place + 48u), row, sums[3]);
}
