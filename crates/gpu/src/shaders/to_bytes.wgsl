// Rows of floats as bytes with a sign, for products of bytes: each 16 numbers are multiples of a 127th of the largest of them. After
// a row come those steps, each with the sum of what the 16 now stand for. Two of each lie in four words, so that rows are a
// multiple of 32 numbers.

struct Params {
    n_rows: u32,
    row_len: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;

// Without their signs the bits of floats are in the order of the floats, and those of what is no number come last.
fn magnitudes(x: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(x) & vec4(0x7fffffffu);
}

// Four of them, as multiples of a step.
fn multiples(x: vec4<f32>, inverse: f32) -> vec4<i32> {
    return vec4<i32>(clamp(round(x * inverse), vec4(-127.0), vec4(127.0)));
}

// Rounds 16 numbers from `first` on to `to`. Returns the step and the sum, which are none where a number is none.
fn round_sixteen(first: u32, to: u32) -> vec2<f32> {
    let a = x[first];
    let b = x[first + 1u];
    let c = x[first + 2u];
    let d = x[first + 3u];
    let four = max(max(magnitudes(a), magnitudes(b)), max(magnitudes(c), magnitudes(d)));
    let largest = bitcast<f32>(max(max(four.x, four.y), max(four.z, four.w)));
    let step = largest / 127.0;
    // Smaller ones have no inverse.
    let inverse = select(0.0, 127.0 / largest, largest > 1e-30);
    let e = multiples(a, inverse);
    let f = multiples(b, inverse);
    let g = multiples(c, inverse);
    let h = multiples(d, inverse);
    out[to] = vec4(pack4xI8(e), pack4xI8(f), pack4xI8(g), pack4xI8(h));
    let all = e + f + g + h;
    return vec2(step, step * f32(all.x + all.y + all.z + all.w));
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group_number(id, groups);
    if row >= params.n_rows {
        return;
    }
    let n_sixteens = params.row_len / 16u;
    let first = row * (params.row_len / 4u);
    let first_out = row * (n_sixteens + n_sixteens / 2u);
    for (var n = 2u * local; n < n_sixteens; n += 512u) {
        let one = round_sixteen(first + 4u * n, first_out + n);
        let other = round_sixteen(first + 4u * n + 4u, first_out + n + 1u);
        out[first_out + n_sixteens + n / 2u] = bitcast<vec4<u32>>(vec4(one, other));
    }
}
