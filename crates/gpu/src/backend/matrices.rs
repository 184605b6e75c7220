//! Products of many rows by small matrices that a subgroup multiplies at once, where a device has them. Weights and inputs are
//! rounded to half precision, with inputs scaled so that they fit; sums are floats.

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
use crate::memory::{GpuBuffer, Vram};

/// Invocations of a workgroup that computes a tile.
const GROUP_LEN: usize = 256;

/// Bytes that its invocations share: of the tile's weights, inputs, scales and products.
const SHARED_BYTES: u32 = 28 << 10;

/// Of results, how far those of the two ways may be apart beside the largest of them.
const MAX_DIFFERENCE: f32 = 0.01;

/// How a device multiplies small matrices.
pub(super) struct Matrices {
    /// Numbers in a row of one, and in a column.
    side: usize,
    /// How many of a tile's products each subgroup computes.
    in_subgroup: u32,
    /// Inputs of products.
    pub(super) halves: GpuBuffer,
}

impl Matrices {
    /// `None` where a device has none, or other ones than kernels use.
    pub(super) fn of(report: &AdapterReport, nothing: &GpuBuffer) -> Option<Self> {
        let side = report.features.matrix_side? as usize;
        let across = GEMM_TILE / side;
        // There are the fewest subgroups where they are largest.
        let in_subgroup = (across * across * report.subgroup_sizes[1] as usize / GROUP_LEN).max(1);
        let is_known = in_subgroup <= across && report.workgroup_bytes >= SHARED_BYTES;
        let halves = nothing.clone();
        is_known.then_some(Self { side, in_subgroup: in_subgroup as u32, halves })
    }

    /// Words that so many rows take as halves, with a four after each that says how it is scaled.
    pub(super) fn words(n_rows: usize, row_len: usize) -> usize {
        n_rows.saturating_mul(row_len.next_multiple_of(4) + 4) / 2
    }

    /// For rows of inputs.
    pub(super) fn room(vram: &Vram, n_rows: usize, row_len: usize) -> Result<GpuBuffer> {
        vram.words("inputs of products", Self::words(n_rows, row_len))
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
    /// Whether products of many rows with this matrix are computed so: weights of more bits, or of more range, would lose some.
    pub(super) fn multiplies_halves(&self, matrix: &GpuMatrix) -> bool {
        let fit = !matches!(matrix.ggml_type(), GgmlType::F32 | GgmlType::BF16);
        self.matrices.is_some() && fit && matrix.row_len().is_multiple_of(GEMM_STEP)
    }

    /// Rounds these rows of `x`, to the same rows of `halves`.
    pub(super) fn halve(
        &mut self,
        x: &GpuBuffer,
        rows: Range<usize>,
        row_len: usize,
        halves: &GpuBuffer,
    ) -> Result<()> {
        let params = [rows.len(), rows.start, row_len].map(|n| n as u32);
        let buffers = [halves.expect(Matrices::words(rows.end, row_len)), x.expect(rows.end * row_len)];
        self.run(&Call::new(&kernels::HALVES, &buffers, &params, Grid::Groups(rows.len())))
    }

    /// Uses them no more if a product differs from what it is without, or none is had: a driver may be new to them.
    pub(super) fn prove_matrices(&mut self) {
        if self.matrices.is_none() {
            return;
        }
        // It is over before anything else is there, which takes more.
        let account = std::mem::replace(&mut self.vram.tier, Tier::named("a test", None));
        let products = self.products_of_a_test();
        self.vram.tier = account;
        let reason = match products {
            Ok([found, expected]) => {
                let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
                // What is no number is not close.
                if off.clone().all(|off| off <= MAX_DIFFERENCE * largest) {
                    return;
                }
                format!("they are off by {}", off.fold(0.0, f32::max) / largest)
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!("the GPU's products of matrices are not used: {reason}");
        self.matrices = None;
    }

    /// What they give and what is right, of tiles that are full and of others.
    fn products_of_a_test(&mut self) -> metallic::Result<[Vec<f32>; 2]> {
        const N_ROWS: usize = GEMM_TILE + 9;
        const ROW_LEN: usize = 3 * GEMM_STEP;
        const N_TOKENS: usize = GEMM_TILE + 5;
        let ggml_type = GgmlType::F16;
        // Halves from an eighth to a half, of both signs.
        let half = |i: usize| 0x3000 + (i * i % 0x800) as u16 + if i.is_multiple_of(3) { 0x8000 } else { 0 };
        let bytes = (0..N_ROWS * ROW_LEN).flat_map(|i| half(i).to_le_bytes()).collect::<Vec<_>>();
        let bytes = MatrixBytes::in_memory(SharedBytes::new(bytes));
        let matrix = self.matrix(MatrixData { ggml_type, row_len: ROW_LEN, n_rows: N_ROWS, bytes })?;
        self.make_inputs(N_TOKENS, ROW_LEN)?;
        let mut x = self.buffer("a test", N_TOKENS * ROW_LEN)?;
        let values = (0..N_TOKENS * ROW_LEN).map(|i| ((i * i + 7) % 31) as f32 - 13.0);
        self.write(&values.collect::<Vec<_>>(), &mut x)?;
        let mut out = self.buffer("a test", N_TOKENS * N_ROWS)?;
        let tokens = Tokens { gemv: 0, gemm: N_TOKENS };
        let mut product = |gpu: &mut Self| -> metallic::Result<Vec<f32>> {
            gpu.matmul(&Input::Rows(&x), tokens, &mut [MatmulJob::new(&matrix, &mut out)])?;
            let mut product = vec![f32::NAN; N_TOKENS * N_ROWS];
            gpu.read(&out, 0, &mut product)?;
            Ok(product)
        };
        let found = product(self)?;
        let matrices = self.matrices.take();
        let expected = product(self);
        self.matrices = matrices;
        self.make_inputs(0, 0)?;
        Ok([found, expected?])
    }
}
