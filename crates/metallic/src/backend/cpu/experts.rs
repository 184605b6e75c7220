//! A mixture of experts, one expert after the other.
//!
//! The rows that chose an expert are gathered, so its weights are read once a batch. A row's experts are summed in the order
//! of their numbers, whatever else is in the batch and whichever are in memory: those that are not are read from the
//! moment that they are chosen, while others are computed.

use metallic_kernels::matmul::{self, Tokens};

use super::products::{CpuMatrix, Job};
use super::{Cpu, Floats};
use crate::backend::routing::{Chosen, Routing};
use crate::backend::{Backend, ExpertMatrix, ExpertNeeds, Experts};
use crate::error::Result;
use crate::memory::{Lease, Tier};

/// Choices, and rows on their way through an expert.
pub(super) struct ExpertWork {
    routing: Routing,
    input: Floats,
    gate: Floats,
    up: Floats,
    output: Floats,
    _lease: Lease,
}

/// What it is, in plans.
const EXPERTS: &str = "experts";

impl ExpertWork {
    pub(super) fn new(ram: &Tier, n_rows: usize, needs: &ExpertNeeds) -> Result<Self> {
        let ExpertNeeds { n_expert, n_embd, n_ff, .. } = *needs;
        Ok(Self {
            _lease: ram.lease(EXPERTS, Routing::bytes(n_expert, n_rows))?,
            routing: Routing::new(n_expert, n_rows),
            input: ram.zeros(EXPERTS, n_rows * n_embd)?,
            gate: ram.zeros(EXPERTS, n_rows * n_ff)?,
            up: ram.zeros(EXPERTS, n_rows * n_ff)?,
            output: ram.zeros(EXPERTS, n_rows * n_embd)?,
        })
    }

    /// Bytes that [`new`](Self::new) allocates.
    pub(super) fn bytes(n_rows: usize, needs: &ExpertNeeds) -> u64 {
        let of_row = 2 * size_of::<f32>() as u64 * (needs.n_embd as u64).saturating_add(needs.n_ff as u64);
        Routing::bytes(needs.n_expert, n_rows).saturating_add(of_row.saturating_mul(n_rows as u64))
    }
}

impl Cpu {
    /// See [`Backend::experts`].
    pub(super) fn mix_experts(
        &mut self,
        experts: &Experts<'_, Self>,
        scores: &Floats,
        x: &Floats,
        tokens: Tokens,
        out: &mut Floats,
    ) -> Result<()> {
        // Taken out, so that products can use the rest.
        let mut work = self.experts.take().expect("room for experts was reserved");
        let result = self.run_experts(experts, &mut work, scores, x, tokens, out);
        self.experts = Some(work);
        result
    }

    fn run_experts(
        &mut self,
        experts: &Experts<'_, Self>,
        work: &mut ExpertWork,
        scores: &Floats,
        x: &Floats,
        tokens: Tokens,
        out: &mut Floats,
    ) -> Result<()> {
        let ExpertWork { routing, input, gate, up, output, .. } = work;
        let n_scores = tokens.count() * experts.routing.n_expert;
        routing.route(&experts.routing, &scores[..n_scores], experts.choice_bias.map(|bias| &bias[..]));
        self.announce_experts(experts, routing);
        let n_embd = experts.down.n_rows;
        for expert in routing.experts() {
            let Chosen { rows, shares } = routing.chosen(expert);
            let gemv = rows.partition_point(|&row| (row as usize) < tokens.gemv);
            let tokens = Tokens { gemv, gemm: rows.len() - gemv };
            self.gather_rows(x, rows, n_embd, input);
            let [gate_rows, up_rows, down_rows] = matrices(experts, expert);
            let input = matmul::Input::Rows(&input[..rows.len() * n_embd]);
            let mut jobs =
                [job(&experts.gate, expert, &gate_rows, gate), job(&experts.up, expert, &up_rows, up)];
            self.multiply(&input, tokens, &mut jobs)?;
            let n_inner = rows.len() * experts.up.n_rows;
            let (gate, up) = (&gate[..n_inner], &up[..n_inner]);
            let inner = matmul::Input::Gated { activation: experts.activation, gate, up };
            self.multiply(&inner, tokens, &mut [job(&experts.down, expert, &down_rows, output)])?;
            for ((&row, &share), x) in rows.iter().zip(shares).zip(output.chunks_exact(n_embd)) {
                let out = &mut out[row as usize * n_embd..][..n_embd];
                out.iter_mut().zip(x).for_each(|(out, x)| *out += share * x);
            }
        }
        Ok(())
    }

    /// Says of the experts that are wanted that they will be used, and of those in memory that none is let go before.
    fn announce_experts(&mut self, experts: &Experts<'_, Self>, routing: &Routing) {
        let Some(stream) = &mut self.stream else { return };
        let wanted = routing.experts().map(|expert| (expert, routing.chosen(expert).rows.len()));
        for matrix in [&experts.gate, &experts.up, &experts.down] {
            // Where gate and up share a tensor, it is announced once: by the one that begins it.
            if let Some(rows) = matrix.all.streamed.as_ref().filter(|_| matrix.first == 0) {
                stream.experts.begin(rows.range, wanted.clone());
            }
        }
        for expert in routing.experts() {
            matrices(experts, expert).iter().for_each(|matrix| self.will_use(matrix));
        }
    }
}

/// The gate, up and down of one expert.
fn matrices(experts: &Experts<'_, Cpu>, expert: usize) -> [CpuMatrix; 3] {
    [&experts.gate, &experts.up, &experts.down].map(|matrix| matrix.all.rows(matrix.rows(expert)))
}

/// The product with the matrix of one expert.
fn job<'a>(
    matrix: &ExpertMatrix<'a, Cpu>,
    expert: usize,
    rows: &'a CpuMatrix,
    out: &'a mut Floats,
) -> Job<'a> {
    let bias = matrix.bias.map(|bias| &bias[expert * matrix.n_rows..][..matrix.n_rows]);
    Job { matrix: rows, bias, accumulate: false, out }
}
