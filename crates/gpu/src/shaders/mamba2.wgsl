// Mamba-2's state space: the rows of a span one after the other, so that a result does not depend on how a prompt is cut.
// With `s = softplus(dt + dt_bias)`, a head's state becomes `e^(a · s) · S + s · x ⊗ B`, and the output is `S · C + d · x`.

struct Params {
    n_groups: u32,
    first_row: u32,
    n_rows: u32,
    n_head: u32,
    head_dim: u32,
    d_state: u32,
    // Pairs of `B` and `C`; each serves as many adjacent heads.
    n_pairs: u32,
    first_state: u32,
    // The state begins with zeros.
    is_new: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(0) @binding(2) var<storage, read> x_b_c: array<f32>;
@group(0) @binding(3) var<storage, read> dt: array<f32>;
@group(0) @binding(4) var<storage, read> a: array<f32>;
@group(0) @binding(5) var<storage, read> d: array<f32>;
@group(0) @binding(6) var<storage, read> dt_bias: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = group_number(id, groups);
    if group >= params.n_groups {
        return;
    }
    let place = place_in_heads(group, params.head_dim, local);
    let head = place.x;
    let value = place.y;
    let is_value = value < params.head_dim;
    let lane = local % LANES;
    let of_head = head * params.head_dim + value;
    let first_state = params.first_state + of_head * params.d_state;
    var at = local;
    for (var i = lane; i < params.d_state; i += LANES) {
        held[at] = 0.0;
        if is_value && params.is_new == 0u {
            held[at] = state[first_state + i];
        }
        at += 64u;
    }
    let inner = params.n_head * params.head_dim;
    let group_len = params.n_pairs * params.d_state;
    let first_b = inner + head * params.n_pairs / params.n_head * params.d_state;
    for (var row = params.first_row; row < params.first_row + params.n_rows; row += 1u) {
        let step = softplus(dt[row * params.n_head + head] + dt_bias[head]);
        let decay = exponential(a[head] * step);
        let first = row * (inner + 2u * group_len);
        var x = 0.0;
        var sum = 0.0;
        if is_value {
            x = x_b_c[first + of_head];
            let input = x * step;
            at = local;
            for (var i = lane; i < params.d_state; i += LANES) {
                let next = held[at] * decay + x_b_c[first + first_b + i] * input;
                held[at] = next;
                sum += next * x_b_c[first + first_b + group_len + i];
                at += 64u;
            }
        }
        let of_state = sum_of_lanes(sum, local);
        if is_value && lane == 0u {
            out[row * inner + of_head] = of_state + d[head] * x;
        }
    }
    if is_value {
        at = local;
        for (var i = lane; i < params.d_state; i += LANES) {
            state[first_state + i] = held[at];
            at += 64u;
        }
    }
}
