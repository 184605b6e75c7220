//! `metallic run`: answer one prompt.

use std::io::{self, Write as _};

use metallic::FinishReason;
use metallic::text::Message;

use crate::args::RunArgs;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::Fetcher;
use crate::input;
use crate::session::Session;

/// Streams the answer to standard output.
pub(crate) fn run(args: &RunArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let argument = args.prompt.as_deref().or(args.prompt_flag.as_deref());
    let prompt = input::argument_or_stdin(argument, "prompt")?;
    // What a pipe ends with is the end of a line, not a part of the question.
    let prompt = if argument.is_some() { &prompt } else { strip_line_end(&prompt) };
    if prompt.trim().is_empty() && !args.raw {
        return Err(Failure::new(Kind::Usage, "the prompt is empty")
            .advice("give one as an argument, or send it through a pipe"));
    }

    let mut session = Session::start(&args.model.model, &args.engine, fetcher)?;
    let tokens = if args.raw || !session.has_template() {
        if args.system.is_some() {
            return Err(Failure::new(Kind::Usage, "--system needs a chat template, and the model has none"));
        }
        session.continuation(prompt)?
    } else {
        let opening = session.opening(args.system.as_deref());
        let messages: Vec<Message> = opening.into_iter().chain([Message::new("user", prompt)]).collect();
        session.turn(&messages)?
    };
    let answer = session.answer(tokens, &args.answer, &args.sampling)?;
    writeln!(io::stdout()).map_err(Failure::output)?;
    session.note_cost(&answer, args.answer.stats);
    match answer.reason {
        FinishReason::Cancelled => Err(Failure::interrupted()),
        FinishReason::ContextFull => Err(session.context_full()),
        _ => Ok(()),
    }
}

fn strip_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}
