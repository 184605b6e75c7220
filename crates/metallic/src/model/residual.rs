//! How the parts of a layer join the hidden state: each reads a norm of it, and adds what it makes of that,
//! in some models normed once more.

use super::weights::Linear;
use crate::backend::{Backend, Input};
use crate::error::Result;

/// The norms around one part of a layer.
pub(super) struct Residual<'a, B: Backend> {
    pub(super) norm: &'a B::Buffer,
    pub(super) post_norm: Option<&'a B::Buffer>,
    pub(super) eps: f32,
    pub(super) n_rows: usize,
}

impl<B: Backend> Residual<'_, B> {
    /// What the part reads.
    pub(super) fn input<'i>(&'i self, hidden: &'i B::Buffer) -> Input<'i, B> {
        Input::RmsNorm { x: hidden, weight: self.norm, eps: self.eps }
    }

    /// Adds the product of the part's last matrix. Where there is a norm after it, `update` takes the product.
    pub(super) fn add_product(
        &self,
        backend: &mut B,
        input: &Input<'_, B>,
        last: &Linear<B::Matrix, B::Buffer>,
        hidden: &mut B::Buffer,
        update: &mut B::Buffer,
    ) -> Result<()> {
        match self.post_norm {
            None => backend.matmul(input, self.n_rows, &mut [last.job_adding_to(hidden)]),
            Some(norm) => {
                backend.matmul(input, self.n_rows, &mut [last.job(&mut *update)])?;
                backend.add_rms_norm(hidden, update, self.n_rows, norm, self.eps);
                Ok(())
            }
        }
    }

    /// Adds what the part has written to `update`, `len` values.
    pub(super) fn add(&self, backend: &mut B, hidden: &mut B::Buffer, update: &B::Buffer, len: usize) {
        match self.post_norm {
            None => backend.add(hidden, update, len),
            Some(norm) => backend.add_rms_norm(hidden, update, self.n_rows, norm, self.eps),
        }
    }
}
