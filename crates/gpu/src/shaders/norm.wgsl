// `out = norm(x)` or `out += scale · norm(x)`: a workgroup norms a row.

struct Params {
    n_rows: u32,
    width: u32,
    eps: f32,
    has_bias: u32,
    adds: u32,
    scale: f32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group_number(id, groups);
    if row >= params.n_rows {
        return;
    }
    let first = row * params.width;
    let found = moments(first, params.width, params.eps, local);
    for (var i = local; i < params.width; i += 256u) {
        var value = (x[first + i] - found.x) * (found.y * weight[i]);
        if params.has_bias == 1u {
            value += bias[i];
        }
        if params.adds == 1u {
            out[first + i] += params.scale * value;
        } else {
            out[first + i] = value;
        }
    }
}
