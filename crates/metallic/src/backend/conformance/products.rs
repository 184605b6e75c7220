//! Products with matrices, and rows of them.

use std::ops::Range;

use metallic_gguf::GgmlType;

use super::computation::{Computation, buffer, optional, random, values};
use super::suite::{Bound, Suite};
use super::weights::Weights;
use crate::backend::{Activation, Backend, Cpu, Input, MatmulJob, Needs, Norm, NormKind, SwapNeeds, Tokens};
use crate::error::Result;

/// Widths of rows that models have. Of formats whose blocks do not divide one, it is left out.
const WIDTHS: [usize; 8] = [32, 64, 96, 256, 576, 768, 4096, 16 << 10];

/// Types that are checked with every width and shape: one of each form.
const TYPES: [GgmlType; 6] =
    [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q4_0, GgmlType::Q8_0, GgmlType::Q6_K];

/// Rows of matrices that fill no tile, and lengths of theirs: as many blocks, or numbers.
const SHAPES: [(GgmlType, usize, usize); 10] = [
    (GgmlType::F32, 33, 1),
    (GgmlType::F16, 32, 3),
    (GgmlType::F32, 1, 33),
    (GgmlType::BF16, 160, 70),
    (GgmlType::F32, 64, 66),
    (GgmlType::Q6_K, 1, 63),
    (GgmlType::Q8_0, 3, 64),
    (GgmlType::Q4_0, 1, 1),
    (GgmlType::Q4_0, 7, 131),
    (GgmlType::Q4_K, 2, 257),
];

/// Rows of inputs that fill no tile, either way.
const TOKENS: [[usize; 2]; 9] =
    [[1, 0], [0, 1], [9, 0], [0, 15], [2, 17], [1, 63], [0, 64], [65, 65], [0, 130]];

/// How the input is made on the way into products.
#[derive(Clone, Copy, Debug)]
enum Made {
    Rows,
    Norm(NormKind),
    Gated(Activation),
}

/// Where the rows of the matrix are.
#[derive(Clone, Debug)]
enum Place {
    Memory,
    /// Some rows of some rows of it.
    Rows([Range<usize>; 2]),
    /// All but so many are swapped in.
    Swapped(usize),
}

/// Products of one input with one or more matrices.
struct Product<'a> {
    weights: &'a [Weights],
    place: Place,
    made: Made,
    /// Number of the first row of the input.
    first: usize,
    tokens: Tokens,
    /// Whether a bias is added, and what was there.
    adds: bool,
}

impl<'a> Product<'a> {
    fn new(weights: &'a [Weights], [gemv, gemm]: [usize; 2]) -> Self {
        let tokens = Tokens { gemv, gemm };
        Self { weights, place: Place::Memory, made: Made::Rows, first: 0, tokens, adds: false }
    }

    /// The input's row `token` by itself.
    fn alone(&self, token: usize) -> Self {
        let tokens = if token < self.tokens.gemv { [1, 0] } else { [0, 1] };
        let first = self.first + token;
        Self { first, place: self.place.clone(), made: self.made, ..Self::new(self.weights, tokens) }
    }

    fn matrix<B: Backend>(&self, b: &mut B, weights: &Weights) -> Result<B::Matrix> {
        Ok(match &self.place {
            Place::Memory => b.matrix(weights.data())?,
            Place::Rows([some, of_some]) => {
                let all = b.matrix(weights.data())?;
                b.matrix_rows(&b.matrix_rows(&all, some.clone()), of_some.clone())
            }
            Place::Swapped(n_here) => {
                let row_bytes = weights.row_bytes();
                let needs = SwapNeeds { row_bytes, matrix_bytes: row_bytes * weights.n_rows };
                b.reserve_slots(&needs, None)?;
                let (here, more) = weights.divided(*n_here);
                b.matrix_swapped(here, weights.n_rows - n_here, more)?
            }
        })
    }

    /// Rows of a product.
    fn n_rows(&self, weights: &Weights) -> usize {
        match &self.place {
            Place::Rows([_, rows]) => rows.len(),
            _ => weights.n_rows,
        }
    }

