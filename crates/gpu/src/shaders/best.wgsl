// The largest of many values: a workgroup sorts 1024 and leaves the first of them, from the largest on; of equals the lower
// number comes first. Run again on what all workgroups have left, until one is enough.

// Values that a workgroup sorts.
const LEN: u32 = 1024u;

struct Params {
    // Values, and how many each workgroup leaves.
    len: u32,
    n_best: u32,
    // Whether they come from `values`, from this one on; else from `work`.
    is_first: u32,
    first: u32,
    // Where pairs of a key and a number are in `work`, and where those that are left go.
    pairs_at: u32,
    left_at: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> work: array<u32>;
@group(0) @binding(1) var<storage, read> values: array<u32>;

var<workgroup> keys: array<u32, LEN>;
var<workgroup> numbers: array<u32, LEN>;

// A number that is larger where a float of these bits is. What is no number has the largest.
fn key_of(bits: u32) -> u32 {
    let key = select(bits | 0x80000000u, ~bits, bits >> 31u == 1u);
    return select(key, 0xffffffffu, is_no_number(bitcast<f32>(bits)));
}

// Whether the place `a` should come before `b`.
fn is_before(a: u32, b: u32) -> bool {
    return keys[a] > keys[b] || (keys[a] == keys[b] && numbers[a] < numbers[b]);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = group_number(id, groups);
    if group * LEN >= params.len {
        return;
    }
    for (var i = local; i < LEN; i += 256u) {
        let place = group * LEN + i;
        // Of what is not there, the key is below every float's.
        keys[i] = 0u;
        numbers[i] = 0xffffffffu;
        if place < params.len {
            if params.is_first == 1u {
                keys[i] = key_of(values[params.first + place]);
                numbers[i] = place;
            } else {
                keys[i] = work[params.pairs_at + 2u * place];
                numbers[i] = work[params.pairs_at + 2u * place + 1u];
            }
        }
    }
    workgroupBarrier();
    // Batcher's bitonic sort (1968).
    for (var size = 2u; size <= LEN; size *= 2u) {
        for (var stride = size / 2u; stride > 0u; stride /= 2u) {
            for (var i = local; i < LEN / 2u; i += 256u) {
                let a = 2u * stride * (i / stride) + i % stride;
                let b = a + stride;
                let falls = (a & size) == 0u;
                if is_before(b, a) == falls {
                    let key = keys[a];
                    keys[a] = keys[b];
                    keys[b] = key;
                    let number = numbers[a];
                    numbers[a] = numbers[b];
                    numbers[b] = number;
                }
            }
            workgroupBarrier();
        }
    }
    for (var i = local; i < params.n_best; i += 256u) {
        let place = params.left_at + 2u * (group * params.n_best + i);
        work[place] = keys[i];
        work[place + 1u] = numbers[i];
    }
}
