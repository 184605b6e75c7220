//! `metallic plan`: where memory would go.

use std::io::{self, BufWriter, Write};

use metallic::memory::{MatrixBytes, MemoryPlan, Placement, Prediction, Rates};
use serde_json::json;

use crate::args::PlanArgs;
use crate::failure::{Failure, Result, one_line};
use crate::fetch::Fetcher;
use crate::model_file;
use crate::rates;
use crate::table::{Align, Table};
use crate::terminal::{Style, Terminal, human_bytes};

/// Shows the plan for a model.
pub(crate) fn run(args: &PlanArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let path = fetcher.locate(&args.model)?.path;
    let loader = model_file::loader(model_file::open(&path)?, &args.engine);
    let (_, plan) = model_file::plan(&loader, &path)?;
    let rates = rates::measure(args, loader.file(), &plan, fetcher.terminal)?;
    let speeds = Speeds {
        rates,
        prefill: plan.predict_prefill(&rates),
        decode: plan.predict_decode(&rates),
        best_decode: plan.predict_best_decode(&rates),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.json {
        write_json(&mut out, &plan, &speeds)
    } else {
        write_text(&mut out, &plan, &speeds, args.matrices, fetcher.terminal)
    };
    written.and_then(|()| out.flush()).map_err(Failure::output)
}

/// What a plan's speed is predicted to be, and from what.
struct Speeds {
    rates: Rates,
    prefill: Prediction,
    decode: Prediction,
    /// If the cache holds the experts that are wanted.
    best_decode: Option<Prediction>,
}

fn write_text(
    out: &mut impl Write,
    plan: &MemoryPlan,
    speeds: &Speeds,
    matrices: bool,
    terminal: &Terminal,
) -> io::Result<()> {
    let heading = |text: &str| terminal.paint(Style::Bold, text);
    let mut ledger = Table::new([("WHAT", Align::Left), ("BYTES", Align::Right), ("WHY", Align::Left)]);
    for line in &plan.ledger {
        ledger.push([line.what.clone(), human_bytes(line.bytes), line.reason.clone()]);
    }
    let budget = plan
        .request
        .ram_bytes
        .map_or("no budget was given".to_owned(), |bytes| format!("of a budget of {}", human_bytes(bytes)));
    ledger.push(["total".to_owned(), human_bytes(plan.total_bytes()), budget]);
    ledger.write(out, heading)?;

    writeln!(out)?;
    places(plan).write(out, heading)?;

    writeln!(out)?;
    speeds.table().write(out, heading)?;
    if matrices {
        writeln!(out)?;
        let columns = [("MATRIX", Align::Left), ("BYTES", Align::Right), ("PLACE", Align::Left)];
        let mut table = Table::new(columns);
        for matrix in &plan.matrices {
            let place = matrix.placement.name().to_owned();
            table.push([one_line(&matrix.name), human_bytes(matrix.bytes), place]);
        }
        table.write(out, heading)?;
    }
    Ok(())
}

/// How many matrices are where, and how much of them stays in memory.
fn places(plan: &MemoryPlan) -> Table<4> {
    let mut table = Table::new([
        ("WEIGHTS", Align::Left),
        ("MATRICES", Align::Right),
        ("BYTES", Align::Right),
        ("IN MEMORY", Align::Right),
    ]);
    let split = Placement::Split { n_resident: 0 };
    for name in [Placement::Resident, split, Placement::Streamed, Placement::ByRow].map(Placement::name) {
        let placed = plan.matrices.iter().filter(|matrix| matrix.placement.name() == name);
        let n = placed.clone().count();
        if n > 0 {
            let bytes = human_bytes(placed.clone().map(|matrix| matrix.bytes).sum());
            let in_memory = human_bytes(placed.map(MatrixBytes::resident_bytes).sum());
            table.push([name.to_owned(), n.to_string(), bytes, in_memory]);
        }
    }
    table
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
        let mut push = |name: &str, experts: &str, speed: &Prediction, ops: f64| {
            let part = |seconds: f64, rate: f64, unit: &str| match seconds {
                0.0 => "-".to_owned(),
                _ => format!("{:.1} ms at {:.1} {unit}", 1e3 * seconds, rate / 1e9),
            };
            table.push([
                format!("{name} of {}{experts}", speed.n_tokens),
                format!("{:.1}", speed.tokens_per_s()),
                speed.bound().name().to_owned(),
                part(speed.disk_s, self.rates.disk_bytes, "GB/s"),
                part(speed.memory_s, self.rates.memory_bytes, "GB/s"),
                part(speed.compute_s, ops, "GOP/s"),
            ]);
        };
        let Rates { prefill_ops, decode_ops, .. } = self.rates;
        push("prefill", "", &self.prefill, prefill_ops);
        if let Some(best) = &self.best_decode {
            push("decode", ", any experts", &self.decode, decode_ops);
            push("decode", ", cached experts", best, decode_ops);
        } else {
            push("decode", "", &self.decode, decode_ops);
        }
        table
    }

    fn json(&self) -> serde_json::Value {
        let Rates { disk_bytes, memory_bytes, prefill_ops, decode_ops } = self.rates;
        let speed = |speed: &Prediction| {
            json!({
                "n_tokens": speed.n_tokens,
                "tokens_per_s": speed.tokens_per_s(),
                "bound": speed.bound().name(),
                "disk_s": speed.disk_s,
                "memory_s": speed.memory_s,
                "compute_s": speed.compute_s,
            })
        };
        json!({
            // Not measured where it is not needed.
            "disk_gb_s": (disk_bytes > 0.0).then_some(disk_bytes / 1e9),
            "memory_gb_s": memory_bytes / 1e9,
            "prefill_gop_s": prefill_ops / 1e9,
            "decode_gop_s": decode_ops / 1e9,
            "prefill": speed(&self.prefill),
            "decode": speed(&self.decode),
            "best_decode": self.best_decode.as_ref().map(speed),
        })
    }
}

fn write_json(out: &mut impl Write, plan: &MemoryPlan, speeds: &Speeds) -> io::Result<()> {
    let ledger = plan.ledger.iter().map(|line| {
        json!({ "what": line.what, "bytes": line.bytes, "holder": line.holder.name(), "reason": line.reason })
    });
    let matrices = plan.matrices.iter().map(|matrix| {
        json!({
            "name": matrix.name,
            "bytes": matrix.bytes,
            "placement": matrix.placement.name(),
            "resident_bytes": matrix.resident_bytes(),
        })
    });
    let value = json!({
        "ram_bytes": plan.request.ram_bytes,
        "total_bytes": plan.total_bytes(),
        "n_ctx": plan.request.n_ctx,
        "n_batch": plan.request.n_batch,
        "kv_type": plan.request.kv_type.name(),
        "resident_bytes": plan.resident_bytes(),
        "streamed_bytes": plan.streamed_bytes(),
        "slots": plan.stream.map(|stream| json!({ "n": stream.n_slots, "chunk_bytes": stream.chunk_bytes })),
        "prediction": speeds.json(),
        "ledger": ledger.collect::<Vec<_>>(),
        "matrices": matrices.collect::<Vec<_>>(),
    });
    serde_json::to_writer_pretty(&mut *out, &value)?;
    writeln!(out)
}
