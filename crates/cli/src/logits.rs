//! `metallic logits`: the logits of every position, as a raw file.

use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use crate::args::{EngineArgs, LogitsArgs};
use crate::failure::{Failure, Kind, Result};
use crate::fetch::Fetcher;
use crate::model_file::{self, VOID, kind_of};
use crate::output_file::Output;

/// Evaluates the tokens and writes n_tokens × n_vocab little-endian floats.
pub(crate) fn run(args: &LogitsArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let file = model_file::open(&fetcher.locate(args.model.name())?.path)?;
    let inputs: Vec<&Path> = file.shard_paths().collect();
    let mut output = Output::create(&args.out, &inputs, args.force, fetcher.interrupt)?;
    let n_tokens = args.tokens.len();
    // Without -c the context is what the tokens need, not what the model was trained for.
    let n_ctx = args.engine.ctx_size.or(u32::try_from(n_tokens).ok());
    let engine = EngineArgs { ctx_size: n_ctx, ..args.engine.clone() };
    let mut model = model_file::load(file, &engine, fetcher.terminal)?;
    let n_vocab = model.config().n_vocab;

    let mut out = BufWriter::new(&mut output);
    let mut written: io::Result<()> = Ok(());
    let evaluated = model.evaluate(&args.tokens, 0..n_tokens, &mut |_, logits| {
        if written.is_ok() {
            written = logits.iter().try_for_each(|logit| out.write_all(&logit.to_le_bytes()));
        }
    });
    let written = written.and_then(|()| out.flush());
    drop(out);
    evaluated.map_err(|e| {
        let kind = kind_of(&e);
        let is_void = kind == Kind::ModelChanged && output.is_stream();
        let failure = Failure::new(kind, "can't evaluate the tokens").because(e);
        failure.maybe_advice(is_void.then(|| VOID.to_owned()))
    })?;
    written.map_err(|e| output.failure(e))?;
    output.finish()?;
    fetcher.terminal.note(format_args!("{n_tokens} x {n_vocab} float32 in {}", args.out.display()));
    Ok(())
}
