//! Norms of rows, and of their parts.

use super::computation::{Computation, buffer, optional, random, values};
use super::suite::{Bound, Suite};
use crate::backend::{Backend, Norm, NormKind};
use crate::error::Result;

/// Rows, their width, and parts that each is divided into.
const SHAPES: [[usize; 3]; 10] = [
    [0, 32, 1],
    [1, 1, 1],
    [1, 32, 4],
    [3, 33, 1],
    [33, 96, 3],
    [257, 64, 2],
    [2, 576, 9],
    [3, 600, 5],
    [2, 4096, 32],
    [1, 16 << 10, 1],
];

/// Where norms go.
#[derive(Clone, Copy, Debug)]
enum Way {
    Out,
    InPlace,
    Added,
}

struct Norms {
    way: Way,
    kind: NormKind,
    has_bias: bool,
    shape: [usize; 3],
}

impl Computation for Norms {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let [n_rows, width, n_parts] = self.shape;
        let len = (n_rows + 1) * width;
        let mut x = buffer(b, &random(6, len))?;
        let weight = buffer(b, &random(7, width))?;
        let bias = optional(b, self.has_bias.then(|| random(8, width)))?;
        let mut out = buffer(b, &random(9, len))?;
        let norm = Norm { kind: self.kind, weight: &weight, bias: bias.as_ref(), eps: 1e-5 };
        match self.way {
            Way::Out => b.norm(&norm, &x, n_rows, &mut out),
            Way::Added => b.add_norm(&norm, &x, n_rows, 0.7, &mut out),
            Way::InPlace => {
                b.norm_in_place(&norm, &mut x, n_rows, n_parts);
                return values(b, &x, len);
            }
        }
        values(b, &out, len)
    }
}

pub(super) fn check<B: Backend>(suite: &mut Suite<'_, B>) {
    for (operation, way) in [("norm", Way::Out), ("norm_in_place", Way::InPlace), ("add_norm", Way::Added)] {
        for kind in [NormKind::Rms, NormKind::Layer] {
            for has_bias in [false, true] {
                for shape in SHAPES {
                    let [n_rows, width, n_parts] = shape;
                    let bias = if has_bias { ", bias" } else { "" };
                    let parts = if operation == "norm_in_place" { n_parts } else { 1 };
                    let what = format!("{kind:?}{bias}, {n_rows} rows of {parts} times {}", width / parts);
                    let norms = Norms { way, kind, has_bias, shape };
                    suite.compare(operation, what, Bound::Nmse(suite.bounds.floats), &norms);
                }
            }
        }
    }
}
