//! Buffers that are kept between calls.

/// Makes a buffer at least `len` long, without room to spare.
pub(crate) fn grow<T: Clone>(buffer: &mut Vec<T>, len: usize, value: T) {
    if buffer.len() < len {
        buffer.reserve_exact(len - buffer.len());
        buffer.resize(len, value);
    }
}
