// Products with the matrices of the experts that rows go to: a workgroup does a row of weights for one expert of one row, a
// *pair*. The order of a sum depends on the length of the row alone. Rows of weights that this buffer lacks are left to the
// run with the buffer that has them.

struct Params {
    rows: ExpertRows,
    // Pairs times rows of weights of an expert.
    n_groups: u32,
    n_rows: u32,
    n_blocks: u32,
    row_len: u32,
    // Pairs that have a row of the input in common.
    in_input: u32,
    has_bias: u32,
}

var<immediate> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> chosen: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> notes: array<u32>;

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
    let here = row_here(params.rows, expert, row);
    // No return where it is not: compilers want to see that all invocations come to a barrier.
    let is_here = here < params.rows.n_here;
    let first_block = (params.rows.first_in_buffer + here) * params.n_blocks;
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
