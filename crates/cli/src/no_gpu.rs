//! In place of `gpu` in a program built without it.

use metallic::GgufLoader;
/// Stands for one, where code is written for it and none is.
pub(crate) use metallic::backend::Cpu as Gpu;

use crate::args::{ComputeArgs, DevicesArgs};
use crate::failure::{Failure, Kind, Result};
use crate::terminal::Terminal;

/// What no GPU counts.
#[derive(Clone, Default)]
pub(crate) struct GpuCounters;

impl GpuCounters {
    /// None.
    pub(crate) fn n_compiled(&self) -> u64 {
        0
    }
}

/// Says that it can't, if a GPU is asked for.
pub(crate) fn offload<'p>(
    loader: GgufLoader<'p>,
    args: &ComputeArgs,
) -> Result<(GgufLoader<'p>, GpuCounters)> {
    if args.gpus().is_empty() { Ok((loader, GpuCounters)) } else { Err(cannot("can't use a GPU")) }
}

/// Measures nothing: no plan has a GPU.
pub(crate) fn measure<T>(_: &ComputeArgs, _: impl FnMut(&mut Gpu) -> Result<T>) -> Result<Vec<T>> {
    Ok(Vec::new())
}

/// None.
pub(crate) fn room_bytes(_: &Gpu) -> u64 {
    0
}

/// None.
pub(crate) fn copy_rate(_: &mut Gpu) -> Result<Option<f64>> {
    Ok(None)
}

/// None is.
pub(crate) fn has_lost(_: &metallic::Error) -> bool {
    false
}

/// Nothing: there is no GPU that an error could be of.
pub(crate) fn advice(_: &metallic::Error) -> Option<&'static str> {
    None
}

/// Says that it can't.
pub(crate) fn run(_: &DevicesArgs, _: &Terminal) -> Result<()> {
    Err(cannot("can't list GPUs"))
}

fn cannot(what: &str) -> Failure {
    Failure::new(Kind::General, what)
        .because("this program was built without a backend for GPUs")
        .advice("build it with the feature `gpu`")
}
