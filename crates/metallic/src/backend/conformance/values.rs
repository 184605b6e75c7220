//! Operations on values one by one.

use super::computation::{Computation, buffer, random, values};
use super::suite::{Bound, Suite};
use crate::backend::{Activation, Backend};
use crate::error::Result;

/// Lengths: none, fewer and more than a vector, a warp or a workgroup takes, and enough to share among threads.
const LENGTHS: [usize; 7] = [0, 1, 3, 33, 257, 700, 16 << 10];

/// Inputs whose powers and exponentials leave the range of floats.
const EXTREMES: [f32; 14] =
    [0.0, -0.0, 1e-30, -1e-30, 1.0, -1.0, 20.0, -20.0, 90.0, -90.0, 1e4, -1e4, 1e15, -1e15];

/// An operation.
#[derive(Clone, Copy, Debug)]
enum Each {
    Activate(Activation),
    Gate(Activation),
    Add(f32),
    Clamp(f32),
    Softcap(f32),
    Scale(f32),
    Clear,
}

impl Each {
    fn operation(self) -> &'static str {
        match self {
            Each::Activate(_) => "activate",
            Each::Gate(_) => "gate",
            Each::Add(_) => "add",
            Each::Clamp(_) => "clamp",
            Each::Softcap(_) => "softcap",
            Each::Scale(_) => "scale",
            Each::Clear => "clear",
        }
    }
}

/// It, over the first `len` of more values.
struct Values<'a> {
    each: Each,
    x: &'a [f32],
    len: usize,
}

impl Computation for Values<'_> {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { each, x, len } = *self;
        let all_len = x.len();
        let (mut x, other) = (buffer(b, x)?, buffer(b, &random(2, all_len))?);
        match each {
            Each::Activate(activation) => b.activate(activation, &mut x, len),
            // What it is applied to is what the others change.
            Each::Gate(activation) => {
                let mut gated = other;
                b.gate(activation, &x, &mut gated, len);
                return values(b, &gated, all_len);
            }
            Each::Add(factor) => b.add(&mut x, &other, factor, len),
            Each::Clamp(limit) => b.clamp(&mut x, limit, len),
            Each::Softcap(cap) => b.softcap(&mut x, cap, len),
            Each::Scale(factor) => b.scale(&mut x, factor, len),
            Each::Clear => b.clear(&mut x, len),
        }
        values(b, &x, all_len)
    }
}

pub(super) fn check<B: Backend>(suite: &mut Suite<'_, B>) {
    let functions = Activation::ALL.into_iter().flat_map(|f| [Each::Activate(f), Each::Gate(f)]);
    let others = [Each::Add(0.3), Each::Clamp(2.5), Each::Softcap(4.0), Each::Scale(7.0), Each::Clear];
    for each in functions.chain(others) {
        for len in LENGTHS {
            let x: Vec<f32> = random(1, len + 3).iter().map(|x| 12.0 * x).collect();
            let bound = Bound::Nmse(suite.bounds.floats);
            let what = format!("{each:?}, {len} values");
            suite.compare(each.operation(), what, bound, &Values { each, x: &x, len });
        }
        let extremes = Values { each, x: &EXTREMES, len: EXTREMES.len() };
        let what = format!("{each:?}, values of any size");
        suite.compare(each.operation(), what, Bound::Relative(1e-5), &extremes);
    }
}