    fn multiply<B: Backend>(&self, b: &mut B, input: &Input<'_, B>) -> Result<Vec<f32>> {
        let n_tokens = self.tokens.count();
        let mut operands = Vec::new();
        for weights in self.weights {
            let n_rows = self.n_rows(weights);
            let bias = optional(b, self.adds.then(|| random(15, n_rows)))?;
            // Three values more, which are to stay as they are.
            let out = buffer(b, &random(16, n_tokens * n_rows + 3))?;
            operands.push((self.matrix(b, weights)?, bias, out));
        }
        let jobs = operands.iter_mut().map(|(matrix, bias, out)| {
            let bias = bias.as_ref();
            MatmulJob { bias, accumulate: self.adds, ..MatmulJob::new(matrix, out) }
        });
        b.matmul(input, self.tokens, &mut jobs.collect::<Vec<_>>())?;
        let mut all = Vec::new();
        for (weights, (_, _, out)) in self.weights.iter().zip(&operands) {
            all.extend(values(b, out, n_tokens * self.n_rows(weights) + 3)?);
        }
        Ok(all)
    }
}

impl Computation for Product<'_> {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let row_len = self.weights[0].row_len;
        let n_tokens = self.tokens.count();
        b.reserve_inputs(n_tokens, row_len)?;
        let inputs = |seed| random(seed, (self.first + n_tokens) * row_len)[self.first * row_len..].to_vec();
        let x = buffer(b, &inputs(11))?;
        match self.made {
            Made::Rows => self.multiply(b, &Input::Rows(&x)),
            Made::Norm(kind) => {
                let (weight, bias) = (buffer(b, &random(13, row_len))?, buffer(b, &random(14, row_len))?);
                let norm = Norm { kind, weight: &weight, bias: Some(&bias), eps: 1e-5 };
                self.multiply(b, &Input::Norm { x: &x, norm })
            }
            Made::Gated(activation) => {
                let up = buffer(b, &inputs(12))?;
                self.multiply(b, &Input::Gated { activation, gate: &x, up: &up })
            }
        }
    }

    /// With the weights as floats, in memory.
    fn reference(&self, cpu: &mut Cpu) -> Result<Vec<f32>> {
        let weights: Vec<Weights> = self.weights.iter().map(Weights::as_floats).collect();
        let place = match &self.place {
            Place::Swapped(_) => Place::Memory,
            place => place.clone(),
        };
        Product { weights: &weights, place, ..*self }.run(cpu)
    }
}

/// The products alone, of a batch or row by row.
struct ByRow<'a>(&'a Product<'a>, bool);

impl Computation for ByRow<'_> {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self(product, alone) = self;
        let len = product.n_rows(&product.weights[0]);
        if !alone {
            let mut all = product.run(b)?;
            all.truncate(len * product.tokens.count());
            return Ok(all);
        }
        let mut all = Vec::new();
        for token in 0..product.tokens.count() {
            all.extend_from_slice(&product.alone(token).run(b)?[..len]);
        }
        Ok(all)
    }
}

/// Rows of a table.
struct Embedded<'a> {
    weights: &'a Weights,
    ids: &'a [u32],
    scale: f32,
}

impl Computation for Embedded<'_> {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let len = (self.ids.len() + 1) * self.weights.row_len;
        let table = b.matrix(self.weights.data())?;
        let mut out = buffer(b, &random(18, len))?;
        b.embed(&table, self.ids, self.scale, &mut out)?;
        values(b, &out, len)
    }
}

/// Whether the backend takes weights of a type.
pub(super) fn takes<B: Backend>(backend: &B, ggml_type: GgmlType) -> bool {
    backend.check(&NOTHING, &[ggml_type]).is_ok()
}

/// What a model of no layers needs.
pub(super) const NOTHING: Needs<'static> = Needs {
    n_rows: 1,
    row_len: 256,
    attention: &[],
    n_positions: 1,
    n_pages: 1,
    ropes: &[],
    experts: None,
    swapped: SwapNeeds { row_bytes: 0, matrix_bytes: 0 },
};

