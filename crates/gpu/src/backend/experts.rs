//! A mixture of experts, from the router's scores to the sum. Which experts rows go to is chosen on the device, where products
//! look it up; the host has no word in it but where experts are brought in once they are chosen: there it waits to hear which.

use metallic::backend::{Backend, ExpertMatrix, ExpertNeeds, Experts, RoutingShape, Scoring};

use super::Gpu;
use super::products::{MAT_VEC_LEN, MAX_ROWS};
use crate::error::{Error, Result};
use crate::expert_cache::{Missing, NOWHERE};
use crate::kernels::{self, Call, Grid};
use crate::matrix::GpuMatrix;
use crate::memory::{GpuBuffer, Vram};
use crate::recorder::Note;

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

/// Products of pairs with matrices that share a tensor, each with its output.
#[derive(Clone, Copy)]
struct Products<'a> {
    matrices: &'a [(&'a ExpertMatrix<'a, Gpu>, &'a GpuBuffer)],
    x: &'a GpuBuffer,
    chosen: &'a GpuBuffer,
    in_input: usize,
    n_pairs: usize,
}

/// Rows that a buffer has: of the tensor those from `first` on, or as the notes say at `places_at`.
#[derive(Clone, Copy)]
struct RowsHere {
    first: usize,
    len: usize,
    first_in_buffer: usize,
    places_at: u32,
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
        let to_down = [(down, &work.output)];
        let tensors: Vec<&GpuMatrix> =
            first.iter().map(|matrices| matrices[0].0.all).chain([down.all]).collect();
        tensors.iter().filter(|matrix| matrix.cache().is_none()).for_each(|matrix| self.will_use(matrix));
        self.route(routing, *choice_bias, scores, n_rows, &work)?;
        let mut missing = self.missing(&tensors, &work.chosen, n_pairs)?.into_iter();
        for matrices in first {
            let missing = missing.next().unwrap_or_default();
            self.multiply_pairs(matrices, [x, &work.chosen], routing.n_used, n_pairs, &missing)?;
        }
        let of_down = missing.next().unwrap_or_default();
        let inner = n_pairs * up.n_rows;
        self.each_activated(&kernels::GATE, *activation, &[&work.up, &work.gate], inner)?;
        self.multiply_pairs(&to_down, [&work.up, &work.chosen], 1, n_pairs, &of_down)?;
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

    /// What is missing of each matrix of experts for those that rows were sent to, in the order in which it is announced and must
    /// be brought. Waits for the choice, if any matrix needs it.
    fn missing(
        &mut self,
        matrices: &[&GpuMatrix],
        chosen: &GpuBuffer,
        n_pairs: usize,
    ) -> Result<Vec<Missing>> {
        if matrices.iter().all(|matrix| matrix.cache().is_none()) {
            return Ok(Vec::new());
        }
        let mut choices = vec![0; n_pairs];
        self.recorder.get_mut().read_words(chosen, 0, &mut choices, |word| word as usize)?;
        choices.sort_unstable();
        let wanted: Vec<(usize, usize)> =
            choices.chunk_by(|a, b| a == b).map(|rows| (rows[0], rows.len())).collect();
        let missing = matrices.iter().map(|matrix| {
            let Some(mut cache) = matrix.cache() else { return Missing::default() };
            let (missing, counts) = cache.begin(&wanted);
            self.recorder.get_mut().counters().found(counts, cache.expert_bytes());
            let staying = missing.staying.iter().map(|expert| cache.rows(*expert));
            staying.chain(missing.passing.iter().cloned()).for_each(|rows| self.will_use(&matrix.part(rows)));
            missing
        });
        Ok(missing.collect())
    }

    /// The products of each pair with the matrices of its expert, of inputs that `in_input` pairs have in common. The matrices
    /// share a tensor; each has its output.
    fn multiply_pairs(
        &mut self,
        matrices: &[(&ExpertMatrix<'_, Self>, &GpuBuffer)],
        [x, chosen]: [&GpuBuffer; 2],
        in_input: usize,
        n_pairs: usize,
        missing: &Missing,
    ) -> Result<()> {
        let all = matrices[0].0.all;
        x.expect(n_pairs / in_input * all.row_len());
        let products = Products { matrices, x, chosen, in_input, n_pairs };
        let Some(mut cache) = all.cache() else { return self.multiply_parts(&products, all, 0) };
        for expert in &missing.staying {
            let Some((buffer, mut offset)) = cache.place(*expert) else { unreachable!("it is to stay") };
            for part in all.part(cache.rows(*expert)).parts() {
                offset += self.fill(part.place, buffer, offset)?;
            }
            cache.filled(*expert);
        }
        for (weights, first_rows, n_rows) in cache.buffers() {
            let ([places_at], _) = self.note([Note::Numbers(&first_rows)])?;
            self.multiply_rows(
                &products,
                weights,
                RowsHere { first: 0, len: n_rows, first_in_buffer: 0, places_at },
            )?;
        }
        for rows in &missing.passing {
            self.multiply_parts(&products, &all.part(rows.clone()), rows.start)?;
        }
        Ok(())
    }

    /// The products with those experts whose rows `matrix` has, which are those from `first` on of the whole.
    fn multiply_parts(&mut self, products: &Products<'_>, matrix: &GpuMatrix, first: usize) -> Result<()> {
        for part in matrix.parts() {
            let weights = self.on_device(part.place)?;
            let (first, first_in_buffer) = (first + part.rows.start, part.first_in_buffer);
            let rows = RowsHere { first, len: part.rows.len(), first_in_buffer, places_at: NOWHERE };
            self.multiply_rows(products, &weights, rows)?;
        }
        Ok(())
    }

    /// The products with those experts whose rows a buffer has.
    fn multiply_rows(&mut self, products: &Products<'_>, weights: &GpuBuffer, rows: RowsHere) -> Result<()> {
        let Products { matrices, x, chosen, in_input, n_pairs } = *products;
        let (nothing, notes) = (self.nothing.clone(), self.recorder.get_mut().notes());
        let constants = [("GROUP_LEN", MAT_VEC_LEN)];
        for (matrix, out) in matrices {
            let (all, n_products) = (matrix.all, n_pairs * matrix.n_rows);
            let params = [
                n_products as u32,
                matrix.n_rows as u32,
                rows.first as u32,
                rows.len as u32,
                rows.first_in_buffer as u32,
                matrix.first as u32,
                matrix.stride as u32,
                all.n_blocks() as u32,
                all.row_len() as u32,
                in_input as u32,
                matrix.bias.is_some().into(),
                rows.places_at,
            ];
            let bias = matrix.bias.unwrap_or(&nothing);
            let buffers = [weights, x, chosen, bias, out.expect(n_products), &notes];
            let call = Call::new(&kernels::EXPERT_MAT_VEC, &buffers, &params, Grid::Groups(n_products));
            let n_multiplications = (n_products * all.row_len()) as u64;
            let call = Call { decoder: Some(all.decoder), constants: &constants, n_multiplications, ..call };
            self.run(&call)?;
        }
        Ok(())
    }
}
