// The gated delta rule: the rows of a span one after the other, so that a result does not depend on how a prompt is cut. With
// keys and queries of length 1, `g = e^(a · softplus(alpha + dt_bias))` and `b = sigmoid(beta)`, a head's state becomes
// `g · S`, then `S + b · (v - S · k) ⊗ k`, and the output is `S · q / sqrt(key_dim)`.

struct Params {
    n_groups: u32,
    first_row: u32,
    n_rows: u32,
    n_key_head: u32,
    n_value_head: u32,
    key_dim: u32,
    value_dim: u32,
    // Value heads take key heads in turn, not each as many adjacent ones.
    in_turn: u32,
    first_state: u32,
    // The state begins with zeros.
    is_new: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(0) @binding(2) var<storage, read> q_k_v: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read> alpha: array<f32>;
@group(0) @binding(5) var<storage, read> a: array<f32>;
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
    let place = place_in_heads(group, params.value_dim, local);
    let head = place.x;
    let value = place.y;
    let is_value = value < params.value_dim;
    let lane = local % LANES;
    let of_head = head * params.value_dim + value;
    let first_state = params.first_state + of_head * params.key_dim;
    var at = local;
    for (var i = lane; i < params.key_dim; i += LANES) {
        held[at] = 0.0;
        if is_value && params.is_new == 0u {
            held[at] = state[first_state + i];
        }
        at += 64u;
    }
    var key_head = head * params.n_key_head / params.n_value_head;
    if params.in_turn == 1u {
        key_head = head % params.n_key_head;
    }
    let keys_len = params.n_key_head * params.key_dim;
    let inner = params.n_value_head * params.value_dim;
    let scale = 1.0 / sqrt(f32(params.key_dim));
    for (var row = params.first_row; row < params.first_row + params.n_rows; row += 1u) {
        let step = softplus(alpha[row * params.n_value_head + head] + dt_bias[head]);
        let decay = exponential(a[head] * step);
        let first = row * (2u * keys_len + inner);
        let query = first + key_head * params.key_dim;
        let key = query + keys_len;
        var sum = 0.0;
        at = local;
        for (var i = lane; i < params.key_dim; i += LANES) {
            let decayed = held[at] * decay;
            held[at] = decayed;
            sum += decayed * q_k_v[key + i];
            at += 64u;
        }
        let expected = sum_of_lanes(sum, local);
        var change = 0.0;
        if is_value {
            let found = q_k_v[first + 2u * keys_len + of_head];
            change = sigmoid(beta[row * params.n_value_head + head]) * (found - expected);
        }
        sum = 0.0;
        at = local;
        for (var i = lane; i < params.key_dim; i += LANES) {
            let next = held[at] + change * q_k_v[key + i];
            held[at] = next;
            sum += next * q_k_v[query + i];
            at += 64u;
        }
        let answer = sum_of_lanes(sum, local);
        if is_value && lane == 0u {
            out[row * inner + of_head] = answer * scale;
        }
    }
    if is_value {
        at = local;
        for (var i = lane; i < params.key_dim; i += LANES) {
            state[first_state + i] = held[at];
            at += 64u;
        }
    }
}
