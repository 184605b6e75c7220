//! `metallic plan`: where memory would go.

use std::io::{self, BufWriter, Write};

use metallic::memory::{MemoryPlan, Placement};
use serde_json::json;

use crate::args::PlanArgs;
use crate::failure::{Failure, Result, one_line};
use crate::fetch::Fetcher;
use crate::model_file;
use crate::table::{Align, Table};
use crate::terminal::{Style, Terminal, human_bytes};

/// Shows the plan for a model.
pub(crate) fn run(args: &PlanArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let path = fetcher.locate(&args.model)?.path;
    let loader = model_file::loader(model_file::open(&path)?, &args.engine);
    let (_, plan) = model_file::plan(&loader, &path)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.json {
        write_json(&mut out, &plan)
    } else {
        write_text(&mut out, &plan, args.matrices, fetcher.terminal)
    };
    written.and_then(|()| out.flush()).map_err(Failure::output)
}

fn write_text(
    out: &mut impl Write,
    plan: &MemoryPlan,
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
    let mut places =
        Table::new([("WEIGHTS", Align::Left), ("MATRICES", Align::Right), ("BYTES", Align::Right)]);
    for placement in [Placement::Resident, Placement::Streamed, Placement::ByRow] {
        let n = plan.matrices.iter().filter(|matrix| matrix.placement == placement).count();
        if n > 0 {
            let bytes = human_bytes(plan.placed_bytes(placement));
            places.push([placement.name().to_owned(), n.to_string(), bytes]);
        }
    }
    places.write(out, heading)?;
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

fn write_json(out: &mut impl Write, plan: &MemoryPlan) -> io::Result<()> {
    let ledger = plan.ledger.iter().map(|line| {
        json!({ "what": line.what, "bytes": line.bytes, "mapped": line.mapped, "reason": line.reason })
    });
    let matrices = plan.matrices.iter().map(
        |matrix| json!({ "name": matrix.name, "bytes": matrix.bytes, "placement": matrix.placement.name() }),
    );
    let value = json!({
        "ram_bytes": plan.request.ram_bytes,
        "total_bytes": plan.total_bytes(),
        "n_ctx": plan.request.n_ctx,
        "n_batch": plan.request.n_batch,
        "kv_type": plan.request.kv_type.name(),
        "resident_bytes": plan.placed_bytes(Placement::Resident),
        "streamed_bytes": plan.placed_bytes(Placement::Streamed),
        "slots": plan.stream.map(|stream| json!({ "n": stream.n_slots, "chunk_bytes": stream.chunk_bytes })),
        "ledger": ledger.collect::<Vec<_>>(),
        "matrices": matrices.collect::<Vec<_>>(),
    });
    serde_json::to_writer_pretty(&mut *out, &value)?;
    writeln!(out)
}
