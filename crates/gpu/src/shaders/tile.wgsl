// A tile of 64 rows of weights by 64 of the input, and who brings what of it to shared memory: 32 numbers of a row at a time.

const TILE: u32 = 64u;
const STEP: u32 = 32u;
const FOURS: u32 = STEP / 4u;

// The two rows of a tile, of both, of which an invocation brings a four at a time.
fn rows_brought(local: u32) -> vec2<u32> {
    return vec2(local / FOURS, local / FOURS + TILE / 2u);
}
