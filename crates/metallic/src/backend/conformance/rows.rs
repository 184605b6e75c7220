//! Rows by their numbers and positions, and columns of them.

use super::computation::{Computation, buffer, random, values};
use super::suite::{Bound, Suite};
use crate::backend::{Backend, Columns, RopeConfig, RopePairs, Temperature, Yarn};
use crate::error::Result;

/// Rows, and their width.
const SHAPES: [[usize; 2]; 9] =
    [[0, 32], [1, 1], [1, 32], [3, 33], [33, 96], [5, 576], [257, 64], [2, 4096], [3, 16 << 10]];

/// An operation.
#[derive(Clone, Copy, Debug)]
enum Each {
    GateRows,
    DivideRows,
    Warm,
    GatherRows,
    CopyColumns,
}

struct Rows {
    each: Each,
    shape: [usize; 2],
}

impl Computation for Rows {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let [n_rows, width] = self.shape;
        // A row more, which is to stay as it is.
        let len = (n_rows + 1) * width;
        let (mut x, from) = (buffer(b, &random(4, len))?, buffer(b, &random(5, len))?);
        match self.each {
            Each::GateRows => {
                let scores = buffer(b, &random(22, n_rows + 1))?;
                b.gate_rows(&scores, &mut x, n_rows, width);
            }
            Each::DivideRows => {
                let divisors = buffer(b, &random(3, width))?;
                b.divide_rows(&mut x, n_rows, &divisors);
            }
            Each::Warm => {
                let positions: Vec<u32> = (0..n_rows as u32).map(|row| 37 * row).collect();
                b.warm(Temperature { scale: 0.7, length: 100 }, &positions, &mut x, width);
                // None that is touched.
                b.warm(Temperature { scale: 0.7, length: 1 << 20 }, &positions, &mut x, width);
            }
            Each::GatherRows => {
                let rows: Vec<u32> = (0..n_rows).map(|row| ((row * row + 1) % (n_rows + 1)) as u32).collect();
                b.gather_rows(&from, &rows, width, &mut x);
            }
            Each::CopyColumns => {
                let n_columns = width.div_ceil(2);
                let right = Columns { first: width - n_columns, stride: width };
                b.copy_columns(&from, right, &mut x, Columns::all(n_columns), n_columns, n_rows);
            }
        }
        values(b, &x, len)
    }
}

/// Two batches of rotations, of which the second is told before the first was computed.
struct Rotations {
    config: RopeConfig,
    has_factors: bool,
    positions: Vec<u32>,
    n_heads: usize,
    head_len: usize,
}

impl Computation for Rotations {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { config, has_factors, positions, n_heads, head_len } = self;
        let (n_rows, len) = (positions.len(), (positions.len() + 1) * n_heads * head_len);
        let factors: Vec<f32> = random(16, config.n_rot / 2).iter().map(|x| 2.0 + x).collect();
        let mut rope = b.rope(config, has_factors.then_some(&factors), n_rows + 1)?;
        let mut x = buffer(b, &random(17, len))?;
        b.rope_positions(&mut rope, positions);
        b.rotate(&rope, &mut x, n_rows, *n_heads, *head_len);
        b.rope_positions(&mut rope, &[7]);
        b.rotate(&rope, &mut x, 1, *n_heads, *head_len);
        values(b, &x, len)
    }
}

pub(super) fn check<B: Backend>(suite: &mut Suite<'_, B>) {
    for shape in SHAPES {
        let [n_rows, width] = shape;
        let what = format!("{n_rows} rows of {width}");
        let near = Bound::Nmse(suite.bounds.floats);
        for (operation, each, bound) in [
            ("gate_rows", Each::GateRows, &near),
            ("divide_rows", Each::DivideRows, &near),
            ("warm", Each::Warm, &near),
            ("gather_rows", Each::GatherRows, &Bound::Bits),
            ("copy_columns", Each::CopyColumns, &Bound::Bits),
        ] {
            suite.compare(operation, &what, bound.clone(), &Rows { each, shape });
        }
    }
    let yarn = Yarn { ext_factor: 1.0, beta_fast: 32.0, beta_slow: 1.0, original_context: 4096 };
    for pairs in [RopePairs::Adjacent, RopePairs::Halves] {
        for (n_rows, n_heads, head_len, n_rot) in [
            (0, 1, 32, 32),
            (1, 1, 32, 32),
            (3, 5, 24, 12),
            (33, 2, 80, 80),
            (257, 9, 64, 2),
            (2, 1, 576, 64),
        ] {
            for (name, has_factors, yarn) in
                [("plain", false, None), ("with factors", true, None), ("YaRN", false, Some(yarn))]
            {
                let config =
                    RopeConfig { pairs, n_rot, freq_base: 10_000.0, freq_scale: 0.5, attn_factor: 1.1, yarn };
                let positions = (0..n_rows).map(|row| row * row % 7 * 20_011 + row).collect();
                let what =
                    format!("{pairs:?}, {name}, {n_rot} of {n_heads} heads of {head_len}, {n_rows} rows");
                let rotations = Rotations { config, has_factors, positions, n_heads, head_len };
                suite.compare("rotate", &what, Bound::Nmse(suite.bounds.floats), &rotations);
            }
        }
    }
}
