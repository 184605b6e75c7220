//! What predictions decide of where a model is computed, where the arguments leave it open: whether a GPU computes at all, which
//! parts, and for which prompts networks of the CPU are swapped to it.

use metallic::GgufLoader;
use metallic::plan::MemoryPlan;

use crate::args::{EngineArgs, GpuLayers, OpOffload, RateArgs};
use crate::failure::Result;
use crate::rates::{self, MachineRates};
use crate::terminal::Terminal;

/// A loader for which all is decided.
pub(crate) struct Decided {
    pub(crate) loader: GgufLoader<'static>,
    /// What was measured for that.
    pub(crate) rates: Option<MachineRates>,
    /// Whether it plans as before.
    pub(crate) is_as_before: bool,
}

/// Decides what is open of a `loader` with a `plan`, of which `on_cpu` is one without a GPU if there may be none. Where that
/// depends on what this machine can do, it is measured, but for what is given.
pub(crate) fn decide(
    loader: GgufLoader<'static>,
    plan: &MemoryPlan,
    on_cpu: Option<&MemoryPlan>,
    args: &EngineArgs,
    given: &RateArgs,
    terminal: &Terminal,
) -> Result<Decided> {
    if let OpOffload::From(n_tokens) = args.compute.op_offload {
        let loader = loader.lend_for_prompts(Some(n_tokens as usize));
        return Ok(Decided { loader, rates: None, is_as_before: false });
    }
    if args.compute.gpu_layers != GpuLayers::Auto || !leaves_a_choice(plan, on_cpu) {
        return Ok(Decided { loader, rates: None, is_as_before: true });
    }
    // None if the slots for them have no room.
    let lending = |loader: GgufLoader<'static>| {
        let loader = loader.lend_for_prompts(Some(1));
        let lent = loader.plan().ok().map(|(_, plan)| plan).filter(|plan| plan.lent_bytes() > 0);
        (loader.lend_for_prompts(None), lent)
    };
    let (loader, lent) = lending(loader);
    let machine = rates::measure(given, args, loader.file(), lent.as_ref().unwrap_or(plan), terminal)?;
    let Some(rates) = machine.for_plan(lent.as_ref().unwrap_or(plan)) else {
        return Ok(Decided { loader, rates: Some(machine), is_as_before: true });
    };
    let loader = loader.rates(rates.clone());
    let (loader, lent) =
        if args.compute.op_offload == OpOffload::Off { (loader, None) } else { lending(loader) };
    let pays = lent.as_ref().and_then(|lent| lent.lending_pays_from(&rates));
    let loader = loader.lend_for_prompts(pays);
    let decided = |loader| Decided { loader, rates: Some(machine), is_as_before: false };
    if let (Some(on_cpu), Ok((_, with_gpu))) = (on_cpu, loader.plan())
        && on_cpu.predict_seconds(&rates) < with_gpu.predict_seconds(&rates)
    {
        terminal.note(format_args!(
            "the CPU is predicted to be faster than a GPU, and computes alone; --device names one all the same"
        ));
        return Ok(decided(loader.without_devices()));
    }
    Ok(decided(loader))
}

/// Whether predictions may change a plan: where it has several GPUs, leaves networks to the CPU, or the CPU might compute alone.
fn leaves_a_choice(plan: &MemoryPlan, on_cpu: Option<&MemoryPlan>) -> bool {
    let n_networks: usize = plan.devices.iter().map(|device| device.n_networks).sum();
    let on_cpu_is_open = on_cpu.is_some() && !plan.devices.is_empty();
    let leaves_some = plan.devices.first().is_some_and(|device| n_networks < device.n_layers);
    plan.devices.len() > 1 || leaves_some || on_cpu_is_open
}
