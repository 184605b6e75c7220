// A convolution over time of each channel by itself: an invocation computes a value, `len` of them in all. What comes before
// the first row is in the history, the oldest row first.

struct Params {
    len: u32,
    n_channels: u32,
    first_row: u32,
    // Inputs that an output is made of.
    n_taps: u32,
    first_history: u32,
    // Nothing comes before the first row.
    is_new: u32,
    has_bias: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> history: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;

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
    let row = i / params.n_channels;
    let channel = i % params.n_channels;
    var sum = 0.0;
    if params.has_bias == 1u {
        sum = bias[channel];
    }
    for (var tap = 0u; tap < params.n_taps; tap += 1u) {
        // Among the rows of the history and then those of the span.
        let place = row + tap;
        var input = 0.0;
        if place + 1u >= params.n_taps {
            let in_span = place + 1u - params.n_taps;
            input = x[(params.first_row + in_span) * params.n_channels + channel];
        } else if params.is_new == 0u {
            input = history[params.first_history + place * params.n_channels + channel];
        }
        sum += weights[channel * params.n_taps + tap] * input;
    }
    out[params.first_row * params.n_channels + i] = activation(sum);
}
