// Products with the matrices of the experts that rows go to: a workgroup does a row of weights for one expert of one row, a
// *pair*. The order of a sum depends on the length of the row alone. Rows of weights that this buffer lacks are left to the
// run with the buffer that has them.

struct Params {
    // Pairs times rows of weights of an expert.
    n_groups: u32,
    n_rows: u32,
    // Rows of the matrix of all that the buffer has: the first's number, how many, and the place of the first.
    first_here: u32,
    n_here: u32,
    first_in_buffer: u32,
    // Where the first expert's rows begin in the matrix, and from one expert's to the next one's.
    first_row: u32,
    stride: u32,
    n_blocks: u32,
    row_len: u32,
    // Pairs that have a row of the input in common.
    in_input: u32,
    has_bias: u32,
    // Where the notes have, for each expert, the row of the buffer at which it begins; NOWHERE if rows lie in it as in the
    // matrix.
    places_at: u32,
}

const NOWHERE: u32 = 0xffffffffu;

var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> chosen: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> notes: array<u32>;

// The row of a pair's product among those that the buffer has; a large number if it lacks it.
fn row_here(expert: u32, row: u32) -> u32 {
    if params.places_at == NOWHERE {
        // Below the first one here this is a large number.
        return params.first_row + expert * params.stride + row - params.first_here;
    }
    let first = notes[params.places_at + expert];
    return select(first + params.first_row + row, NOWHERE, first == NOWHERE);
}

@compute @workgroup_size(GROUP_LEN)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = group_number(id, groups);
    if group >= params.n_groups {
        return;
    }
    let pair = group / params.n_rows;
    let row = group % params.n_rows;
    let expert = chosen[pair];
    let here = row_here(expert, row);
    // No return where it is not: compilers want to see that all invocations come to a barrier.
    let is_here = here < params.n_here;
    let first_block = (params.first_in_buffer + here) * params.n_blocks;
    let first = pair / params.in_input * params.row_len;
    var share = 0.0;
    if is_here {
        share = share_of_dot(first_block, first, params.row_len, local);
    }
    let sum = sum_of_group(share, local);
    if local == 0u && is_here {
        var product = sum;
        if params.has_bias == 1u {
            product += bias[expert * params.n_rows + row];
        }
        out[group] = product;
    }
}
