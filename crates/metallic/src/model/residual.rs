//! How the parts of a layer join the hidden state: each reads it, or a norm of it, and adds what it makes of that, in
//! some models normed once more.

use super::weights::Linear;
use crate::backend::{Backend, Input, Norm, Tokens};
use crate::error::Result;

/// What one part of a layer reads.
pub(super) enum Reads<'a, B: Backend> {
    /// A norm of the hidden state.
    Norm(Norm<'a, B>),
    /// The hidden state.
    Hidden,
    /// What `scratch.normed` holds already.
    Normed,
}

/// The ends of one part of a layer.
pub(super) struct Residual<'a, B: Backend> {
    pub(super) reads: Reads<'a, B>,
    pub(super) post_norm: Option<Norm<'a, B>>,
    pub(super) scale: f32,
    pub(super) tokens: Tokens,
    /// Of a row of the hidden state.
    pub(super) width: usize,
}

impl<B: Backend> Residual<'_, B> {
    pub(super) fn n_rows(&self) -> usize {
        self.tokens.count()
    }

    /// What the part reads, for products.
    pub(super) fn input<'i>(&'i self, hidden: &'i B::Buffer, normed: &'i B::Buffer) -> Input<'i, B> {
        match self.reads {
            Reads::Norm(norm) => Input::Norm { x: hidden, norm },
            Reads::Hidden => Input::Rows(hidden),
            Reads::Normed => Input::Rows(normed),
        }
    }

    /// What the part reads, as rows.
    pub(super) fn rows<'i>(
        &self,
        backend: &mut B,
        hidden: &'i B::Buffer,
        normed: &'i mut B::Buffer,
    ) -> &'i B::Buffer {
        match &self.reads {
            Reads::Norm(norm) => {
                backend.norm(norm, hidden, self.n_rows(), normed);
                normed
            }
            Reads::Hidden => hidden,
            Reads::Normed => normed,
        }
    }

    /// Adds the product of the part's last matrix. Where it is normed or scaled first, `update` takes the product.
    pub(super) fn add_product(
        &self,
        backend: &mut B,
        input: &Input<'_, B>,
        last: &Linear<B::Matrix, B::Buffer>,
        hidden: &mut B::Buffer,
        update: &mut B::Buffer,
    ) -> Result<()> {
        if self.post_norm.is_none() && self.scale == 1.0 {
            return backend.matmul(input, self.tokens, &mut [last.job_adding_to(hidden)]);
        }
        backend.matmul(input, self.tokens, &mut [last.job(&mut *update)])?;
        self.add(backend, hidden, update);
        Ok(())
    }

    /// Adds what the part has written to `update`.
    pub(super) fn add(&self, backend: &mut B, hidden: &mut B::Buffer, update: &B::Buffer) {
        match &self.post_norm {
            None => backend.add(hidden, update, self.scale, self.n_rows() * self.width),
            Some(norm) => backend.add_norm(norm, update, self.n_rows(), self.scale, hidden),
        }
    }
}
