//! `metallic plan`: where memory would go.

use std::io::{self, BufWriter, Write};

use metallic::MemoryBudget;
use metallic::plan::{DevicePlan, MatrixPlan, MemoryPlan, Placement, Prediction, Rates};
use serde_json::json;

use crate::args::{EngineArgs, PlanArgs};
use crate::budget;
use crate::cost::giga;
use crate::failure::{Failure, Result, one_line};
use crate::fetch::Fetcher;
use crate::model_file::{self, Planned, SMALLER_CONTEXT};
use crate::rates::{self, GpuRates, MachineRates};
use crate::speculation::{self, Guessing};
use crate::table::{Align, Table};
use crate::terminal::{Style, Terminal, human_bytes};

/// Shows the plan for a model.
pub(crate) fn run(args: &PlanArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let path = fetcher.locate(args.model.name())?.path;
    let budget = budget::to_plan_for(&args.engine.compute);
    let engine = EngineArgs { n_sequences: args.parallel.into(), ..args.engine.clone() };
    let draft = speculation::draft_file(&args.speculation, fetcher)?;
    let guessing = Guessing::plan(&args.speculation, draft.as_deref(), &engine, budget, fetcher.terminal)?;
    let engine = EngineArgs { guesses: guessing.looks_up(), ..engine };
    let (file, given) = (model_file::open(&path)?, &args.rates);
    let left = guessing.leaves(budget);
    let planned = Planned::new(file, &engine, left, SMALLER_CONTEXT, given, fetcher.terminal)?;
    let plan = &planned.plan;
    let rates = match &planned.rates {
        Some(rates) => rates.clone(),
        None => rates::measure(given, &engine, planned.file(), plan, fetcher.terminal)?,
    };
    let predicted = rates.for_plan(plan).map(|rates| Predictions::new(plan, &rates));
    let speeds = Speeds { rates, predicted };
    let beside = Beside { draft_bytes: guessing.bytes(), excess: budget.and_then(budget::excess) };
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.json {
        write_json(&mut out, plan, &beside, &speeds)
    } else {
        write_text(&mut out, plan, &beside, &speeds, args.matrices, fetcher.terminal)
    };
    written.and_then(|()| out.flush()).map_err(Failure::output)
}

/// What is shown beside a plan.
struct Beside {
    /// What the draft model takes, by its own plan.
    draft_bytes: u64,
    /// What this machine would lower the budget to.
    excess: Option<MemoryBudget>,
}

/// What the machine can do, and what a plan's speed is predicted to be if that is known.
struct Speeds {
    rates: MachineRates,
    predicted: Option<Predictions>,
}

struct Predictions {
    prefill: Prediction,
    decode: Prediction,
    /// Of all sequences.
    together: Prediction,
    /// If the cache holds the experts that are wanted.
    best_decode: Option<Prediction>,
}

impl Predictions {
    fn new(plan: &MemoryPlan, rates: &Rates) -> Self {
        Self {
            prefill: plan.predict_prefill(rates),
            decode: plan.predict_decode(rates),
            together: plan.predict_together(rates),
            best_decode: plan.predict_best_decode(rates),
        }
    }
}

fn write_text(
    out: &mut impl Write,
    plan: &MemoryPlan,
    beside: &Beside,
    speeds: &Speeds,
    matrices: bool,
    terminal: &Terminal,
) -> io::Result<()> {
    let heading = |text: &str| terminal.paint(Style::Bold, text);
    let mut ledger = Table::new([("WHAT", Align::Left), ("BYTES", Align::Right), ("WHY", Align::Left)]);
    for line in plan.ledger.iter().filter(|line| line.device.is_none()) {
        ledger.push([line.what.clone(), human_bytes(line.bytes), line.reason.clone()]);
    }
    for device in plan.devices.iter().filter(|device| device.shares_main_memory) {
        let bytes = human_bytes(plan.device_bytes(device.number));
        let why = "what it shares of main memory: below".to_owned();
        ledger.push([name_of(plan, device), bytes, why]);
    }
    let budget = plan
        .request
        .ram_bytes
        .map(|bytes| bytes + beside.draft_bytes)
        .map_or("no budget was given".to_owned(), |bytes| format!("of a budget of {}", human_bytes(bytes)));
    let budget = match beside.excess {
        Some(allowed) => format!("{budget}, more than {}", budget::described(allowed)),
        None => budget,
    };
    if beside.draft_bytes > 0 {
        let why = "that guesses, by a plan of its own".to_owned();
        ledger.push(["draft model".to_owned(), human_bytes(beside.draft_bytes), why]);
    }
    ledger.push(["total".to_owned(), human_bytes(plan.total_bytes() + beside.draft_bytes), budget]);
    ledger.write(out, heading)?;
    for device in &plan.devices {
        writeln!(out)?;
        device_table(plan, device).write(out, heading)?;
    }

    writeln!(out)?;
    write_places(out, plan, heading)?;

    writeln!(out)?;
    speeds.table().write(out, heading)?;
    if !plan.devices.is_empty() {
        writeln!(out)?;
        speeds.gpu_table().write(out, heading)?;
    }
    if matrices {
        writeln!(out)?;
        let columns = [("MATRIX", Align::Left), ("BYTES", Align::Right), ("PLACE", Align::Left)];
        let mut table = Table::new(columns);
        for matrix in &plan.matrices {
            let place = place_of(matrix).to_owned();
            table.push([one_line(&matrix.weights.name), human_bytes(matrix.weights.bytes), place]);
        }
        table.write(out, heading)?;
    }
    Ok(())
}

