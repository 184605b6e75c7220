// Products of floats: an invocation multiplies four numbers of each row, then those that come a team's length of fours later.
// Rows are a multiple of four numbers.
//
// A decoder gives `BLOCK_LEN` and `decode4(block, i)`: the weights i to i + 3 of a block, where i is a multiple of 4.

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;

// Sums of what one invocation multiplies, `lane` in its team, of four rows from `row` on.
fn partial_products(row: u32, token: u32, lane: u32) -> vec4<f32> {
    let blocks = blocks_of(row);
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
