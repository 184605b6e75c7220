// TQ1_0: 256 ternary numbers, five in a byte (four in the last four bytes), then a scale of half precision. A byte is a
// fraction whose digits in base 3 are its numbers. The first 32 bytes give five runs of 32, the next 16 five of 16, the last
// 4 four of 4.

const BLOCK_LEN: u32 = 256u;

// Digit `n` of each byte, less 1: multiplied by 3^n, its whole part dropped, a fraction starts with that.
fn digits(word: u32, n: u32) -> vec4<f32> {
    let power = select((0x1b090301u >> (n * 8u)) & 0xffu, 81u, n == 4u);
    let fractions = (unpack4xU8(word) * power) & vec4(0xffu);
    return vec4<f32>((fractions * 3u) >> vec4(8u)) - 1.0;
}

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 27u;
    let scale = half_float(at + 26u);
    if i < 160u {
        return scale * digits(word(at + (i & 31u) / 2u), i >> 5u);
    }
    if i < 240u {
        return scale * digits(word(at + 16u + (i & 15u) / 2u), (i - 160u) >> 4u);
    }
    return scale * digits(word(at + 24u), (i - 240u) >> 2u);
}
