// Products of rows of weights with few rows of an input. Neighbours in a team add their sums, then neighbouring pairs, and so
// on, so that the order depends on the length of a row alone. `rows_subgroup` does the same in the same order.

var<workgroup> partial: array<vec4<f32>, GROUP_LEN>;

@compute @workgroup_size(GROUP_LEN)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = first_row_of(group_number(id, groups));
    if first >= params.n_rows {
        return;
    }
    let row = first + local / TEAM_LEN * TEAM_ROWS;
    let lane = local % TEAM_LEN;
    let token = params.first_token + id.z;
    var sums = partial_products(row, token, lane);
    for (var n = 1u; n < TEAM_LEN; n *= 2u) {
        partial[local] = sums;
        workgroupBarrier();
        sums += partial[local ^ n];
        workgroupBarrier();
    }
    store(row, token, lane, sums);
}
