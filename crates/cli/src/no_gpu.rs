//! In place of `gpu` in a program built without it.

use metallic::GgufLoader;

use crate::args::{ComputeArgs, DeviceName, DevicesArgs, GpuLayers};
use crate::failure::{Failure, Kind, Result};
use crate::terminal::Terminal;

/// Says that it can't, if a GPU is asked for.
pub(crate) fn offload<'p>(loader: GgufLoader<'p>, args: &ComputeArgs) -> Result<GgufLoader<'p>> {
    match args.device() {
        _ if args.gpu_layers == GpuLayers::Last(0) => Ok(loader),
        DeviceName::Cpu => Ok(loader),
        DeviceName::Auto | DeviceName::Index(_) | DeviceName::Name(_) => Err(cannot("can't use a GPU")),
    }
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
