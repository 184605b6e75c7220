// As `rows_plain`, where invocations that run in step can pass numbers to each other: only what is added across these, in
// teams that are longer, goes through shared memory. Their place in a workgroup is reckoned from that in a subgroup, because
// drivers may number the two as they like.

var<workgroup> partial: array<vec4<f32>, GROUP_LEN>;

@compute @workgroup_size(GROUP_LEN)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) subgroup_len: u32,
    @builtin(subgroup_invocation_id) in_subgroup: u32,
) {
    let first = first_row_of(group_number(id, groups));
    if first >= params.n_rows {
        return;
    }
    let local = subgroup * subgroup_len + in_subgroup;
    let row = first + local / TEAM_LEN * TEAM_ROWS;
    let lane = local % TEAM_LEN;
    let token = params.first_token + id.z;
    var sums = partial_products(row, token, lane);
    var n = 1u;
    for (; n < min(TEAM_LEN, subgroup_len); n *= 2u) {
        sums += subgroupShuffleXor(sums, n);
    }
    for (; n < TEAM_LEN; n *= 2u) {
        partial[local] = sums;
        workgroupBarrier();
        sums += partial[local ^ n];
        workgroupBarrier();
    }
    store(row, token, lane, sums);
}
