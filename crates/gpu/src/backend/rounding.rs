//! Products with rounded inputs, for units of a device that multiply less exact numbers faster: of many rows by small matrices of
//! half-precision floats, which a subgroup multiplies at once, and of few rows by bytes, four at a time.

use std::ops::Range;

use metallic::GgmlType;
use metallic::backend::{Backend, Input, MatmulJob, Tokens};
use metallic::memory::{MatrixBytes, MatrixData, SharedBytes, Tier};

use super::Gpu;
use super::products::{GEMM_STEP, GEMM_TILE};
use crate::device::AdapterReport;
use crate::error::Result;
use crate::kernels::{self, Call, Grid, Kernel};
use crate::matrix::GpuMatrix;
use crate::memory::GpuBuffer;

/// Invocations of a workgroup that computes a tile.
const GROUP_LEN: usize = 256;

/// Bytes that its invocations share: of the tile's weights, inputs, scales and products.
const SHARED_BYTES: u32 = 28 << 10;

/// Rows of an input that a test multiplies: a tile that is full, and another.
const N_TOKENS: usize = GEMM_TILE + 5;

/// Of results, how far those of the two ways may be apart beside the largest of them.
const MAX_DIFFERENCE: f32 = 0.01;

/// What a device's products round.
pub(super) struct Rounding {
    /// Of many rows weights and inputs, to half precision.
    pub(super) matrices: Option<Matrices>,
    /// Of few rows inputs, to bytes, where weights are whole numbers.
    pub(super) to_bytes: bool,
    /// Rows of inputs: those to be multiplied one by one come first.
    pub(super) inputs: GpuBuffer,
}

/// How a device multiplies small matrices.
#[derive(Clone, Copy)]
pub(super) struct Matrices {
    /// Numbers in a row of one, and in a column.
    side: usize,
    /// How many of a tile's products each subgroup computes.
    in_subgroup: u32,
}

impl Rounding {
    /// All that a device can.
    pub(super) fn of(report: &AdapterReport, nothing: &GpuBuffer) -> Self {
        let to_bytes = report.features.packed_products && report.features.subgroup;
        Self { matrices: Matrices::of(report), to_bytes, inputs: nothing.clone() }
    }

    /// Words that so many rows of inputs take: two bytes a number and a four that says how they are scaled, which is more than
    /// bytes with their scales do.
    pub(super) fn words(&self, n_rows: usize, row_len: usize) -> usize {
        if self.matrices.is_none() && !self.to_bytes {
            return 0;
        }
        n_rows.saturating_mul(row_len.next_multiple_of(GEMM_STEP) + 4) / 2
    }
}

impl Matrices {
    /// `None` where a device has none, or other ones than kernels use.
    fn of(report: &AdapterReport) -> Option<Self> {
        let side = report.features.matrix_side? as usize;
        let across = GEMM_TILE / side;
        // There are the fewest subgroups where they are largest.
        let in_subgroup = (across * across * report.subgroup_sizes[1] as usize / GROUP_LEN).max(1);
        let is_known = in_subgroup <= across && report.workgroup_bytes >= SHARED_BYTES;
        is_known.then_some(Self { side, in_subgroup: in_subgroup as u32 })
    }

    /// The kernel that is one of these two.
    pub(super) fn kernel(&self, by_8: &'static Kernel, by_16: &'static Kernel) -> &'static Kernel {
        if self.side == 8 { by_8 } else { by_16 }
    }

    /// What the kernel must know when it is compiled.
    pub(super) fn constants(&self) -> [(&'static str, u32); 1] {
        [("IN_SUBGROUP", self.in_subgroup)]
    }
}

impl Gpu {
    /// How products of many rows with this matrix are computed, if by small ones: weights of more bits, or of more range, would lose
    /// some.
    pub(super) fn matrices_for(&self, matrix: &GpuMatrix) -> Option<Matrices> {
        let fit = !matches!(matrix.ggml_type(), GgmlType::F32 | GgmlType::BF16);
        self.rounding.matrices.filter(|_| fit && matrix.row_len().is_multiple_of(GEMM_STEP))
    }

    /// Whether products of few rows with this matrix are computed by bytes.
    pub(super) fn rounds_to_bytes(&self, matrix: &GpuMatrix) -> bool {
        self.rounding.to_bytes && kernels::gives_numbers(matrix.decoder)
    }

    /// Rounds these rows of `x` to halves, as the same rows of `to`.
    pub(super) fn halve(
        &mut self,
        x: &GpuBuffer,
        rows: Range<usize>,
        row_len: usize,
        to: &GpuBuffer,
    ) -> Result<()> {
        let params = [rows.len(), rows.start, row_len].map(|n| n as u32);
        let buffers = [to.expect(self.rounding.words(rows.end, row_len)), x.expect(rows.end * row_len)];
        self.run(&Call::new(&kernels::HALVES, &buffers, &params, Grid::Groups(rows.len())))
    }

