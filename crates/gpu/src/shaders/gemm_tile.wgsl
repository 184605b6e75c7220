// A tile of 64 rows of weights by 64 of the input `x`: each of the 16 times 16 invocations of a workgroup computes four by four
// products. Both are brought to shared memory 32 numbers of a row at a time, of which rows are a multiple.
//
// A product is summed up in the order of its row, four numbers after four, so that it doesn't depend on what else is in a
// tile.

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;

// 16 KiB together, all that WebGPU promises.
var<workgroup> tile_w: array<vec4<f32>, FOURS * TILE>;
var<workgroup> tile_x: array<vec4<f32>, FOURS * TILE>;

// Where the four numbers `four` of a row lie. Neither invocations that store fours of one row nor those that load one of
// consecutive rows meet in a bank of the memory.
fn place(four: u32, row: u32) -> u32 {
    return four * TILE + (row ^ four);
}

// Products of four rows of weights, which are the columns after transposition, with one of the input.
fn add_products(sums: vec4<f32>, w: mat4x4<f32>, x: vec4<f32>) -> vec4<f32> {
    return fma(w[3], vec4(x.w), fma(w[2], vec4(x.z), fma(w[1], vec4(x.y), fma(w[0], vec4(x.x), sums))));
}

// From a row of the input to the next, in fours.
fn input_stride(row_len: u32) -> u32 {
    return row_len / 4u;
}

// The products of an invocation: of the rows `local % 16` of weights and `local / 16` of the input and of those 16, 32 and 48
// after them, a column for each row of the input. Of the rows that it brings the weights begin at these blocks, and the
// inputs at these fours. Of the rows of the input only `n_left` are wanted.
fn sums_of_tile(
    blocks: vec2<u32>,
    inputs: vec2<u32>,
    row_len: u32,
    n_left: u32,
    local: u32,
    subgroup: u32,
) -> mat4x4<f32> {
    let four = local % FOURS;
    let brought = rows_brought(local);
    let row = local % 16u;
    let token = local / 16u;
    var sums0 = vec4(0.0);
    var sums1 = vec4(0.0);
    var sums2 = vec4(0.0);
    var sums3 = vec4(0.0);
    for (var first = 0u; first < row_len; first += STEP) {
        let k = first + four * 4u;
        tile_w[place(four, brought.x)] = decode4(blocks.x + k / BLOCK_LEN, k % BLOCK_LEN);
        tile_w[place(four, brought.y)] = decode4(blocks.y + k / BLOCK_LEN, k % BLOCK_LEN);
        tile_x[place(four, brought.x)] = x[inputs.x + k / 4u];
        tile_x[place(four, brought.y)] = x[inputs.y + k / 4u];
        workgroupBarrier();
        for (var i = 0u; i < FOURS; i += 1u) {
            let w = transpose(mat4x4(
                tile_w[place(i, row)],
                tile_w[place(i, row + 16u)],
                tile_w[place(i, row + 32u)],
                tile_w[place(i, row + 48u)],
            ));
            sums0 = add_products(sums0, w, tile_x[place(i, token)]);
            // A short prompt fills a part of a tile. The order of sums is the same in every part.
            if n_left > 16u {
                sums1 = add_products(sums1, w, tile_x[place(i, token + 16u)]);
                if n_left > 32u {
                    sums2 = add_products(sums2, w, tile_x[place(i, token + 32u)]);
                    sums3 = add_products(sums3, w, tile_x[place(i, token + 48u)]);
                }
            }
        }
        workgroupBarrier();
    }
    return mat4x4(sums0, sums1, sums2, sums3);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    multiply_tile(id, groups, local, 0u);
}
