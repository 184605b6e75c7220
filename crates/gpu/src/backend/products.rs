//! Norms, products with matrices, and rows of tables.

use std::ops::Range;

use metallic::backend::{Input, MatmulJob, Norm, NormKind, Tokens};

use super::Gpu;
use crate::error::{Error, Result};
use crate::kernels::{self, Call, Grid, Kernel};
use crate::matrix::{GpuMatrix, PartOfMatrix, Place};
use crate::memory::GpuBuffer;
use crate::recorder::Note;

/// Invocations that sum up a row of weights.
pub(super) const MAT_VEC_LEN: u32 = 64;

/// Invocations of a workgroup that multiplies rows of weights, and rows that each of its teams takes.
const ROWS_GROUP_LEN: usize = 64;
const TEAM_ROWS: usize = 4;

/// Rows of weights, and of an input, that a workgroup multiplies where there are many.
pub(super) const GEMM_TILE: usize = 64;

/// Numbers of each that it takes at a time.
pub(super) const GEMM_STEP: usize = 32;

/// Rows of an input at most: a dispatch has a workgroup in its third dimension for each.
pub(super) const MAX_ROWS: usize = 65_535;

fn is_layer(kind: NormKind) -> [(&'static str, u32); 1] {
    [("IS_LAYER", u32::from(kind == NormKind::Layer))]
}

/// Invocations that share a row of weights: each has four fours of it or more, where that leaves enough to store products.
fn team_len(row_len: usize) -> usize {
    (row_len / 16).next_power_of_two().clamp(8, ROWS_GROUP_LEN)
}

/// The product of some rows of an input with those rows of a matrix that lie in one buffer.
struct Product<'a> {
    x: &'a GpuBuffer,
    rows: Range<usize>,
    job: &'a MatmulJob<'a, Gpu>,
    part: &'a PartOfMatrix<'a>,
    weights: &'a GpuBuffer,
}

impl Gpu {
    /// `out = norm(x)`, or `out += scale · norm(x)` where there is a scale.
    pub(super) fn norm_rows(
        &mut self,
        norm: &Norm<'_, Self>,
        x: &GpuBuffer,
        n_rows: usize,
        scale: Option<f32>,
        out: &GpuBuffer,
    ) -> Result<()> {
        let width = norm.weight.len();
        let nothing = self.nothing.clone();
        let params = [
            n_rows as u32,
            width as u32,
            norm.eps.to_bits(),
            norm.bias.is_some().into(),
            scale.is_some().into(),
            scale.unwrap_or(1.0).to_bits(),
        ];
        let len = n_rows * width;
        let buffers = [out.expect(len), x.expect(len), norm.weight, norm.bias.unwrap_or(&nothing)];
        let constants = is_layer(norm.kind);
        let call = Call::new(&kernels::NORM, &buffers, &params, Grid::Groups(n_rows));
        self.run(&Call { constants: &constants, ..call })
    }

    pub(super) fn norm_parts(
        &mut self,
        norm: &Norm<'_, Self>,
        x: &GpuBuffer,
        n_rows: usize,
        n_parts: usize,
    ) -> Result<()> {
        let width = norm.weight.len();
        let nothing = self.nothing.clone();
        let n_groups = n_rows * n_parts;
        let params = [
            n_groups as u32,
            n_parts as u32,
            (width / n_parts) as u32,
            norm.eps.to_bits(),
            norm.bias.is_some().into(),
        ];
        let buffers = [x.expect(n_rows * width), norm.weight, norm.bias.unwrap_or(&nothing)];
        let constants = is_layer(norm.kind);
        let call = Call::new(&kernels::NORM_IN_PLACE, &buffers, &params, Grid::Groups(n_groups));
        self.run(&Call { constants: &constants, ..call })
    }

