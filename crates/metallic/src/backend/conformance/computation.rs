//! What a backend computes in a case, whichever backend it is.

use crate::backend::{Backend, Cpu};
use crate::error::Result;

/// Something that is computed by a backend.
pub(super) trait Computation {
    /// Its results.
    fn run<B: Backend>(&self, backend: &mut B) -> Result<Vec<f32>>;

    /// What they are to be: the CPU's, unless it rounds what it needn't.
    fn reference(&self, cpu: &mut Cpu) -> Result<Vec<f32>> {
        self.run(cpu)
    }
}

/// Numbers between -1 and 1, the same every time (xorshift, Marsaglia 2003).
pub(super) fn random(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A buffer with these values.
pub(super) fn buffer<B: Backend>(backend: &mut B, values: &[f32]) -> Result<B::Buffer> {
    let mut buffer = backend.buffer("a case", values.len())?;
    backend.write(values, &mut buffer)?;
    Ok(buffer)
}

/// The same, where there are any.
pub(super) fn optional<B: Backend>(backend: &mut B, values: Option<Vec<f32>>) -> Result<Option<B::Buffer>> {
    values.map(|values| buffer(backend, &values)).transpose()
}

/// The first `len` values of a buffer.
pub(super) fn values<B: Backend>(backend: &mut B, buffer: &B::Buffer, len: usize) -> Result<Vec<f32>> {
    let mut values = vec![f32::NAN; len];
    backend.read(buffer, 0, &mut values)?;
    Ok(values)
}
