// As `gemm_tile`, by products of small square matrices that invocations of a subgroup compute together. Weights and inputs are
// rounded to half precision and summed up as floats, 16 numbers or 8 of a row at a time.

enable f16;
enable wgpu_cooperative_matrix;

@group(0) @binding(1) var<storage, read> x: array<vec4<f16>>;

// Small matrices in a row of the tile, and those of a row that a subgroup computes. Subgroups past those that this takes
// do the same again.
const ACROSS: u32 = TILE / SIDE;
override IN_SUBGROUP: u32;

// A row begins 80 bytes after the one before: aligned as wide loads want it, and in other banks of the memory.
const ROW_FOURS: u32 = FOURS + 2u;

var<workgroup> tile_w: array<vec4<f16>, ROW_FOURS * TILE>;
var<workgroup> tile_x: array<vec4<f16>, ROW_FOURS * TILE>;
var<workgroup> scales: array<f32, TILE>;
var<workgroup> products: array<f32, TILE * TILE>;

// From a row of the input to the next, in fours: `halves` has put its exponent after each.
fn input_stride(row_len: u32) -> u32 {
    return row_len / 4u + 1u;
}

fn scale_of(input: u32, row_len: u32) -> f32 {
    return bitcast<f32>(u32(i32(x[input + row_len / 4u].x) + 127) << 23u);
}

fn row_of_products(token: u32, row: u32) -> vec4<f32> {
    let first = token * TILE + row;
    return scales[token] * vec4(products[first], products[first + 16u], products[first + 32u], products[first + 48u]);
}

// Tokens are not told apart: whole tiles cost little.
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
    if four == 0u {
        scales[brought.x] = scale_of(inputs.x, row_len);
        scales[brought.y] = scale_of(inputs.y, row_len);
    }
    let matrix = subgroup % (ACROSS * ACROSS / IN_SUBGROUP) * IN_SUBGROUP;
    let first_token = matrix / ACROSS * SIDE;
    let first_row = matrix % ACROSS * SIDE;
    var sums: array<Sums, ACROSS>;
    for (var first = 0u; first < row_len; first += STEP) {
        let k = first + four * 4u;
        tile_w[brought.x * ROW_FOURS + four] = vec4<f16>(decode4(blocks.x + k / BLOCK_LEN, k % BLOCK_LEN));
        tile_w[brought.y * ROW_FOURS + four] = vec4<f16>(decode4(blocks.y + k / BLOCK_LEN, k % BLOCK_LEN));
        tile_x[brought.x * ROW_FOURS + four] = x[inputs.x + k / 4u];
        tile_x[brought.y * ROW_FOURS + four] = x[inputs.y + k / 4u];
        workgroupBarrier();
        for (var i = 0u; i < FOURS; i += SIDE / 4u) {
            let inputs_here = coopLoadT<Inputs>(&tile_x[first_token * ROW_FOURS + i], ROW_FOURS);
            for (var j = 0u; j < IN_SUBGROUP; j += 1u) {
                let at = (first_row + j * SIDE) * ROW_FOURS + i;
                let weights_here = coopLoad<Weights>(&tile_w[at], ROW_FOURS);
                sums[j] = coopMultiplyAdd(inputs_here, weights_here, sums[j]);
            }
        }
        workgroupBarrier();
    }
    for (var j = 0u; j < IN_SUBGROUP; j += 1u) {
        coopStoreT(sums[j], &products[first_token * TILE + first_row + j * SIDE], TILE);
    }
    workgroupBarrier();
    let row = local % 16u;
    let token = local / 16u;
    return mat4x4(
        row_of_products(token, row),
        row_of_products(token + 16u, row),
        row_of_products(token + 32u, row),
        row_of_products(token + 48u, row),
    );
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    multiply_tile(id, groups, local, subgroup);
}