/// What a device is called: of several by its place in the list that was given.
fn name_of(plan: &MemoryPlan, device: &DevicePlan) -> String {
    if plan.devices.len() > 1 { format!("GPU #{}", device.number + 1) } else { "GPU".to_owned() }
}

/// What a device holds in its own memory.
fn device_table(plan: &MemoryPlan, device: &DevicePlan) -> Table<3> {
    let mut table = Table::new([("ON THE GPU", Align::Left), ("BYTES", Align::Right), ("WHY", Align::Left)]);
    if plan.devices.len() > 1 {
        table.push([name_of(plan, device), String::new(), one_line(&device.description)]);
    }
    for line in plan.ledger.iter().filter(|line| line.device == Some(device.number)) {
        table.push([line.what.clone(), human_bytes(line.bytes), line.reason.clone()]);
    }
    let DevicePlan { budget_bytes, n_mixers, n_networks, n_lent, n_layers, head, embedding, .. } = device;
    let ends = match (embedding, head) {
        (true, true) => ", embedding and head",
        (false, true) => ", and the head",
        (true, false) => ", and the embedding",
        (false, false) => "",
    };
    let lent = match plan.long_prompts_from() {
        Some(from) if *n_lent > 0 => format!("; {n_lent} more networks for prompts of {from} tokens or more"),
        _ => String::new(),
    };
    let budget = format!(
        "of {}: of {n_layers} layers {n_mixers} mixers and {n_networks} networks{ends}{lent}",
        human_bytes(*budget_bytes)
    );
    table.push(["total".to_owned(), human_bytes(plan.device_bytes(device.number)), budget]);
    table
}

/// How many matrices are where, and how many bytes of them in each tier.
fn write_places(out: &mut impl Write, plan: &MemoryPlan, heading: impl Fn(&str) -> String) -> io::Result<()> {
    let [left, right] = [Align::Left, Align::Right];
    let columns = [("WEIGHTS", left), ("MATRICES", right), ("BYTES", right)];
    let tiers = [("ON A GPU", right), ("IN MEMORY", right), ("ON DISK", right)];
    let split = Placement::Split { n_resident: 0 };
    let placements = [Placement::Resident, split, Placement::Streamed, Placement::ByRow].map(Placement::name);
    let of_places = placements.into_iter().chain([ON_A_GPU, SWAPPED]).filter_map(|name| {
        let here = plan.matrices.iter().filter(|matrix| place_of(matrix) == name);
        let sum = |bytes: fn(&MatrixPlan) -> u64| here.clone().map(bytes).sum::<u64>();
        let (all, on_gpu) = (sum(|matrix| matrix.weights.bytes), sum(MatrixPlan::device_bytes));
        let in_memory = sum(MatrixPlan::resident_bytes);
        let tiers = [on_gpu, in_memory, all - on_gpu - in_memory].map(human_bytes);
        let n = here.clone().count();
        (n > 0).then(|| ([name.to_owned(), n.to_string(), human_bytes(all)], tiers))
    });
    let [name, n, bytes] = columns;
    let [gpu, memory, disk] = tiers;
    if plan.devices.is_empty() {
        let mut table = Table::new([name, n, bytes, memory, disk]);
        of_places
            .for_each(|([name, n, bytes], [_, memory, disk])| table.push([name, n, bytes, memory, disk]));
        return table.write(out, heading);
    }
    let mut table = Table::new([name, n, bytes, gpu, memory, disk]);
    of_places.for_each(|([name, n, bytes], [gpu, memory, disk])| {
        table.push([name, n, bytes, gpu, memory, disk]);
    });
    table.write(out, heading)
}

