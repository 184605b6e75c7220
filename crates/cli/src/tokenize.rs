//! `metallic tokenize`: the tokens of a text.

use std::io::{self, BufWriter, Write};

use metallic::text::{EncodeOptions, Tokenizer};

use crate::args::TokenizeArgs;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::Fetcher;
use crate::{input, model_file};

/// Prints the tokens, one a line with its text, or the ids only.
pub(crate) fn run(args: &TokenizeArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let path = fetcher.locate(&args.model)?.path;
    let tokenizer = model_file::tokenizer(&model_file::open(&path)?)?;
    let text = match &args.text {
        Some(text) => text.clone(),
        None => input::piped(input::Limit::TEXT, None)?.ok_or_else(|| {
            Failure::new(Kind::Usage, "no text").advice("give it as an argument, or send it through a pipe")
        })?,
    };
    let adds = !args.no_bos;
    let options = EncodeOptions { add_bos: adds, add_eos: adds, parse_special: !args.no_special };
    let ids = model_file::encode(&tokenizer, &text, options)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.ids { writeln!(out, "{ids:?}") } else { write_pieces(&mut out, &tokenizer, &ids) };
    written.and_then(|()| out.flush()).map_err(Failure::output)
}

fn write_pieces(out: &mut impl Write, tokenizer: &Tokenizer, ids: &[u32]) -> io::Result<()> {
    ids.iter()
        .try_for_each(|id| writeln!(out, "{id:>7}  {}", quoted(tokenizer.piece(*id).unwrap_or_default())))
}

/// The piece in quotes with escapes; a piece may be part of a character only.
fn quoted(piece: &[u8]) -> String {
    match std::str::from_utf8(piece) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("b\"{}\"", piece.escape_ascii()),
    }
}
