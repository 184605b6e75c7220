//! `metallic run`: answer one prompt.

use std::io::{self, Write as _};
use std::path::Path;

use metallic::FinishReason;
use metallic::text::Message;
use serde_json::{Value, json};

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

    let tools = args.tools.as_deref().map_or(Ok(Vec::new()), tools)?;
    let mut session = Session::start(&args.session, fetcher)?;
    let prompt = if args.raw || !session.has_template() {
        let flag =
            args.session.talk.system.as_ref().map(|_| "--system").or(args.tools.as_ref().map(|_| "--tools"));
        if let Some(flag) = flag {
            let what = format!("{flag} needs a chat template, and the model has none");
            return Err(
                Failure::new(Kind::Usage, what).advice("`--chat-template chatml` is one that many know")
            );
        }
        session.continuation(prompt)?
    } else {
        let opening = session.opening();
        let messages: Vec<Message> = opening.into_iter().chain([Message::new("user", prompt)]).collect();
        session.turn(&messages, tools)?
    };
    let answer = session.answer(prompt, &mut |_, _| None)?;
    writeln!(io::stdout()).map_err(Failure::output)?;
    session.note_cost(&answer);
    match answer.reason {
        FinishReason::Cancelled => Err(Failure::interrupted()),
        FinishReason::ContextFull => Err(session.context_full()),
        _ => Ok(()),
    }
}

/// Descriptions of tools from a file.
pub(crate) fn tools(path: &Path) -> Result<Vec<Value>> {
    let wrong = || {
        Failure::new(Kind::Usage, format!("{} is not a list of tools", path.display()))
            .advice("it is a JSON list such as [{\"type\": \"function\", \"function\": {\"name\": …}}]")
    };
    let list: Vec<Value> = serde_json::from_str(&input::file(path)?).map_err(|e| wrong().because(e))?;
    let tools = list
        .into_iter()
        .enumerate()
        .map(|(i, item)| tool(item).map_err(|what| wrong().because(format!("item {} {what}", i + 1))));
    tools.collect()
}

/// A tool as OpenAI's API describes it, which is what templates know; a bare function becomes one.
fn tool(item: Value) -> std::result::Result<Value, &'static str> {
    let function = match (item.get("type"), item.get("function")) {
        (None, None) => item,
        (None, Some(function)) => function.clone(),
        (Some(Value::String(kind)), Some(function)) if kind == "function" => function.clone(),
        _ => return Err("is not of type \"function\""),
    };
    let is_named = function.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if !is_named {
        return Err("is no function with a name");
    }
    Ok(json!({ "type": "function", "function": function }))
}

fn strip_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}