/// Where a matrix lies that a GPU has all of.
const ON_A_GPU: &str = "on a GPU";

/// Where one lies that a GPU computes with and does not have all of.
const SWAPPED: &str = "swapped to a GPU";

/// Where a matrix is, in a word or a few.
fn place_of(matrix: &MatrixPlan) -> &'static str {
    match matrix.device {
        None => matrix.placement.name(),
        Some(_) if matrix.host_bytes() == 0 => ON_A_GPU,
        Some(_) => SWAPPED,
    }
}

/// How long a part of some work takes.
fn milliseconds(seconds: f64) -> String {
    if seconds == 0.0 { "-".to_owned() } else { format!("{:.1} ms", 1e3 * seconds) }
}

/// The same, and at which rate.
fn part(seconds: f64, rate: Option<f64>, unit: &str) -> String {
    let time = milliseconds(seconds);
    if seconds == 0.0 { time } else { format!("{time} at {} {unit}", giga(rate, 1)) }
}

impl Speeds {
    /// The rates of the machine above the times that they make.
    fn table(&self) -> Table<6> {
        let mut table = Table::new([
            ("SPEED", Align::Left),
            ("TOKENS/S", Align::Right),
            ("BOUND", Align::Left),
            ("DISK", Align::Right),
            ("MEMORY", Align::Right),
            ("COMPUTE", Align::Right),
        ]);
        let &MachineRates { disk_bytes, memory_bytes, prefill_ops, decode_ops, together_ops, .. } =
            &self.rates;
        let Some(Predictions { prefill, decode, together, best_decode }) = &self.predicted else {
            for (name, ops) in [("prefill", prefill_ops), ("decode", decode_ops)] {
                let rate = |rate, unit| format!("{} {unit}", giga(rate, 1));
                table.push([
                    name.to_owned(),
                    "unknown".to_owned(),
                    "unknown".to_owned(),
                    rate(disk_bytes, "GB/s"),
                    rate(memory_bytes, "GB/s"),
                    rate(ops, "GOP/s"),
                ]);
            }
            return table;
        };
        let mut push = |name: &str, experts: &str, speed: &Prediction, ops: Option<f64>| {
            table.push([
                format!("{name} of {}{experts}", speed.n_tokens),
                format!("{:.1}", speed.tokens_per_s()),
                speed.bound().name().to_owned(),
                part(speed.disk_s, disk_bytes, "GB/s"),
                part(speed.memory_s, memory_bytes, "GB/s"),
                part(speed.compute_s, ops, "GOP/s"),
            ]);
        };
        push("prefill", "", prefill, prefill_ops);
        if let Some(best) = best_decode {
            push("decode", ", any experts", decode, decode_ops);
            push("decode", ", cached experts", best, decode_ops);
        } else {
            push("decode", "", decode, decode_ops);
        }
        if together.n_tokens > 1 {
            push("decode", " sequences", together, together_ops);
        }
        table
    }

    /// Of the same times those that GPUs take: of one at its rates, of several together below what each does.
    fn gpu_table(&self) -> Table<4> {
        let right = Align::Right;
        let mut table =
            Table::new([("ON THE GPU", Align::Left), ("LINK", right), ("MEMORY", right), ("COMPUTE", right)]);
        let rates_of = |gpu: &GpuRates| {
            [(gpu.link_bytes, "GB/s"), (gpu.memory_bytes, "GB/s"), (gpu.prefill_ops, "GOP/s")]
        };
        let only = if let [gpu] = &self.rates.gpus[..] { Some(rates_of(gpu)) } else { None };
        if only.is_none() || self.predicted.is_none() {
            for (i, gpu) in self.rates.gpus.iter().enumerate() {
                let [link, memory, compute] =
                    rates_of(gpu).map(|(rate, unit)| format!("{} {unit}", giga(rate, 1)));
                table.push([format!("GPU #{}", i + 1), link, memory, compute]);
            }
        }
        let Some(Predictions { prefill, decode, .. }) = &self.predicted else { return table };
        for (name, speed) in [("prefill", prefill), ("decode", decode)] {
            let times = [speed.link_s, speed.device_memory_s, speed.device_compute_s];
            let [link, memory, compute] = std::array::from_fn(|i| match only {
                Some(rates) => part(times[i], rates[i].0, rates[i].1),
                None => milliseconds(times[i]),
            });
            table.push([format!("{name} of {}", speed.n_tokens), link, memory, compute]);
        }
        table
    }

