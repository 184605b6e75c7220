// Copies a page of keys or values to another of the same buffer, which a copy between buffers may not do.

struct Params {
    len: u32,
    first: u32,
    to: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> words: array<u32>;

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
    words[params.to + i] = words[params.first + i];
}
