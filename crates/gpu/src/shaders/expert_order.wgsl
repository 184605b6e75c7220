// Puts pairs of a row and an expert in tiles of 64 of the same expert: the expert of each tile, then the pairs of each, with
// NOWHERE where there is none. One workgroup does it. Where in a tile a pair is does not change its product.

override N_EXPERT: u32;

const NOWHERE: u32 = 0xffffffffu;
const TILE: u32 = 64u;

struct Params {
    // Pairs, of which the first so many are left out.
    n_pairs: u32,
    first_pair: u32,
    n_tiles: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> order: array<u32>;
@group(0) @binding(1) var<storage, read> chosen: array<u32>;

// Pairs of each expert, and then the place of the next.
var<workgroup> counts: array<atomic<u32>, N_EXPERT>;
var<workgroup> next: array<atomic<u32>, N_EXPERT>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) local: u32) {
    for (var expert = local; expert < N_EXPERT; expert += 256u) {
        atomicStore(&counts[expert], 0u);
    }
    for (var i = local; i < params.n_tiles * (TILE + 1u); i += 256u) {
        order[i] = NOWHERE;
    }
    workgroupBarrier();
    for (var pair = params.first_pair + local; pair < params.n_pairs; pair += 256u) {
        atomicAdd(&counts[chosen[pair]], 1u);
    }
    workgroupBarrier();
    storageBarrier();
    if local == 0u {
        var tile = 0u;
        for (var expert = 0u; expert < N_EXPERT; expert += 1u) {
            atomicStore(&next[expert], params.n_tiles + tile * TILE);
            let end = tile + (atomicLoad(&counts[expert]) + TILE - 1u) / TILE;
            for (; tile < end; tile += 1u) {
                order[tile] = expert;
            }
        }
    }
    workgroupBarrier();
    storageBarrier();
    for (var pair = params.first_pair + local; pair < params.n_pairs; pair += 256u) {
        order[atomicAdd(&next[chosen[pair]], 1u)] = pair;
    }
}
