// What codes stand for, in types whose weights are numbers of a table: a word for each four weights, or for a single one.

@group(0) @binding(8) var<storage, read> codes: array<u32>;

// Four weights of which each has a code, a byte of `word`.
fn four_levels(word: u32) -> vec4<f32> {
    let code = unpack4xU8(word);
    return vec4<f32>(bitcast<vec4<i32>>(vec4(codes[code.x], codes[code.y], codes[code.z], codes[code.w])));
}

// The same as bytes with a sign.
fn four_numbers(word: u32) -> u32 {
    let code = unpack4xU8(word);
    return pack4xI8(bitcast<vec4<i32>>(vec4(codes[code.x], codes[code.y], codes[code.z], codes[code.w])));
}

// Four weights that are word `at` of the table, negated where a bit of `minus` is set.
fn four_signed(at: u32, minus: u32) -> vec4<f32> {
    let signs = vec4(1.0) - 2.0 * four_floats(spread_bits(minus));
    return signs * vec4<f32>(unpack4xI8(codes[at]));
}

// Signs of eight weights from the seven that are stored: the eighth makes the number of minuses even.
fn eight_signs(seven: u32) -> u32 {
    return seven | ((countOneBits(seven) & 1u) << 7u);
}
