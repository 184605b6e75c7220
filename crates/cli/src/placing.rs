//! What predictions decide of where a model is computed, where the arguments leave it open: whether a GPU computes at all, and
//! for which prompts networks of the CPU are swapped to it.

use metallic::GgufLoader;
use metallic::plan::{MemoryPlan, Rates};

use crate::args::{EngineArgs, GpuLayers, OpOffload, RateArgs};
use crate::failure::Result;
use crate::rates::{self, MachineRates};
use crate::terminal::Terminal;

/// Tokens of the answer that stands for all answers, after the prompt that predictions are for.
const ANSWER_TOKENS: f64 = 128.0;

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
    let on_cpu = on_cpu.filter(|_| !plan.devices.is_empty());
    let (loader, lent) = match args.compute.op_offload {
        OpOffload::From(n_tokens) => (loader.lend_for_prompts(Some(n_tokens as usize)), None),
        OpOffload::Auto if !plan.devices.is_empty() && args.compute.gpu_layers == GpuLayers::Auto => {
            let loader = loader.lend_for_prompts(Some(1));
            // None if the slots for them have no room.
            let lent = loader.plan().ok().map(|(_, plan)| plan).filter(|plan| plan.lent_bytes() > 0);
            (loader.lend_for_prompts(None), lent)
        }
        OpOffload::Off | OpOffload::Auto => (loader, None),
    };
    if lent.is_none() && on_cpu.is_none() {
        let is_as_before = !matches!(args.compute.op_offload, OpOffload::From(_));
        return Ok(Decided { loader, rates: None, is_as_before });
    }
    let rates = rates::measure(given, args, loader.file(), lent.as_ref().unwrap_or(plan), terminal)?;
    let decided = Decided { loader, rates: Some(rates), is_as_before: false };
    let pays = lent.as_ref().and_then(|lent| lent.lending_pays_from(&rates.for_plan(lent)?));
    let with_gpu = if pays.is_some() { lent.as_ref() } else { Some(plan) };
    let seconds =
        |plan: Option<&MemoryPlan>| plan.and_then(|plan| Some(seconds(plan, &rates.for_plan(plan)?)));
    if let (Some(cpu), Some(gpu)) = (seconds(on_cpu), seconds(with_gpu))
        && cpu < gpu
    {
        terminal.note(format_args!(
            "the CPU is predicted to be faster than a GPU, and computes alone; --device names one all the same"
        ));
        return Ok(Decided { loader: decided.loader.without_devices(), ..decided });
    }
    Ok(Decided { loader: decided.loader.lend_for_prompts(pays), ..decided })
}

/// How long a prompt and an answer take.
fn seconds(plan: &MemoryPlan, rates: &Rates) -> f64 {
    plan.predict_prefill(rates).seconds + ANSWER_TOKENS * plan.predict_decode(rates).seconds
}
