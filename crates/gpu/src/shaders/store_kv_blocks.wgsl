// Writes the keys, or the values, of consecutive positions to their pages as blocks of 8 bits: see `kv/scales.wgsl`. An
// invocation writes a block of each of two adjacent positions, for their scales share a word; `len` invocations in all.

struct Params {
    len: u32,
    first_row: u32,
    n_rows: u32,
    // Position of the first row.
    start: u32,
    n_heads: u32,
    head_len: u32,
    row_words: u32,
    head_words: u32,
    page_len: u32,
    pages_at: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> kept: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> notes: array<u32>;

// Four numbers of a row that begins at `first`; past its end there are zeros.
fn four_of(first: u32, column: u32) -> vec4<f32> {
    var four = vec4(0.0);
    for (var i = 0u; i < 4u; i += 1u) {
        if column + i < params.head_len {
            four[i] = x[first + column + i];
        }
    }
    return four;
}

// To the nearest, and of two as near to the one away from zero, as the CPU does: `round` takes the even one. The difference
// to the integer below is exact, a half that is added before is not.
fn nearest(numbers: vec4<f32>) -> vec4<i32> {
    let sizes = min(abs(numbers), vec4(127.0));
    let below = floor(sizes);
    let rounded = below + select(vec4(0.0), vec4(1.0), sizes - below >= vec4(0.5));
    return vec4<i32>(select(rounded, -rounded, numbers < vec4(0.0)));
}

// The bits of a scale, which is not negative, in half precision: to the nearest, and of two as near to the even one. Devices
// may round `pack2x16float` otherwise.
fn half_bits(scale: f32) -> u32 {
    let bits = bitcast<u32>(scale);
    if bits > 0x7f800000u {
        // No number stays none.
        return 0x7e00u;
    }
    if scale < 0x1p-14f {
        return u32(round(scale * 0x1p24f));
    }
    let rounded = (bits + 0xfffu + ((bits >> 13u) & 1u)) >> 13u;
    // From one bias of exponents to the other. What is too large becomes infinite.
    return min(rounded - (112u << 10u), 0x7c00u);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = value_number(id, groups, local);
    if i >= params.len {
        return;
    }
    let n_blocks = params.row_words / BLOCK_WORDS;
    let block = i % n_blocks;
    let head = i / n_blocks % params.n_heads;
    let even = 2u * (params.start / 2u + i / n_blocks / params.n_heads);
    // A page has whole pairs.
    let page = notes[params.pages_at + even / params.page_len];
    let first = (page * params.n_heads + head) * params.head_words;
    let place = even % params.page_len;
    let scales = first + scale_at(params.page_len, params.row_words, block, place);
    // The scale of a neighbour that was stored before stays.
    var both = kept[scales];
    for (var second = 0u; second < 2u; second += 1u) {
        let position = even + second;
        if position < params.start || position >= params.start + params.n_rows {
            continue;
        }
        let row = params.first_row + position - params.start;
        let first_value = (row * params.n_heads + head) * params.head_len;
        // Magnitudes compare as their bits do.
        var largest = vec4(0u);
        for (var word = 0u; word < BLOCK_WORDS; word += 1u) {
            let four = four_of(first_value, block * BLOCK_LEN + word * IN_WORD);
            largest = max(largest, bitcast<vec4<u32>>(abs(four)));
        }
        let all = max(max(largest.x, largest.y), max(largest.z, largest.w));
        let scale = bitcast<f32>(all) / 127.0;
        let inverse = select(1.0 / scale, 0.0, scale == 0.0);
        let first_word = first + (place + second) * params.row_words + block * BLOCK_WORDS;
        for (var word = 0u; word < BLOCK_WORDS; word += 1u) {
            let four = four_of(first_value, block * BLOCK_LEN + word * IN_WORD);
            kept[first_word + word] = pack4xI8(nearest(inverse * four));
        }
        both = insertBits(both, half_bits(scale), 16u * second, 16u);
    }
    kept[scales] = both;
}