    fn json(&self) -> serde_json::Value {
        let &MachineRates { disk_bytes, memory_bytes, prefill_ops, decode_ops, together_ops, ref gpus } =
            &self.rates;
        let giga = |rate: Option<f64>| rate.map(|rate| rate / 1e9);
        let speed = |speed: &Prediction| {
            json!({
                "n_tokens": speed.n_tokens,
                "tokens_per_s": speed.tokens_per_s(),
                "bound": speed.bound().name(),
                "disk_s": speed.disk_s,
                "memory_s": speed.memory_s,
                "compute_s": speed.compute_s,
                "link_s": speed.link_s,
                "gpu_memory_s": speed.device_memory_s,
                "gpu_compute_s": speed.device_compute_s,
            })
        };
        let of_gpu = |gpu: &GpuRates| {
            json!({
                "link_gb_s": giga(gpu.link_bytes),
                "memory_gb_s": giga(gpu.memory_bytes),
                "prefill_gop_s": giga(gpu.prefill_ops),
            })
        };
        let predicted = self.predicted.as_ref();
        json!({
            "disk_gb_s": giga(disk_bytes),
            "memory_gb_s": giga(memory_bytes),
            "prefill_gop_s": giga(prefill_ops),
            "decode_gop_s": giga(decode_ops),
            "together_gop_s": giga(together_ops),
            "gpus": gpus.iter().map(of_gpu).collect::<Vec<_>>(),
            "prefill": predicted.map(|predicted| speed(&predicted.prefill)),
            "decode": predicted.map(|predicted| speed(&predicted.decode)),
            "together": predicted.map(|predicted| speed(&predicted.together)),
            "best_decode": predicted.and_then(|predicted| predicted.best_decode.as_ref()).map(speed),
        })
    }
}

fn write_json(out: &mut impl Write, plan: &MemoryPlan, beside: &Beside, speeds: &Speeds) -> io::Result<()> {
    let ledger = plan.ledger.iter().map(|line| {
        json!({
            "what": line.what,
            "bytes": line.bytes,
            "holder": line.holder.name(),
            "device": line.device,
            "reason": line.reason,
        })
    });
    let matrices = plan.matrices.iter().map(|matrix| {
        json!({
            "name": matrix.weights.name,
            "bytes": matrix.weights.bytes,
            "placement": matrix.placement.name(),
            "device": matrix.device,
            "device_bytes": matrix.device_bytes(),
            "resident_bytes": matrix.resident_bytes(),
        })
    });
    let devices = plan.devices.iter().map(|device| {
        json!({
            "description": device.description,
            "budget_bytes": device.budget_bytes,
            "shares_main_memory": device.shares_main_memory,
            "total_bytes": plan.device_bytes(device.number),
            "n_mixers": device.n_mixers,
            "n_networks": device.n_networks,
            "n_networks_of_long_prompts": device.n_lent,
            "embedding": device.embedding,
            "head": device.head,
        })
    });
    let value = json!({
        "ram_bytes": plan.request.ram_bytes,
        // What this machine would lower it to.
        "allowed_ram_bytes": beside.excess.map(|allowed| allowed.ram_bytes),
        "total_bytes": plan.total_bytes(),
        "draft_bytes": beside.draft_bytes,
        "n_sequences": plan.request.capacity.n_sequences,
        "n_ctx": plan.request.capacity.n_ctx,
        "n_batch": plan.request.capacity.n_batch,
        "kv_type": plan.request.capacity.kv_type.name(),
        "resident_bytes": plan.resident_bytes(),
        "streamed_bytes": plan.streamed_bytes(),
        "swapped_bytes": plan.swapped_bytes(),
        // Prompts of so many tokens have so many bytes swapped in that answers have not.
        "long_prompts_from": plan.long_prompts_from(),
        "lent_bytes": plan.lent_bytes(),
        "slots": plan.stream.map(|stream| json!({ "n": stream.n_slots, "chunk_bytes": stream.chunk_bytes })),
        "devices": devices.collect::<Vec<_>>(),
        "prediction": speeds.json(),
        "ledger": ledger.collect::<Vec<_>>(),
        "matrices": matrices.collect::<Vec<_>>(),
    });
    serde_json::to_writer_pretty(&mut *out, &value)?;
    writeln!(out)
}
