// What every kernel may use.

// Number of a workgroup, where more are needed than one dimension has: they are laid out in two. Those past the last
// have nothing to do.
fn group_number(id: vec3<u32>, groups: vec3<u32>) -> u32 {
    return id.x + id.y * groups.x;
}

// Number of the value that an invocation computes, in kernels where each computes one.
fn value_number(id: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return group_number(id, groups) * 256u + local;
}

// Told by its bits: compilers may take it that there are numbers only.
fn is_no_number(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Drivers differ where a power is no float: the result of a bound is taken there. What is no number stays none, where a
// bound would make it one.
fn exponential(x: f32) -> f32 {
    return select(exp(clamp(x, -87.0, 88.0)), x, is_no_number(x));
}

fn bounded_tanh(x: f32) -> f32 {
    return select(tanh(clamp(x, -15.0, 15.0)), x, is_no_number(x));
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exponential(-x));
}
