//! Whether a backend does what [`Backend`] says: each operation, with every type of weights, keys and values and with awkward
//! shapes, against the CPU's plain loops.
//!
//! Whoever writes a backend calls [`check`] in a test, with the bounds that its arithmetic allows:
//!
//! ```
//! use metallic::Isa;
//! use metallic::backend::Cpu;
//! use metallic::backend::conformance::{self, Bounds, Options};
//!
//! # fn main() -> metallic::Result<()> {
//! let mut backend = Cpu::new(2, Isa::best())?;
//! # let only = ["norm", "gather_rows"];
//! let options = Options { bounds: Bounds::ROUNDED, ..Options::default() };
//! # let options = Options { operations: Some(&only), ..options };
//! let report = conformance::check(&mut backend, &options)?;
//! println!("{report}");
//! report.assert_passed();
//! # Ok(()) }
//! ```
//!
//! A failure is named by its operation, type and shape, with the error beside its bound. Two kinds of things are checked:
//!
//! - Results are those of [`Cpu`] with [`Isa::Scalar`] on one thread. Where types round, the CPU gets the numbers that are
//!   left, as 32-bit floats: weights as its decoder has them, keys and values as its encoder makes them. So what a backend
//!   rounds besides is its own, and bounded by [`Bounds`]. Copies, decoding and choices of experts have no bound: they are exact.
//! - Results have the same bits in whatever company a row is computed, in whatever pieces a sequence is, and wherever rows of a
//!   matrix lie. [`Tokens`](super::Tokens) and [`Span::in_tiles`](super::Span::in_tiles) alone may select another way.
//!
//! What [`Backend::check`] refuses is not run, but must be refused at load as well; [`Report::refused`] lists it. [`ELSEWHERE`] is
//! what the suite leaves to other tests.

mod attention;
mod computation;
mod experts;
mod memory;
mod mixers;
mod norms;
mod products;
mod report;
mod rows;
mod suite;
mod values;
mod weights;

pub use report::{Case, Report, Verdict};
pub use suite::nmse;

use metallic_kernels::Isa;

use self::suite::Suite;
use super::{Backend, Cpu};
use crate::error::Result;

/// Methods of [`Backend`] that have no case of their own, and what tests them.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("charge_to", "the cases of `memory` and `bytes` ask the account that it names"),
    ("reserve_inputs", "the cases of `bytes` and of each product"),
    ("reserve_attention", "the cases of `bytes` and of `attention`"),
    ("reserve_experts", "the cases of `bytes` and of `experts`"),
    ("reserve_slots", "the cases of `bytes` and of `matrix_swapped`"),
    ("rope", "the cases of `rotate`"),
    ("rope_positions", "likewise"),
    ("shares_main_memory", "what a device is: plans of models"),
    ("check_room", "depends on what others take of a device: its own tests"),
    ("will_use", "needs a stream of weights: models that are swapped in"),
    ("forget_uses", "as `will_use`"),
    ("stream_stats", "as `will_use`"),
];

/// What is checked, and how exactly.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// How far results may be from the CPU's.
    pub bounds: Bounds,
    /// The operations to check, by the names of methods; `None` for all.
    pub operations: Option<&'a [&'a str]>,
    /// Whether every type is checked with every width: for a device that is new, not for every change.
    pub full: bool,
}

/// Normalised mean squared errors at most, [`nmse`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Of operations on 32-bit floats.
    pub floats: f64,
    /// Of products with weights of 16 bits.
    pub halves: f64,
    /// Of products with quantized weights.
    pub blocks: f64,
    /// Of attention to keys and values of fewer than 32 bits.
    pub kv: f64,
    /// Whether quotients are the nearest floats, as IEEE 754 has it: then keys and values are rounded to the CPU's blocks, bit
    /// for bit; else some are off by a step.
    pub divides_exactly: bool,
}

impl Bounds {
    /// Of a backend that computes with 32-bit floats, whatever types things are kept in: what differs is the order of sums.
    pub const FLOATS: Self =
        Self { floats: 1e-10, halves: 1e-10, blocks: 1e-10, kv: 1e-10, divides_exactly: true };

    /// Of one that rounds the inputs of products to 8 bits where weights are quantized, and queries to 8 bits or to bfloat16
    /// where keys and values are of such types, as [`Cpu`] does.
    pub const ROUNDED: Self = Self { blocks: 3e-4, kv: 3e-4, ..Self::FLOATS };
}

impl Default for Bounds {
    fn default() -> Self {
        Self::FLOATS
    }
}

/// Runs all cases, or those of the wanted operations, one after another on the same backend.
///
/// Where the backend has no account of its memory, it is [charged](Backend::charge_to) to one without a limit from then on.
///
/// # Errors
/// No thread for the CPU to compute with. What the backend fails at is in the report.
///
/// # Panics
/// Where the backend does; the case is printed then.
pub fn check<B: Backend>(backend: &mut B, options: &Options<'_>) -> Result<Report> {
    let mut suite = Suite::new(backend, Cpu::new(1, Isa::Scalar)?, options);
    memory::check(&mut suite);
    values::check(&mut suite);
    rows::check(&mut suite);
    norms::check(&mut suite);
    products::check(&mut suite);
    attention::check(&mut suite);
    experts::check(&mut suite);
    mixers::check(&mut suite);
    Ok(suite.into_report())
}