impl<B: Backend> Suite<'_, B> {
    fn product(&mut self, what: &str, product: &Product<'_>) {
        let Weights { ggml_type, row_len, n_rows, .. } = product.weights[0];
        let Tokens { gemv, gemm } = product.tokens;
        let what = format!("{ggml_type}{what}, {n_rows} rows of {row_len}, {gemv} + {gemm} tokens");
        self.compare("matmul", what, self.bound_of(ggml_type), product);
    }
}

pub(super) fn check<B: Backend>(suite: &mut Suite<'_, B>) {
    let is_taken = |ggml_type: &GgmlType| takes(suite.backend, *ggml_type);
    let types: Vec<GgmlType> = GgmlType::ALL.iter().copied().filter(is_taken).collect();
    for &ggml_type in GgmlType::ALL {
        if types.contains(&ggml_type) {
            suite.hold("matrix", ggml_type, |backend, _| {
                backend.matrix(Weights::random(ggml_type, 256, 1).data()).map(|_| Ok(()))
            });
            of_type(suite, ggml_type);
        } else {
            suite.hold("matrix", format!("{ggml_type}, which is refused"), |backend, _| {
                let matrix = backend.matrix(Weights::random(ggml_type, 256, 1).data());
                Ok(matrix.err().map(|_| ()).ok_or_else(|| "taken, but `check` refuses it".to_owned()))
            });
            suite.refused("matrix", ggml_type);
        }
    }
    widths(suite, &types);
    for (ggml_type, n_blocks, n_rows) in SHAPES.into_iter().filter(|(t, ..)| types.contains(t)) {
        shape(suite, &[Weights::random(ggml_type, n_blocks * ggml_type.block_len(), n_rows)]);
    }
    inputs(suite);
    if suite.backend.memory().is_some() {
        swapped(suite);
    }
}

/// One type, with rows that no tile divides.
fn of_type<B: Backend>(suite: &mut Suite<'_, B>, ggml_type: GgmlType) {
    let n_blocks = if ggml_type.is_quantized() { 5 } else { 163 };
    let row_len = n_blocks * ggml_type.block_len();
    let table = Weights::patterns(ggml_type, row_len, 37);
    let ids: Vec<u32> = (0..37).rev().chain([5, 5]).collect();
    for (what, ids, scale) in [("each row", &ids[..], 1.0), ("scaled", &ids[..3], 3.7), ("none", &[], 2.0)] {
        let what = format!("{ggml_type}, 37 rows of {row_len}, {what}");
        suite.compare("embed", what, Bound::Exact, &Embedded { weights: &table, ids, scale });
    }
    // Plain numbers in rows that tiles take, and in some that they don't.
    let lengths = if ggml_type.is_quantized() { vec![row_len] } else { vec![160, row_len] };
    for row_len in lengths {
        let weights = [Weights::random(ggml_type, row_len, 37)];
        suite.product("", &Product::new(&weights, [3, 0]));
        suite.product("", &Product::new(&weights, [2, 9]));
        let batch = Product::new(&weights, [1, 2]);
        let what = format!("{ggml_type}, 37 rows of {row_len}, tokens alone and in a batch");
        suite.same_bits("matmul", what, [&ByRow(&batch, false), &ByRow(&batch, true)]);
    }
}

fn widths<B: Backend>(suite: &mut Suite<'_, B>, types: &[GgmlType]) {
    let (full, wanted) = (suite.full, |ggml_type: &&GgmlType| TYPES.contains(ggml_type));
    for &ggml_type in types.iter().filter(|ggml_type| full || wanted(ggml_type)) {
        for width in WIDTHS.into_iter().filter(|width| width.is_multiple_of(ggml_type.block_len())) {
            let weights = [Weights::random(ggml_type, width, 33)];
            suite.product("", &Product::new(&weights, [1, 9]));
            let what = format!("{ggml_type}, 33 rows of {width}");
            let embedded = Embedded { weights: &weights[0], ids: &[32, 0, 7], scale: 1.0 };
            suite.compare("embed", what, Bound::Exact, &embedded);
        }
    }
}

