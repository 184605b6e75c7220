//! A mixture of experts, from the router's scores to the sum. Which experts rows go to is chosen on the device, where products
//! look it up; the host has no word in it but where experts are brought in once they are chosen: there it waits to hear which.

use std::ops::Range;

use metallic::backend::{Backend, ExpertMatrix, ExpertNeeds, Experts, RoutingShape, Scoring, Tokens};
use smallvec::SmallVec;

use super::Gpu;
use super::products::{GEMM_STEP, GEMM_TILE, MAT_VEC_LEN, MAX_ROWS};
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
    /// Pairs in tiles of one expert each, for GEMM.
    order: GpuBuffer,
    /// Inputs of the last product, where they are rounded.
    halves: GpuBuffer,
}

/// Products of pairs with matrices that share a tensor, each with its output.
struct Products<'a> {
    matrices: &'a [(&'a ExpertMatrix<'a, Gpu>, &'a GpuBuffer)],
    x: &'a GpuBuffer,
    /// The same for products by small matrices.
    halves: &'a GpuBuffer,
    work: &'a ExpertWork,
    /// Pairs that have a row of the input in common.
    in_input: usize,
    /// Those that are multiplied many at a time; those before are multiplied one by one.
    pairs: Range<usize>,
    n_expert: usize,
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

/// Tiles of so many pairs at most: of each expert the last may be filled in part.
fn n_tiles(n_pairs: usize, n_expert: usize) -> usize {
    n_pairs.div_ceil(GEMM_TILE).saturating_add(n_expert).min(n_pairs)
}

/// Values of each of its buffers.
fn lens(n_rows: usize, needs: &ExpertNeeds) -> [usize; 6] {
    let ExpertNeeds { n_expert, n_used, n_embd, n_ff } = *needs;
    let n_pairs = n_rows.saturating_mul(n_used);
    let [one, ff, embd] = [1, n_ff, n_embd].map(|len| n_pairs.saturating_mul(len));
    [one, one, ff, ff, embd, n_tiles(n_pairs, n_expert).saturating_mul(GEMM_TILE + 1)]
}

impl ExpertWork {
    fn new(vram: &Vram, n_rows: usize, needs: &ExpertNeeds) -> Result<Self> {
        if needs.n_expert > MAX_EXPERTS {
            return Err(Error::unsupported(format!("a choice among more than {MAX_EXPERTS} experts")));
        }
        if n_rows > MAX_ROWS {
            return Err(Error::unsupported(format!("a batch of more than {MAX_ROWS} rows")));
        }
        let words = |len| vram.words(EXPERTS, len);
        let [chosen, shares, gate, up, output, order] = lens(n_rows, needs).map(words);
        let [chosen, shares, gate] = [chosen?, shares?, gate?];
        let halves = vram.words(EXPERTS, 0)?;
        Ok(Self { chosen, shares, gate, up: up?, output: output?, order: order?, halves })
    }

    /// Bytes that [`new`](Self::new) allocates.
    pub(super) fn bytes(n_rows: usize, needs: &ExpertNeeds) -> u64 {
        lens(n_rows, needs).into_iter().map(|len| 4 * len as u64).fold(0, u64::saturating_add)
    }
}

impl Gpu {
    pub(super) fn make_experts(&mut self, n_rows: usize, needs: &ExpertNeeds) -> Result<()> {
        let mut work = ExpertWork::new(&self.vram, n_rows, needs)?;
        let words = self.rounding.words(n_rows * needs.n_used, needs.n_ff);
        work.halves = self.vram.words(EXPERTS, words)?;
        self.experts = Some(work);
        Ok(())
    }

    pub(super) fn mix_experts(
        &mut self,
        experts: &Experts<'_, Self>,
        scores: &GpuBuffer,
        x: &GpuBuffer,
        tokens: Tokens,
        out: &GpuBuffer,
    ) -> Result<()> {
        let n_rows = tokens.count();
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
        let n_gemv = tokens.gemv * routing.n_used;
        self.order_pairs(routing.n_expert, n_gemv..n_pairs, &work)?;
        let halves = self.rounding.inputs.clone();
        if [gate, up].iter().any(|matrix| self.matrices_for(matrix.all).is_some()) {
            self.halve(x, tokens.gemv..n_rows, up.all.row_len(), &halves)?;
        }
        let products = |matrices, x, halves, in_input| Products {
            matrices,
            x,
            halves,
            work: &work,
            in_input,
            pairs: n_gemv..n_pairs,
            n_expert: routing.n_expert,
        };
        for matrices in first {
            let missing = missing.next().unwrap_or_default();
            self.multiply_pairs(&products(matrices, x, &halves, routing.n_used), &missing)?;
        }
        let of_down = missing.next().unwrap_or_default();
        let inner = n_pairs * up.n_rows;
        self.each_activated(&kernels::GATE, *activation, &[&work.up, &work.gate], inner)?;
        if self.matrices_for(down.all).is_some() {
            self.halve(&work.up, n_gemv..n_pairs, down.all.row_len(), &work.halves)?;
        }
        self.multiply_pairs(&products(&to_down, &work.up, &work.halves, 1), &of_down)?;
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

    /// Puts those pairs in tiles that are multiplied many at a time.
    fn order_pairs(&mut self, n_expert: usize, pairs: Range<usize>, work: &ExpertWork) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let n_tiles = n_tiles(pairs.len(), n_expert);
        let params = [pairs.end, pairs.start, n_tiles].map(|n| n as u32);
        let buffers = [work.order.expect(n_tiles * (GEMM_TILE + 1)), &work.chosen];
        let constants = [("N_EXPERT", n_expert as u32)];
        let call = Call::new(&kernels::EXPERT_ORDER, &buffers, &params, Grid::Groups(1));
        self.run(&Call { constants: &constants, ..call })
    }

