// Copies notes to a buffer, where they outlast their submission.

struct Params {
    len: u32,
    first_to: u32,
    notes_at: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> to: array<u32>;
@group(0) @binding(1) var<storage, read> notes: array<u32>;

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
    to[params.first_to + i] = notes[params.notes_at + i];
}