    /// Products of one input. Which kernel takes a row depends on what the row is and how long: not on those beside it.
    pub(super) fn multiply(
        &mut self,
        input: &Input<'_, Self>,
        tokens: Tokens,
        jobs: &mut [MatmulJob<'_, Self>],
    ) -> Result<()> {
        let n_rows = tokens.count();
        let Some(row_len) = jobs.first().map(|job| job.matrix.row_len()) else { return Ok(()) };
        let len = n_rows * row_len;
        let made = self.inputs.clone();
        let x = match input {
            Input::Rows(x) => *x,
            Input::Norm { x, norm } => {
                self.norm_rows(norm, x, n_rows, None, &made)?;
                &made
            }
            Input::Gated { activation, gate, up } => {
                self.each_activated(&kernels::GATED, *activation, &[&made, gate, up], len)?;
                &made
            }
        };
        x.expect(len);
        let rows = tokens.gemv..n_rows;
        let rounded = self.rounding.inputs.clone();
        if jobs.iter().any(|job| self.rounds_to_bytes(job.matrix)) {
            self.round_to_bytes(x, tokens.gemv, row_len)?;
        }
        if jobs.iter().any(|job| self.matrices_for(job.matrix).is_some()) {
            self.halve(x, rows.clone(), row_len, &rounded)?;
        }
        for job in jobs.iter_mut() {
            job.out.expect(n_rows * job.matrix.n_rows());
            // A part that is swapped in meets all rows before the next one comes.
            for part in job.matrix.parts() {
                let weights = self.on_device(part.place)?;
                let of = |rows| Product { x, rows, job, part: &part, weights: &weights };
                if row_len.is_multiple_of(GEMM_STEP) {
                    let few = if self.rounds_to_bytes(job.matrix) { &rounded } else { x };
                    self.few_rows(&Product { x: few, ..of(0..tokens.gemv) })?;
                    let many = if self.matrices_for(job.matrix).is_some() { &rounded } else { x };
                    self.gemm(&Product { x: many, ..of(rows.clone()) })?;
                } else {
                    self.mat_vec(&of(0..n_rows))?;
                }
            }
        }
        Ok(())
    }

    /// Rows of an input, one by one.
    fn few_rows(&mut self, product: &Product<'_>) -> Result<()> {
        let row_len = product.job.matrix.row_len();
        let (kernel, team_len) = if self.rounds_to_bytes(product.job.matrix) {
            (&kernels::ROWS_SUBGROUP_OF_BYTES, team_len(row_len / 2))
        } else if self.has_subgroups {
            (&kernels::ROWS_SUBGROUP, team_len(row_len))
        } else {
            (&kernels::ROWS_PLAIN, team_len(row_len))
        };
        let in_group = ROWS_GROUP_LEN / team_len * TEAM_ROWS;
        let grid = Grid::GroupsOf(product.part.rows.len().div_ceil(in_group), product.rows.len());
        self.run_product(kernel, &[("TEAM_LEN", team_len as u32)], product, grid)
    }

    /// The same for rows of any length: simple, and slow.
    fn mat_vec(&mut self, product: &Product<'_>) -> Result<()> {
        let grid = Grid::GroupsOf(product.part.rows.len(), product.rows.len());
        self.run_product(&kernels::MAT_VEC, &[("GROUP_LEN", MAT_VEC_LEN)], product, grid)
    }

    /// Rows of an input, many at a time.
    fn gemm(&mut self, product: &Product<'_>) -> Result<()> {
        let tiles = |n_rows: usize| n_rows.div_ceil(GEMM_TILE);
        let grid = Grid::GroupsOf(tiles(product.part.rows.len()), tiles(product.rows.len()));
        match self.matrices_for(product.job.matrix) {
            Some(matrices) => {
                let kernel = matrices.kernel(&kernels::GEMM_BY_8, &kernels::GEMM_BY_16);
                self.run_product(kernel, &matrices.constants(), product, grid)
            }
            None => self.run_product(&kernels::GEMM, &[], product, grid),
        }
    }

    fn run_product(
        &mut self,
        kernel: &Kernel,
        constants: &[(&'static str, u32)],
        product: &Product<'_>,
        grid: Grid,
    ) -> Result<()> {
        let Product { x, rows, job, part, weights } = product;
        let (matrix, nothing) = (job.matrix, self.nothing.clone());
        let params = [
            part.rows.len() as u32,
            part.first_in_buffer as u32,
            matrix.n_blocks() as u32,
            matrix.row_len() as u32,
            part.rows.start as u32,
            matrix.n_rows() as u32,
            part.rows.start as u32,
            job.bias.is_some().into(),
            job.accumulate.into(),
            rows.start as u32,
            rows.len() as u32,
        ];
        let buffers = [weights, x, job.bias.unwrap_or(&nothing), &*job.out];
        let call = Call::new(kernel, &buffers, &params, grid);
        let n_multiplications = (part.rows.len() * matrix.row_len() * rows.len()) as u64;
        self.run(&Call { decoder: Some(matrix.decoder), constants, n_multiplications, ..call })
    }

    /// The buffer with rows of weights, which are brought in if they have none.
    pub(super) fn on_device(&mut self, place: Place<'_>) -> Result<GpuBuffer> {
        let recorder = self.recorder.get_mut();
        match place {
            Place::Buffer(buffer) => Ok(buffer.clone()),
            Place::Memory(weights) => recorder.swap_in(weights),
            Place::File(range) => {
                let Some(files) = &mut self.files else { unreachable!("a stream was given with the slots") };
                let chunk = files.next(range).map_err(Error::Host)?;
                let slot = recorder.swap_in(chunk.chunk());
                files.give_back(chunk);
                slot
            }
        }
    }

    /// Brings rows of weights to a buffer that nothing uses which is recorded, from byte `offset` on. Returns how many bytes.
    pub(super) fn fill(&mut self, place: Place<'_>, to: &GpuBuffer, offset: u64) -> Result<u64> {
        let recorder = self.recorder.get_mut();
        match place {
            Place::Buffer(_) => {
                unreachable!("a matrix with a cache of experts has no other rows on the device")
            }
            Place::Memory(weights) => {
                recorder.fill(weights, to, offset)?;
                Ok(weights.len() as u64)
            }
            Place::File(range) => {
                let Some(files) = &mut self.files else { unreachable!("a stream was given with the slots") };
                let chunk = files.next(range).map_err(Error::Host)?;
                let filled = recorder.fill(chunk.chunk(), to, offset);
                files.give_back(chunk);
                filled.map(|()| range.n_bytes as u64)
            }
        }
    }

    /// Rows of a table.
    pub(super) fn look_up(
        &mut self,
        table: &GpuMatrix,
        ids: &[u32],
        scale: f32,
        out: &GpuBuffer,
    ) -> Result<()> {
        let row_len = table.row_len();
        let n_fours = ids.len() * row_len.div_ceil(4);
        assert!(ids.iter().all(|&id| (id as usize) < table.n_rows()), "ids of the table");
        out.expect(ids.len() * row_len);
        let ([ids_at], notes) = self.note([Note::Numbers(ids)])?;
        for part in table.parts() {
            let params = [
                n_fours as u32,
                row_len as u32,
                table.n_blocks() as u32,
                ids_at,
                part.rows.start as u32,
                part.rows.len() as u32,
                part.first_in_buffer as u32,
                scale.to_bits(),
            ];
            let Place::Buffer(weights) = part.place else {
                return Err(Error::unsupported("a table of embeddings that is swapped in"));
            };
            let buffers = [weights, &notes, out];
            let call = Call::new(&kernels::EMBED, &buffers, &params, Grid::Values(n_fours));
            self.run(&Call { decoder: Some(table.decoder), ..call })?;
        }
        Ok(())
    }

    /// Makes room for inputs that are made on the way into products.
    pub(super) fn make_inputs(&mut self, n_rows: usize, row_len: usize) -> Result<()> {
        if n_rows > MAX_ROWS {
            return Err(Error::unsupported(format!("a batch of more than {MAX_ROWS} rows")));
        }
        self.inputs = self.vram.words("inputs of products", n_rows * row_len)?;
        self.rounding.inputs = self.vram.words("inputs of products", self.rounding.words(n_rows, row_len))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use metallic::GgmlType;
    use metallic::backend::Backend;
    use metallic::memory::{MatrixBytes, MatrixData, SharedBytes, Tier};

    use super::*;
    use crate::device::Device;

    /// On devices without subgroups there is one way only.
    #[test]
    fn rows_have_the_same_products_with_subgroups_and_without() {
        const N_ROWS: usize = 77;
        let Some(device) = Device::for_test() else { return };
        let mut gpu = Gpu::new(device, Tier::named("vram", None)).expect("a backend");
        let with_subgroups = gpu.has_subgroups;
        for row_len in [32, 64, 96, 480, 512, 3200] {
            let numbers = |n: usize| (0..n).map(|i| ((i * i + 7) % 31) as f32 / 10.0 - 1.3);
            let bytes = numbers(N_ROWS * row_len).flat_map(f32::to_le_bytes).collect::<Vec<_>>();
            let bytes = MatrixBytes::in_memory(SharedBytes::new(bytes));
            let data = MatrixData { ggml_type: GgmlType::F32, row_len, n_rows: N_ROWS, bytes };
            let matrix = gpu.matrix(data).expect("a matrix");
            let mut x = gpu.buffer("x", 2 * row_len).expect("a buffer");
            gpu.write(&numbers(2 * row_len).collect::<Vec<_>>(), &mut x).expect("written");
            let mut out = gpu.buffer("out", 2 * N_ROWS).expect("a buffer");
            let mut products = |has_subgroups| {
                gpu.has_subgroups = has_subgroups;
                let tokens = Tokens { gemv: 2, gemm: 0 };
                let mut jobs = [MatmulJob::new(&matrix, &mut out)];
                gpu.matmul(&Input::Rows(&x), tokens, &mut jobs).expect("products");
                let mut found = vec![f32::NAN; 2 * N_ROWS];
                gpu.read(&out, 0, &mut found).expect("read");
                found
            };
            let plain = products(false);
            assert!(plain.iter().all(|product| product.is_finite()));
            assert_eq!(products(with_subgroups), plain, "rows of {row_len}");
        }
    }
}
