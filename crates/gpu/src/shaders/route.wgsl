// Chooses the experts of each row by its router's scores: a workgroup does a row. What is best is counted, not sorted: an
// expert's place is the number of those before it, and of equals the lower number comes first.

override N_EXPERT: u32;

// Values of `scoring`.
const SOFTMAX: u32 = 0u;
const SIGMOID: u32 = 1u;
const SOFTMAX_OF_USED: u32 = 2u;

// Shares are not divided by less: the least normal number of half precision.
const MIN_SUM: f32 = 6.1035156e-5;

// Below every score.
const NO_SCORE: f32 = -3.4e38;

struct Params {
    n_rows: u32,
    n_used: u32,
    scoring: u32,
    normalizes: u32,
    scale: f32,
    has_bias: u32,
    // Groups of as many experts, of which some are used; 1 where all are.
    n_group: u32,
    n_group_used: u32,
}

var<immediate> params: Params;
// Of each row the experts that it goes to by number, and what each of them counts.
@group(0) @binding(0) var<storage, read_write> chosen: array<u32>;
@group(0) @binding(1) var<storage, read_write> shares: array<f32>;
@group(0) @binding(2) var<storage, read> router: array<f32>;
@group(0) @binding(3) var<storage, read> choice_bias: array<f32>;

var<workgroup> scores: array<f32, N_EXPERT>;
var<workgroup> keys: array<u32, N_EXPERT>;
// Of groups their keys, then of places who is there.
var<workgroup> others: array<u32, N_EXPERT>;
var<workgroup> partial: array<f32, 64>;

// A number that is larger where a float is, also for those that are none: every row has its experts.
fn key_of(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return select(bits | 0x80000000u, ~bits, bits >> 31u == 1u);
}

fn float_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >> 31u == 1u));
}

fn largest_of_group(x: f32, local: u32) -> f32 {
    partial[local] = x;
    workgroupBarrier();
    for (var n = 32u; n > 0u; n /= 2u) {
        if local < n {
            partial[local] = max(partial[local], partial[local + n]);
        }
        workgroupBarrier();
    }
    let largest = partial[0];
    workgroupBarrier();
    return largest;
}

fn sum_of_group(x: f32, local: u32) -> f32 {
    partial[local] = x;
    workgroupBarrier();
    for (var n = 32u; n > 0u; n /= 2u) {
        if local < n {
            partial[local] += partial[local + n];
        }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}

// From the router's output to scores, each invocation's own.
fn score(first: u32, local: u32) {
    var largest = NO_SCORE;
    for (var i = local; i < N_EXPERT; i += 64u) {
        let x = router[first + i];
        scores[i] = select(x, sigmoid(x), params.scoring == SIGMOID);
        largest = max(largest, x);
    }
    if params.scoring == SOFTMAX {
        largest = largest_of_group(largest, local);
        var sum = 0.0;
        for (var i = local; i < N_EXPERT; i += 64u) {
            let e = exponential(scores[i] - largest);
            scores[i] = e;
            sum += e;
        }
        sum = sum_of_group(sum, local);
        for (var i = local; i < N_EXPERT; i += 64u) {
            scores[i] /= sum;
        }
    }
}

// Leaves experts of the best groups alone: a group counts as much as its two best experts where the choice is biased, else as
// its best.
fn leave_groups(len: u32, local: u32) {
    for (var group = local; group < params.n_group; group += 64u) {
        var best = NO_SCORE;
        var second = NO_SCORE;
        for (var i = group * len; i < (group + 1u) * len; i += 1u) {
            let rank = float_of(keys[i]);
            if rank > best {
                second = best;
                best = rank;
            } else if rank > second {
                second = rank;
            }
        }
        if params.has_bias == 1u && len > 1u {
            best += second;
        }
        others[group] = key_of(best);
    }
    workgroupBarrier();
    for (var i = local; i < N_EXPERT; i += 64u) {
        let group = i / len;
        var before = 0u;
        for (var other = 0u; other < params.n_group; other += 1u) {
            if others[other] > others[group] || (others[other] == others[group] && other < group) {
                before += 1u;
            }
        }
        // Below every key of a float.
        if before >= params.n_group_used {
            keys[i] = 0u;
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group_number(id, groups);
    if row >= params.n_rows {
        return;
    }
    score(row * N_EXPERT, local);
    for (var i = local; i < N_EXPERT; i += 64u) {
        var rank = scores[i];
        if params.has_bias == 1u {
            rank += choice_bias[i];
        }
        keys[i] = max(key_of(rank), 1u);
    }
    workgroupBarrier();
    if params.n_group > 1u {
        leave_groups(N_EXPERT / params.n_group, local);
    }
    for (var i = local; i < N_EXPERT; i += 64u) {
        var before = 0u;
        for (var other = 0u; other < N_EXPERT; other += 1u) {
            if keys[other] > keys[i] || (keys[other] == keys[i] && other < i) {
                before += 1u;
            }
        }
        others[before] = i;
    }
    workgroupBarrier();
    let best = scores[others[0]];
    workgroupBarrier();
    if params.scoring == SOFTMAX_OF_USED {
        for (var i = local; i < params.n_used; i += 64u) {
            scores[others[i]] = exponential(scores[others[i]] - best);
        }
        workgroupBarrier();
    }
    var factor = params.scale;
    if params.normalizes == 1u {
        var sum = 0.0;
        for (var i = 0u; i < params.n_used; i += 1u) {
            sum += scores[others[i]];
        }
        factor /= max(sum, MIN_SUM);
    }
    for (var i = local; i < params.n_used; i += 64u) {
        let expert = others[i];
        var place = row * params.n_used;
        for (var other = 0u; other < params.n_used; other += 1u) {
            place += u32(others[other] < expert);
        }
        chosen[place] = expert;
        shares[place] = scores[expert] * factor;
    }
}
