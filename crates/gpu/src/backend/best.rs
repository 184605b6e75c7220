//! The largest of a row of logits, so that a token does not read back a vocabulary.

use super::Gpu;
use crate::error::Result;
use crate::kernels::{self, Call, Grid};
use crate::memory::GpuBuffer;

/// Values that a workgroup looks through.
const GROUP_VALUES: usize = 1024;

/// The most that are found so: of more, all values are read.
const MAX_BEST: usize = 128;

/// Keys of the least and the largest of all floats.
const LEAST_KEY: u32 = key_of(f32::NEG_INFINITY.to_bits());
const INFINITY_KEY: u32 = key_of(f32::INFINITY.to_bits());

/// What kernels sort by.
const fn key_of(bits: u32) -> u32 {
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The value that has a key.
fn value_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
}

impl Gpu {
    /// Reads the `n_best` largest of the values from `first` on, and leaves the others at negative infinity; all, where they are
    /// few, too many are wanted, or one is infinite or no number. The sort is done in what products have for their inputs, which
    /// is free between operations.
    pub(super) fn read_largest(
        &mut self,
        buffer: &GpuBuffer,
        first: usize,
        n_best: usize,
        values: &mut [f32],
    ) -> Result<()> {
        let left_of = |len: usize| len.div_ceil(GROUP_VALUES) * n_best;
        let work = self.inputs.clone();
        // A pair for each that is left, first here and then after it, and so on in turns.
        let second = 2 * left_of(values.len());
        let has_room = second + 2 * left_of(left_of(values.len())) <= work.len();
        if !(1..=MAX_BEST).contains(&n_best) || values.len() <= GROUP_VALUES || !has_room {
            return self.recorder.get_mut().read(buffer, first, values);
        }
        let (mut len, mut from, mut to, mut is_first) = (values.len(), second, 0, true);
        while is_first || len > n_best {
            let params = [len, n_best, usize::from(is_first), first, from, to].map(|n| n as u32);
            let buffers = [&work, buffer];
            let grid = Grid::Groups(len.div_ceil(GROUP_VALUES));
            self.run(&Call::new(&kernels::BEST, &buffers, &params, grid))?;
            (len, from, to, is_first) = (left_of(len), to, from, false);
        }
        let mut pairs = [0; 2 * MAX_BEST];
        let pairs = &mut pairs[..2 * n_best];
        let recorder = self.recorder.get_mut();
        recorder.read_words(&work, from, pairs, |word| word)?;
        let (pairs, _) = pairs.as_chunks::<2>();
        let is_number = |key: u32| (LEAST_KEY..INFINITY_KEY).contains(&key);
        if !pairs.iter().all(|[key, _]| is_number(*key)) {
            return recorder.read(buffer, first, values);
        }
        values.fill(f32::NEG_INFINITY);
        pairs.iter().for_each(|[key, number]| values[*number as usize] = value_of(*key));
        Ok(())
    }
}
