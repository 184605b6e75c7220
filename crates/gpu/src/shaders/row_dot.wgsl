// The product of a row of weights with a row of the input `x`, by all invocations of a workgroup. The order of its sum
// depends on the length of the row alone.

override GROUP_LEN: u32;

var<workgroup> partial: array<f32, GROUP_LEN>;

// What an invocation adds up: every GROUP_LEN-th four, of the weights from `first_block` and the inputs from `first` on.
fn share_of_dot(first_block: u32, first: u32, row_len: u32, local: u32) -> f32 {
    var sum = 0.0;
    for (var i = 4u * local; i < row_len; i += 4u * GROUP_LEN) {
        let decoded = decode4(first_block + i / BLOCK_LEN, i % BLOCK_LEN);
        if i + 4u <= row_len {
            sum += dot(decoded, vec4(x[first + i], x[first + i + 1u], x[first + i + 2u], x[first + i + 3u]));
        } else {
            // Rows of single numbers may end anywhere; what comes after is of another row.
            for (var j = 0u; i + j < row_len; j += 1u) {
                sum += decoded[j] * x[first + i + j];
            }
        }
    }
    return sum;
}

// The sum of what all have; all come here.
fn sum_of_group(share: f32, local: u32) -> f32 {
    partial[local] = share;
    workgroupBarrier();
    for (var n = GROUP_LEN / 2u; n > 0u; n /= 2u) {
        if local < n {
            partial[local] += partial[local + n];
        }
        workgroupBarrier();
    }
    return partial[0];
}
