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
    let asked = match args.compute.op_offload {
        OpOffload::From(n_tokens) => Some(n_tokens as usize),
        OpOffload::Auto | OpOffload::Off => None,
    };
    let loader = loader.lend_for_prompts(asked);
    if args.compute.gpu_layers != GpuLayers::Auto || !leaves_a_choice(plan, on_cpu) {
        return Ok(Decided { loader, rates: None, is_as_before: asked.is_none() });
    }
    let lends_by_choice = args.compute.op_offload == OpOffload::Auto;
    // None if nothing is, or the slots for it have no room.
    let lent = |loader: GgufLoader<'static>| {
        let loader = loader.lend_for_prompts(Some(1));
        let lent = loader.plan().ok().map(|(_, plan)| plan).filter(|plan| plan.lent_bytes() > 0);
        (loader.lend_for_prompts(asked), lent)
    };
    let (loader, with_lent) = if lends_by_choice { lent(loader) } else { (loader, None) };
    let to_measure = with_lent.as_ref().unwrap_or(plan);
    let machine = rates::measure(given, args, loader.file(), to_measure, terminal)?;
    let Some(rates) = machine.for_plan(to_measure) else {
        return Ok(Decided { loader, rates: Some(machine), is_as_before: asked.is_none() });
    };
    let seconds = |loader: &GgufLoader<'_>| {
        loader.plan().map_or(f64::INFINITY, |(_, plan)| plan.predict_seconds(&rates))
    };
    let mut loader = loader.rates(rates.clone());
    let mut with_gpu = seconds(&loader);
    if lends_by_choice {
        let (without, with_lent) = lent(loader);
        let pays_from = with_lent.and_then(|plan| plan.lending_pays_from(&rates));
        loader = without.lend_for_prompts(pays_from);
        // The slots for what is lent may be worth less than what would lie in their place.
        let lending = if pays_from.is_some() { seconds(&loader) } else { f64::INFINITY };
        if lending < with_gpu {
            with_gpu = lending;
        } else {
            loader = loader.lend_for_prompts(None);
        }
    }
    if on_cpu.is_some_and(|plan| plan.predict_seconds(&rates) < with_gpu) {
        terminal.note(format_args!(
            "the CPU is predicted to be faster than a GPU, and computes alone; --device names one all the same"
        ));
        loader = loader.without_devices();
    }
    Ok(Decided { loader, rates: Some(machine), is_as_before: false })
}

/// Whether predictions may change a plan: where it has several GPUs, leaves networks to the CPU, or the CPU might compute alone.
fn leaves_a_choice(plan: &MemoryPlan, on_cpu: Option<&MemoryPlan>) -> bool {
    let n_networks: usize = plan.devices.iter().map(|device| device.n_networks).sum();
    let on_cpu_is_open = on_cpu.is_some() && !plan.devices.is_empty();
    let leaves_some = plan.devices.first().is_some_and(|device| n_networks < device.n_layers);
    plan.devices.len() > 1 || leaves_some || on_cpu_is_open
}
