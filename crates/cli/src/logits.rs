//! `metallic logits`: the logits of every position, as a raw file.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};

use crate::args::{EngineArgs, LogitsArgs};
use crate::failure::{Failure, Result};
use crate::fetch::Fetcher;
use crate::model_file::{self, kind_of};

/// Evaluates the tokens and writes n_tokens × n_vocab little-endian floats.
pub(crate) fn run(args: &LogitsArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let path = fetcher.locate(&args.model)?.path;
    let n_tokens = args.tokens.len();
    // Without -c the context is what the tokens need, not what the model was trained for.
    let n_ctx = args.engine.ctx_size.or(u32::try_from(n_tokens).ok());
    let engine = EngineArgs { ctx_size: n_ctx, ..args.engine.clone() };
    let mut model = model_file::load(model_file::open(&path)?, &engine, fetcher.terminal)?;
    let n_vocab = model.config().n_vocab;

    let cannot_write = |e| Failure::io(format!("can't write {}", args.out.display()), e);
    let mut out = BufWriter::new(File::create(&args.out).map_err(cannot_write)?);
    let mut written: io::Result<()> = Ok(());
    let evaluated = model.evaluate(&args.tokens, 0..n_tokens, &mut |_, logits| {
        let rows = logits.iter().try_for_each(|logit| out.write_all(&logit.to_le_bytes()));
        if written.is_ok() {
            written = rows;
        }
    });
    evaluated.map_err(|e| Failure::new(kind_of(&e), "can't evaluate the tokens").because(e))?;
    written.and_then(|()| out.flush()).map_err(cannot_write)?;
    fetcher.terminal.note(format_args!("{n_tokens} x {n_vocab} float32 in {}", args.out.display()));
    Ok(())
}
