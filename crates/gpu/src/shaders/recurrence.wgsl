// The state of a head while rows go through it: a row of numbers for each value of the head. A workgroup has the rows of
// 64 / LANES values, and each invocation every LANES-th number of one of them, in memory that workgroups share. The order of
// a row's sum depends on its length alone.

// Invocations that a row of the state is divided among; divides 64.
override LANES: u32;

// Numbers that all of them have: 64 times those of one.
override STATE_LEN: u32;

var<workgroup> held: array<f32, STATE_LEN>;
var<workgroup> partial: array<f32, 64>;

// Which head a workgroup works at, and which value of it an invocation: those past the last have nothing to do.
fn place_in_heads(group: u32, head_dim: u32, local: u32) -> vec2<u32> {
    let in_group = 64u / LANES;
    let in_head = (head_dim + in_group - 1u) / in_group;
    return vec2(group / in_head, group % in_head * in_group + local / LANES);
}

// The sum over the invocations of a row.
fn sum_of_lanes(x: f32, local: u32) -> f32 {
    partial[local] = x;
    workgroupBarrier();
    let first = local / LANES * LANES;
    var sum = 0.0;
    for (var i = 0u; i < LANES; i += 1u) {
        sum += partial[first + i];
    }
    workgroupBarrier();
    return sum;
}

fn softplus(x: f32) -> f32 {
    if x > 20.0 {
        return x;
    }
    let e = exponential(x);
    // `log(1 + e)` of a small `e` has lost it.
    if e < 1e-4 {
        return e * (1.0 - 0.5 * e);
    }
    return log(1.0 + e);
}
