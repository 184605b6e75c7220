// Keeps the last `n_kept` rows of what a sequence had kept and the span that follows: an invocation does a channel, from the
// oldest row on, so that none is read after it was written over.

struct Params {
    len: u32,
    first_row: u32,
    n_rows: u32,
    n_kept: u32,
    first_history: u32,
    // Nothing comes before the span.
    is_new: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> history: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;

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
    let n_channels = params.len;
    for (var row = 0u; row < params.n_kept; row += 1u) {
        let place = row + params.n_rows;
        var kept = 0.0;
        if place >= params.n_kept {
            kept = x[(params.first_row + place - params.n_kept) * n_channels + i];
        } else if params.is_new == 0u {
            kept = history[params.first_history + place * n_channels + i];
        }
        history[params.first_history + row * n_channels + i] = kept;
    }
}