    /// The products of each pair with the matrices of its expert.
    fn multiply_pairs(&mut self, products: &Products<'_>, missing: &Missing) -> Result<()> {
        let all = products.matrices[0].0.all;
        products.x.expect(products.pairs.end / products.in_input * all.row_len());
        let Some(mut cache) = all.cache() else { return self.multiply_parts(products, all, 0) };
        for expert in &missing.staying {
            let Some((buffer, mut offset)) = cache.place(*expert) else { unreachable!("it is to stay") };
            for part in all.part(cache.rows(*expert)).parts() {
                offset += self.fill(part.place, buffer, offset)?;
            }
            cache.filled(*expert);
        }
        for (weights, first_rows, len) in cache.buffers() {
            let ([places_at], _) = self.note([Note::Numbers(&first_rows)])?;
            let rows = RowsHere { first: 0, len, first_in_buffer: 0, places_at };
            self.multiply_rows(products, weights, rows)?;
        }
        for rows in &missing.passing {
            self.multiply_parts(products, &all.part(rows.clone()), rows.start)?;
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

    /// The products with those experts whose rows a buffer has: of tokens that are multiplied one by one, which come first, and
    /// of the others.
    fn multiply_rows(&mut self, products: &Products<'_>, weights: &GpuBuffer, here: RowsHere) -> Result<()> {
        let Products { matrices, x, halves, work, in_input, n_expert, .. } = *products;
        let pairs = products.pairs.clone();
        let (nothing, notes) = (self.nothing.clone(), self.recorder.get_mut().notes());
        for (matrix, out) in matrices {
            let (all, bias) = (matrix.all, matrix.bias.unwrap_or(&nothing));
            out.expect(pairs.end * matrix.n_rows);
            let rows = [here.first, here.len, here.first_in_buffer, matrix.first, matrix.stride];
            let of_matrix = [all.n_blocks(), all.row_len(), in_input, usize::from(matrix.bias.is_some())];
            let in_tiles = all.row_len().is_multiple_of(GEMM_STEP);
            let n_gemv = if in_tiles { pairs.start } else { pairs.end };
            if n_gemv > 0 {
                let n_groups = n_gemv * matrix.n_rows;
                let params = words(&[&rows, &[here.places_at as usize, n_groups, matrix.n_rows], &of_matrix]);
                let buffers = [weights, x, &work.chosen, bias, out, &notes];
                let call = Call::new(&kernels::EXPERT_MAT_VEC, &buffers, &params, Grid::Groups(n_groups));
                let n_multiplications = (n_groups * all.row_len()) as u64;
                let constants = [("GROUP_LEN", MAT_VEC_LEN)];
                let decoder = Some(all.decoder);
                self.run(&Call { decoder, constants: &constants, n_multiplications, ..call })?;
            }
            if n_gemv < pairs.end {
                let n_tiles = n_tiles(pairs.len(), n_expert);
                let params =
                    words(&[&rows, &[here.places_at as usize, matrix.n_rows], &of_matrix, &[n_tiles]]);
                let matrices = self.matrices_for(all);
                let constants = matrices.map(|matrices| matrices.constants());
                let (kernel, x) = match matrices {
                    Some(matrices) => {
                        (matrices.kernel(&kernels::EXPERT_GEMM_BY_8, &kernels::EXPERT_GEMM_BY_16), halves)
                    }
                    None => (&kernels::EXPERT_GEMM, x),
                };
                let buffers = [weights, x, bias, &work.order, out, &notes];
                let grid = Grid::GroupsOf(matrix.n_rows.div_ceil(GEMM_TILE), n_tiles);
                let constants = constants.as_ref().map_or(&[][..], |constants| constants);
                let call = Call { constants, ..Call::new(kernel, &buffers, &params, grid) };
                let n_multiplications = (pairs.len() * matrix.n_rows * all.row_len()) as u64;
                self.run(&Call { decoder: Some(all.decoder), n_multiplications, ..call })?;
            }
        }
        Ok(())
    }
}

/// Parameters of a kernel.
fn words(params: &[&[usize]]) -> SmallVec<[u32; 16]> {
    params.iter().copied().flatten().map(|n| *n as u32).collect()
}
