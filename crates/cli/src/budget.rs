//! How much memory a command may take: what `--ram` says, as far as the system allows it.

use metallic::MemoryBudget;
use metallic::MemoryPlan;
use metallic::memory::BudgetSource;

use crate::args::ComputeArgs;
use crate::terminal::human_bytes;

/// The budget for a model that is to run: as given, but no more than the system allows unless the user insists; or
/// what there is to spare. `None` where nothing is given and the system does not tell.
pub(crate) fn to_run_in(args: &ComputeArgs) -> Option<MemoryBudget> {
    let budget = to_plan_for(args)?;
    let as_it_is = args.overcommit || args.ram.is_none();
    match excess(budget).filter(|_| !as_it_is) {
        Some(allowed) => {
            let (given, source) = (human_bytes(budget.ram_bytes), allowed.source);
            let allowed_bytes = human_bytes(allowed.ram_bytes);
            tracing::warn!(
                "--ram {given} is lowered to {source}, {allowed_bytes}; with --overcommit it is taken as given"
            );
            Some(allowed)
        }
        None => Some(budget),
    }
}

/// The budget for a model that is only planned, perhaps for another machine: as given.
pub(crate) fn to_plan_for(args: &ComputeArgs) -> Option<MemoryBudget> {
    args.ram.map(MemoryBudget::given).or_else(MemoryBudget::auto)
}

/// What the system allows, if that is less.
pub(crate) fn excess(budget: MemoryBudget) -> Option<MemoryBudget> {
    MemoryBudget::allowed().filter(|allowed| allowed.ram_bytes < budget.ram_bytes)
}

/// A budget and, if nobody gave it, where it is from.
pub(crate) fn described(budget: MemoryBudget) -> String {
    let bytes = human_bytes(budget.ram_bytes);
    match budget.source {
        BudgetSource::Given => bytes,
        source => format!("{bytes}, {source}"),
    }
}

/// Bytes that measurements may take before a model is loaded: what its budget leaves beside the program, as far as this
/// machine allows it.
pub(crate) fn room(plan: &MemoryPlan) -> u64 {
    let budget = MemoryBudget::given(plan.request.ram_bytes.unwrap_or(u64::MAX));
    excess(budget).unwrap_or(budget).ram_bytes.saturating_sub(plan.beside_bytes())
}