/// Tiles that are not full, what is added, and some of the rows.
fn shape<B: Backend>(suite: &mut Suite<'_, B>, weights: &[Weights]) {
    for tokens in TOKENS {
        suite.product("", &Product::new(weights, tokens));
        suite.product(", added", &Product { adds: true, ..Product::new(weights, tokens) });
    }
    let batch = Product::new(weights, [2, 18]);
    let Weights { ggml_type, row_len, n_rows, .. } = weights[0];
    let what = format!("{ggml_type}, {n_rows} rows of {row_len}, tokens alone and in a batch");
    suite.same_bits("matmul", what, [&ByRow(&batch, false), &ByRow(&batch, true)]);
    let what = format!("{ggml_type}, the last half of {n_rows} rows of {row_len}");
    let half = [n_rows / 3..n_rows, n_rows / 2 - n_rows / 3..n_rows - n_rows / 3];
    let some = Product { place: Place::Rows(half), ..Product::new(weights, [2, 18]) };
    suite.compare("matrix_rows", &what, suite.bound_of(ggml_type), &some);
    let (some, of_all) = (ByRow(&some, false), LastHalf(&batch));
    suite.same_bits_of("matrix_rows", format!("{what}, by themselves and among all"), &some, &of_all);
}

/// Of products with all rows, those with the last half.
struct LastHalf<'a>(&'a Product<'a>);

impl Computation for LastHalf<'_> {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let n_rows = self.0.weights[0].n_rows;
        let all = ByRow(self.0, false).run(b)?;
        Ok(all.chunks_exact(n_rows).flat_map(|row| &row[n_rows / 2..]).copied().collect())
    }
}

/// Inputs of every kind, for several matrices at once, and for none.
fn inputs<B: Backend>(suite: &mut Suite<'_, B>) {
    let types = [GgmlType::Q4_0, GgmlType::F32, GgmlType::Q8_0];
    if !types.iter().all(|ggml_type| takes(suite.backend, *ggml_type)) {
        return;
    }
    let blocks = types.map(|ggml_type| Weights::random(ggml_type, 96, 5 + ggml_type.block_bytes()));
    let floats = [33, 1].map(|n_rows| Weights::random(GgmlType::F32, 33, n_rows));
    let gated = Activation::ALL.map(Made::Gated);
    let kinds = [Made::Rows, Made::Norm(NormKind::Rms), Made::Norm(NormKind::Layer)];
    for weights in [&blocks[..], &floats] {
        for made in kinds.into_iter().chain(gated) {
            for adds in [false, true] {
                let product = Product { made, adds, ..Product::new(weights, [2, 10]) };
                let what = format!(" and others, {made:?}{}", if adds { ", added" } else { "" });
                suite.product(&what, &product);
            }
        }
        suite.product(" and others", &Product { adds: true, ..Product::new(weights, [0, 0]) });
    }
    suite.hold("matmul", "no matrix", |backend, _| {
        let x = backend.buffer("a case", 32)?;
        backend.matmul(&Input::Rows(&x), Tokens { gemv: 1, gemm: 0 }, &mut [])?;
        Ok(Ok(()))
    });
}

/// Rows that a backend with memory of its own has there, and others that are brought there as they are used: more than are
/// brought at a time.
fn swapped<B: Backend>(suite: &mut Suite<'_, B>) {
    for (ggml_type, row_len, n_rows, resident_rows) in [
        (GgmlType::F32, 33, 33, &[0, 1, 32][..]),
        (GgmlType::Q8_0, 96, 257, &[0, 1, 256]),
        (GgmlType::F32, 4096, 300, &[1]),
    ] {
        if !takes(suite.backend, ggml_type) {
            continue;
        }
        let weights = [Weights::random(ggml_type, row_len, n_rows)];
        let resident = Product::new(&weights, [1, 9]);
        for &n_here in resident_rows {
            let what = format!("{ggml_type}, {} of {n_rows} rows of {row_len}", n_rows - n_here);
            let swapped = Product { place: Place::Swapped(n_here), ..Product::new(&weights, [1, 9]) };
            suite.same_bits("matrix_swapped", what, [&resident, &swapped]);
        }
    }
}
