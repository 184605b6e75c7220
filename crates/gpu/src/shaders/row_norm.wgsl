// The moments of a row of `x`, which the kernel declares: a workgroup measures one row. The order of the sums depends on
// the row's length alone.

// Whether the mean is taken away first.
override IS_LAYER: u32;

var<workgroup> partial: array<f32, 256>;

// The sum of what the invocations have.
fn sum_of_group(x: f32, local: u32) -> f32 {
    partial[local] = x;
    workgroupBarrier();
    for (var n = 128u; n > 0u; n /= 2u) {
        if local < n {
            partial[local] += partial[local + n];
        }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}

// The mean of the values from `first` on, or 0, and what they are to be multiplied with.
fn moments(first: u32, len: u32, eps: f32, local: u32) -> vec2<f32> {
    var mean = 0.0;
    if IS_LAYER == 1u {
        var sum = 0.0;
        for (var i = local; i < len; i += 256u) {
            sum += x[first + i];
        }
        mean = sum_of_group(sum, local) / f32(len);
    }
    var squares = 0.0;
    for (var i = local; i < len; i += 256u) {
        let deviation = x[first + i] - mean;
        squares += deviation * deviation;
    }
    return vec2(mean, 1.0 / sqrt(sum_of_group(squares, local) / f32(len) + eps));
}