    /// Rounds the first rows of `x` to bytes, to where those that are rounded to halves leave them room.
    pub(super) fn round_to_bytes(&mut self, x: &GpuBuffer, n_rows: usize, row_len: usize) -> Result<()> {
        let to = self.rounding.inputs.clone();
        let buffers = [to.expect(self.rounding.words(n_rows, row_len)), x.expect(n_rows * row_len)];
        let params = [n_rows, row_len].map(|n| n as u32);
        self.run(&Call::new(&kernels::TO_BYTES, &buffers, &params, Grid::Groups(n_rows)))
    }

    /// Rounds no more than it must where products differ from what they are without, or none are had: a driver may be new to
    /// such kernels.
    pub(super) fn prove_rounding(&mut self) {
        let Rounding { matrices, to_bytes, .. } = self.rounding;
        if matrices.is_none() && !to_bytes {
            return;
        }
        // It is over before anything else is there, which takes more.
        let account = std::mem::replace(&mut self.vram.tier, Tier::named("a test", None));
        for tokens in [Tokens { gemv: 0, gemm: N_TOKENS }, Tokens { gemv: N_TOKENS, gemm: 0 }] {
            let of_many = tokens.gemm > 0;
            if if of_many { matrices.is_none() } else { !to_bytes } {
                continue;
            }
            let Err(reason) = self.prove(tokens) else { continue };
            let what = if of_many { "small matrices" } else { "bytes" };
            tracing::warn!("the GPU's products of {what} are not used: {reason}");
            if of_many {
                self.rounding.matrices = None;
            } else {
                self.rounding.to_bytes = false;
            }
        }
        self.vram.tier = account;
    }

    /// Compares products with those that are not rounded. Returns why they can't be used, if they can't.
    fn prove(&mut self, tokens: Tokens) -> std::result::Result<(), String> {
        let [found, expected] = self.products_of_a_test(tokens).map_err(|error| error.to_string())?;
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        // What is no number is not close.
        if off.clone().all(|off| off <= MAX_DIFFERENCE * largest) {
            return Ok(());
        }
        Err(format!("they are off by {}", off.fold(0.0, f32::max) / largest))
    }

    /// What they give and what is right, of tiles that are full and of others.
    fn products_of_a_test(&mut self, tokens: Tokens) -> metallic::Result<[Vec<f32>; 2]> {
        const N_ROWS: usize = GEMM_TILE + 9;
        const ROW_LEN: usize = 3 * GEMM_STEP;
        let ggml_type = GgmlType::Q8_0;
        let numbers = (0..N_ROWS * ROW_LEN).map(|i| (i * i % 251) as u8).collect::<Vec<_>>();
        // A scale of 0.25 before each 32 signed bytes.
        let blocks = numbers.as_chunks::<32>().0.iter().flat_map(|block| [&[0x00, 0x34][..], block].concat());
        let bytes = MatrixBytes::in_memory(SharedBytes::new(blocks.collect::<Vec<_>>()));
        let matrix = self.matrix(MatrixData { ggml_type, row_len: ROW_LEN, n_rows: N_ROWS, bytes })?;
        self.make_inputs(N_TOKENS, ROW_LEN)?;
        let mut x = self.buffer("a test", N_TOKENS * ROW_LEN)?;
        let values = (0..N_TOKENS * ROW_LEN).map(|i| ((i * i + 7) % 31) as f32 - 13.3);
        self.write(&values.collect::<Vec<_>>(), &mut x)?;
        let mut out = self.buffer("a test", N_TOKENS * N_ROWS)?;
        let mut product = |gpu: &mut Self| -> metallic::Result<Vec<f32>> {
            gpu.matmul(&Input::Rows(&x), tokens, &mut [MatmulJob::new(&matrix, &mut out)])?;
            let mut product = vec![f32::NAN; N_TOKENS * N_ROWS];
            gpu.read(&out, 0, &mut product)?;
            Ok(product)
        };
        let found = product(self)?;
        let plain = Rounding { matrices: None, to_bytes: false, inputs: self.nothing.clone() };
        let rounding = std::mem::replace(&mut self.rounding, plain);
        let expected = product(self);
        self.rounding = rounding;
        self.make_inputs(0, 0)?;
        Ok([found, expected?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    /// Whatever the device calls fast.
    #[test]
    fn what_is_right_stays_in_use_and_what_is_wrong_does_not() {
        let Some(device) = Device::for_test() else { return };
        let mut gpu =
            Gpu::new(device, Tier::named("vram", None)).expect("a backend").with_products_of_bytes();
        let (matrices, to_bytes) = (gpu.rounds_to_halves(), gpu.rounds_inputs_to_bytes());
        gpu.prove_rounding();
        assert_eq!((gpu.rounds_to_halves(), gpu.rounds_inputs_to_bytes()), (matrices, to_bytes));
        // Nobody computes those that a subgroup leaves out.
        let wrong = gpu.rounding.matrices.as_mut().filter(|matrices| matrices.in_subgroup > 1);
        let Some(wrong) = wrong else { return };
        wrong.in_subgroup = 1;
        gpu.prove_rounding();
        assert_eq!((gpu.rounds_to_halves(), gpu.rounds_inputs_to_bytes()), (false, to_bytes));
    }
}
