//! What a product's input is made from, and how each worker makes it.

use std::ops::Range;

use metallic_gguf::GgmlType;

use crate::activation::{self, Activation};
use crate::activations::{GROUP_BLOCKS, Q8_LEN, Q8Block, Q8Group, n_groups, quantize_q8, quantize_q8_groups};
use crate::buffer::grow;
use crate::isa::Isa;
use crate::norm::Norm;
use crate::pool::ThreadPool;
use crate::registry::{self, Dot};

/// The rows that weights are multiplied with, one a token. All but [`Rows`](Self::Rows) are made on the way
/// into the product, a row at a time, so they are never written to memory as floats.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Rows as they are.
    Rows(&'a [f32]),
    /// The norm of each row of `x`.
    Norm {
        /// The rows.
        x: &'a [f32],
        /// Their norm.
        norm: Norm<'a>,
    },
    /// `activation(gate) · up`, value by value.
    Gated {
        /// The non-linear function.
        activation: Activation,
        /// What it is applied to.
        gate: &'a [f32],
        /// The factors, as many.
        up: &'a [f32],
    },
}

impl Input<'_> {
    /// Values in all rows.
    ///
    /// # Panics
    /// If a gate and its factors differ in length.
    pub(crate) fn len(&self) -> usize {
        match self {
            Input::Rows(x) | Input::Norm { x, .. } => x.len(),
            Input::Gated { gate, up, .. } => {
                assert_eq!(gate.len(), up.len(), "a factor for each value");
                gate.len()
            }
        }
    }

    /// Writes one row.
    fn write(&self, isa: Isa, token: usize, row: &mut [f32]) {
        let of = |x| row_of(x, token, row.len());
        match *self {
            Input::Rows(x) => row.copy_from_slice(of(x)),
            Input::Norm { x, norm } => norm.write(isa, of(x), row),
            Input::Gated { activation, gate, up } => {
                activation::activate_gated(isa, activation, of(gate), of(up), row);
            }
        }
    }
}

fn row_of(x: &[f32], token: usize, len: usize) -> &[f32] {
    &x[token * len..][..len]
}

/// In which forms the weights of a call take their input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forms {
    pub(crate) blocks: bool,
    pub(crate) groups: bool,
}

/// Some rows of input in all forms.
#[derive(Debug, Default)]
pub(crate) struct InputRows {
    pub(crate) floats: Vec<f32>,
    pub(crate) blocks: Vec<Q8Block>,
    pub(crate) groups: Vec<Q8Group>,
}

impl InputRows {
    /// Makes room for `n_rows` rows of up to `row_len` values.
    pub(crate) fn reserve(&mut self, isa: Isa, n_rows: usize, row_len: usize) {
        let n_blocks = row_len.div_ceil(Q8_LEN);
        grow(&mut self.floats, n_rows * row_len, 0.0);
        grow(&mut self.blocks, n_rows * n_blocks, Q8Block::ZERO);
        grow(&mut self.groups, groups_on(isa, n_rows, n_blocks), Q8Group::ZERO);
    }

    /// Bytes that `reserve` allocates.
    pub(crate) fn reserved_bytes(isa: Isa, n_rows: usize, row_len: usize) -> usize {
        let n_blocks = row_len.div_ceil(Q8_LEN);
        n_rows * (row_len * size_of::<f32>() + n_blocks * size_of::<Q8Block>())
            + groups_on(isa, n_rows, n_blocks) * size_of::<Q8Group>()
    }

    /// Makes the rows of some tokens.
    pub(crate) fn fill(
        &mut self,
        isa: Isa,
        input: &Input<'_>,
        tokens: Range<usize>,
        row_len: usize,
        forms: Forms,
    ) {
        let n_blocks = row_len / Q8_LEN;
        let n_groups = n_groups(n_blocks);
        for (i, token) in tokens.enumerate() {
            let row = &mut self.floats[i * row_len..][..row_len];
            input.write(isa, token, row);
            if forms.blocks {
                quantize_q8(isa, row, &mut self.blocks[i * n_blocks..][..n_blocks]);
            }
            if forms.groups {
                quantize_q8_groups(isa, row, &mut self.groups[i * n_groups..][..n_groups]);
            }
        }
    }

    /// The same, with all workers.
    pub(crate) fn fill_together(
        &mut self,
        pool: &ThreadPool,
        isa: Isa,
        input: &Input<'_>,
        tokens: Range<usize>,
        row_len: usize,
        forms: Forms,
    ) {
        let (n, n_blocks) = (tokens.len(), row_len / Q8_LEN);
        let n_groups = n_groups(n_blocks);
        let floats = &mut self.floats[..n * row_len];
        pool.each_chunk(floats, row_len, &|i, row| input.write(isa, tokens.start + i, row));
        let row = |i: usize| &floats[i * row_len..][..row_len];
        if forms.blocks {
            let blocks = &mut self.blocks[..n * n_blocks];
            pool.each_chunk(blocks, n_blocks, &|i, blocks| quantize_q8(isa, row(i), blocks));
        }
        if forms.groups {
            let groups = &mut self.groups[..n * n_groups];
            pool.each_chunk(groups, n_groups, &|i, groups| quantize_q8_groups(isa, row(i), groups));
        }
    }
}

/// Groups for rows of up to `n_blocks` blocks, on an instruction set whose kernels take groups: a row that is a block short
/// of whole groups takes more of them.
fn groups_on(isa: Isa, n_rows: usize, n_blocks: usize) -> usize {
    let short = (n_blocks / GROUP_BLOCKS * GROUP_BLOCKS).saturating_sub(1);
    match registry::ops(GgmlType::Q8_0, isa).dot {
        Dot::Q8Groups(_) => n_rows * n_groups(n_blocks).max(n_groups(short)),
        Dot::Q8(_) | Dot::F32(_) => 0,
    }
}
