// Products of bytes, four at a time: of inputs that `to_bytes` has rounded, with weights that are whole numbers. An invocation
// multiplies 16 numbers of each row, then those that come a team's length of 16 later. Rows are a multiple of 32 numbers.
//
// A decoder gives `BLOCK_LEN`, `numbers4` and `scale_and_offset`, as `quants/levels` has it.

// Of each row the bytes, 16 in each, and then the scales and sums of each 16, of two of them in each.
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;

fn product(block: u32, i: u32, input: vec4<u32>, scale_and_sum: vec2<f32>) -> f32 {
    let sum = dot4I8Packed(numbers4(block, i), input.x) + dot4I8Packed(numbers4(block, i + 4u), input.y)
        + dot4I8Packed(numbers4(block, i + 8u), input.z) + dot4I8Packed(numbers4(block, i + 12u), input.w);
    let scale = scale_and_offset(block, i);
    return scale.x * scale_and_sum.x * f32(sum) + scale.y * scale_and_sum.y;
}

// Sums of what one invocation multiplies, `lane` in its team, of four rows from `row` on.
fn partial_products(row: u32, token: u32, lane: u32) -> vec4<f32> {
    let blocks = blocks_of(row);
    let n_sixteens = params.row_len / 16u;
    let first = token * (n_sixteens + n_sixteens / 2u);
    var sums = vec4(0.0);
    for (var n = lane; n < n_sixteens; n += TEAM_LEN) {
        let i = 16u * n;
        let input = x[first + n];
        let two = bitcast<vec4<f32>>(x[first + n_sixteens + n / 2u]);
        let scale_and_sum = select(two.zw, two.xy, (n & 1u) == 0u);
        let at = blocks + i / BLOCK_LEN;
        let in_block = i % BLOCK_LEN;
        sums += vec4(
            product(at.x, in_block, input, scale_and_sum),
            product(at.y, in_block, input, scale_and_sum),
            product(at.z, in_block, input, scale_and_sum),
            product(at.w, in_block, input, scale_and_sum),
        );
    }
    return sums;
}
