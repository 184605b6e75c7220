//! A mixture of experts, from the router's scores to the sum, without a word from the host: which experts rows go to stays on
//! the device, where products look it up.

use metallic::backend::{Backend, ExpertMatrix, ExpertNeeds, Experts, RoutingShape, Scoring};

use super::Gpu;
use super::products::{MAT_VEC_LEN, MAX_ROWS};
use crate::error::{Error, Result};
use crate::kernels::{self, Call, Grid};
use crate::memory::{GpuBuffer, Vram};

/// Experts of a layer at most: three words for each, and a few more, are what every device lets a workgroup share.
const MAX_EXPERTS: usize = 1024;

/// Which experts rows go to, and rows on their way through them: of each *pair* of a row and one of its experts.
#[derive(Clone)]
pub(super) struct ExpertWork {
    chosen: GpuBuffer,
    shares: GpuBuffer,
    gate: GpuBuffer,
    up: GpuBuffer,
    output: GpuBuffer,
}

/// What it is, in errors.
const EXPERTS: &str = "experts";

/// Values of each of its buffers.
fn lens(n_rows: usize, needs: &ExpertNeeds) -> [usize; 5] {
    let ExpertNeeds { n_used, n_embd, n_ff, .. } = *needs;
    [1, 1, n_ff, n_ff, n_embd].map(|len| n_rows.saturating_mul(n_used).saturating_mul(len))
}

impl ExpertWork {
    fn new(vram: &Vram, n_rows: usize, needs: &ExpertNeeds) -> Result<Self> {
        if needs.n_expert > MAX_EXPERTS {
            return Err(Error::unsupported(format!("a choice among more than {MAX_EXPERTS} experts")));
        }
        if n_rows > MAX_ROWS {
            return Err(Error::unsupported(format!("a batch of more than {MAX_ROWS} rows")));
        }
        let [chosen, shares, gate, up, output] = lens(n_rows, needs).map(|len| vram.words(EXPERTS, len));
        Ok(Self { chosen: chosen?, shares: shares?, gate: gate?, up: up?, output: output? })
    }

    /// Bytes that [`new`](Self::new) allocates.
    pub(super) fn bytes(n_rows: usize, needs: &ExpertNeeds) -> u64 {
        lens(n_rows, needs).into_iter().map(|len| 4 * len as u64).fold(0, u64::saturating_add)
    }
}

impl Gpu {
    pub(super) fn make_experts(&mut self, n_rows: usize, needs: &ExpertNeeds) -> Result<()> {
        self.experts = Some(ExpertWork::new(&self.vram, n_rows, needs)?);
        Ok(())
    }

    pub(super) fn mix_experts(
        &mut self,
        experts: &Experts<'_, Self>,
        scores: &GpuBuffer,
        x: &GpuBuffer,
        n_rows: usize,
        out: &GpuBuffer,
    ) -> Result<()> {
        let work = self.experts.clone().expect("room for experts was reserved");
        let Experts { routing, choice_bias, activation, gate, up, down } = experts;
        let n_pairs = n_rows * routing.n_used;
        let gate_and_up = [(gate, &work.gate), (up, &work.up)];
        // Those that share a tensor are multiplied together: where it is swapped in, it is once.
        let first: &[&[_]] = if gate.all.is(up.all) {
            &[&gate_and_up]
        } else {
            let [gate, up] = &gate_and_up;
            &[std::slice::from_ref(gate), std::slice::from_ref(up)]
        };
        first.iter().for_each(|matrices| self.will_use(matrices[0].0.all));
        self.will_use(down.all);
        self.route(routing, *choice_bias, scores, n_rows, &work)?;
        for matrices in first {
            self.multiply_pairs(matrices, [x, &work.chosen], routing.n_used, n_pairs)?;
        }
        let inner = n_pairs * up.n_rows;
        self.each_activated(&kernels::GATE, *activation, &[&work.up, &work.gate], inner)?;
        self.multiply_pairs(&[(down, &work.output)], [&work.up, &work.chosen], 1, n_pairs)?;
        let (width, len) = (down.n_rows, n_rows * down.n_rows);
        let params = [len, width, routing.n_used].map(|n| n as u32);
        let buffers = [out.expect(len), work.output.expect(n_pairs * width), &work.shares];
        self.run(&Call::new(&kernels::MIX, &buffers, &params, Grid::Values(len)))
    }

    /// Sends each row to the experts that the scores of its router say.
    fn route(
        &mut self,
        routing: &RoutingShape,
        choice_bias: Option<&GpuBuffer>,
        scores: &GpuBuffer,
        n_rows: usize,
        work: &ExpertWork,
    ) -> Result<()> {
        let RoutingShape { n_expert, n_used, scoring, normalize, scale, groups } = *routing;
        let nothing = self.nothing.clone();
        let (scoring, normalizes) = match scoring {
            Scoring::Softmax => (0, normalize),
            Scoring::Sigmoid => (1, normalize),
            Scoring::SoftmaxOfUsed => (2, true),
        };
        let [n_group, n_group_used] = groups.map_or([1, 1], |groups| [groups.n_group, groups.n_used]);
        let params = [
            n_rows as u32,
            n_used as u32,
            scoring,
            normalizes.into(),
            scale.to_bits(),
            choice_bias.is_some().into(),
            n_group as u32,
            n_group_used as u32,
        ];
        let buffers = [
            work.chosen.expect(n_rows * n_used),
            &work.shares,
            scores.expect(n_rows * n_expert),
            choice_bias.map_or(&nothing, |bias| bias.expect(n_expert)),
        ];
        let constants = [("N_EXPERT", n_expert as u32)];
        let call = Call::new(&kernels::ROUTE, &buffers, &params, Grid::Groups(n_rows));
        self.run(&Call { constants: &constants, ..call })
    }

    /// The products of each pair with the matrices of its expert, of inputs that `in_input` pairs have in common. The matrices
    /// share a tensor; each has its output.
    fn multiply_pairs(
        &mut self,
        matrices: &[(&ExpertMatrix<'_, Self>, &GpuBuffer)],
        [x, chosen]: [&GpuBuffer; 2],
        in_input: usize,
        n_pairs: usize,
    ) -> Result<()> {
        let (all, nothing) = (matrices[0].0.all, self.nothing.clone());
        x.expect(n_pairs / in_input * all.row_len());
        let constants = [("GROUP_LEN", MAT_VEC_LEN)];
        for part in all.parts() {
            let weights = self.on_device(part.place)?;
            for (matrix, out) in matrices {
                let n_products = n_pairs * matrix.n_rows;
                let params = [
                    n_products,
                    matrix.n_rows,
                    part.rows.start,
                    part.rows.len(),
                    part.first_in_buffer,
                    matrix.first,
                    matrix.stride,
                    all.n_blocks(),
                    all.row_len(),
                    in_input,
                    usize::from(matrix.bias.is_some()),
                ]
                .map(|n| n as u32);
                let bias = matrix.bias.unwrap_or(&nothing);
                let buffers = [&weights, x, chosen, bias, out.expect(n_products)];
                let call = Call::new(&kernels::EXPERT_MAT_VEC, &buffers, &params, Grid::Groups(n_products));
                let n_multiplications = (n_products * all.row_len()) as u64;
                self.run(&Call {
                    decoder: Some(all.decoder),
                    constants: &constants,
                    n_multiplications,
                    ..call
                })?;
            }
        }
        Ok(())
    }
}
