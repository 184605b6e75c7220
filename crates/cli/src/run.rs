//! `metallic run`: answer one prompt.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use metallic::FinishReason;
use metallic::text::Message;
use serde_json::{Value, json};

use crate::args::RunArgs;
use crate::chat;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::{Fetcher, catalogue};
use crate::input::{self, Limit};
use crate::prompt_cache::PromptCache;
use crate::question::Question;
use crate::session::Opened;
use crate::speech::Form;

/// Streams the answer to standard output; opens a chat where a model is named on a terminal and nothing is asked.
pub(crate) fn run(args: &RunArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let question = Question::of(args)?;
    if question.said.is_none() && io::stdin().is_terminal() {
        return match &question.model {
            Some(model) if opens_chat(args) => chat::talk(model, true, &args.session, fetcher),
            _ => Err(no_prompt()),
        };
    }
    if let Some(word) = &question.doubt {
        note_doubt(word, fetcher);
    }
    let limit = Limit::within(&args.session.engine.compute);
    let tools = args.tools.as_deref().map_or(Ok(Vec::new()), |path| tools(path, limit))?;
    let model = question.model.clone().unwrap_or_else(|| args.session.model());
    let opened = Opened::open(&model, &args.session, fetcher)?;
    let converses = converses(args, &opened)?;
    if !converses && !args.raw {
        fetcher.terminal.note("the model has no chat template: it continues the prompt as it stands");
    }
    let opening = opened.opening();
    let conversation = |text: &str| -> Vec<Message> {
        opening.iter().cloned().chain([Message::new("user", text)]).collect()
    };
    // Before standard input is used up, which a script's loop may share with us.
    if let Some(said) = &question.said
        && converses
    {
        opened.check_turn(&conversation(said), &tools)?;
    }
    let text = question.prompt(limit)?.ok_or_else(no_prompt)?;
    if text.trim().is_empty() && !args.raw {
        return Err(Failure::new(Kind::Usage, "the prompt is empty")
            .advice("give one as an argument, or send it through a pipe"));
    }
    let cache = PromptCache::new(&args.prompt_cache, &opened)?;
    let mut session = opened.load(&text)?;
    cache.as_ref().map_or(Ok(()), |cache| cache.recall(&mut session, fetcher))?;
    let prompt = match converses {
        true => session.turn(&conversation(&text), &tools)?,
        false => session.continuation(&text)?,
    };
    let form = match args.json {
        true => Form::Json { logprobs: args.logprobs.map(usize::from) },
        false => Form::Prose,
    };
    let tokens = if cache.is_some() { prompt.tokens().to_vec() } else { Vec::new() };
    let answer = session.answer(prompt, form, &mut |_, _| None)?;
    if form == Form::Prose {
        writeln!(io::stdout()).map_err(Failure::output)?;
    }
    session.note_cost(&answer);
    cache.map_or(Ok(()), |cache| cache.keep(&tokens, &answer, &mut session, fetcher))?;
    match answer.reason {
        FinishReason::Cancelled => Err(Failure::interrupted()),
        FinishReason::ContextFull => Err(session.context_full()),
        _ => Ok(()),
    }
}

/// Whether a conversation is what somebody wants who asks nothing.
fn opens_chat(args: &RunArgs) -> bool {
    let is_for_one_answer = args.raw || args.json || args.tools.is_some();
    !is_for_one_answer && io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn no_prompt() -> Failure {
    Failure::new(Kind::Usage, "no prompt").advice(
        "give the prompt as an argument, or send it through a pipe; `metallic chat` talks turn by turn",
    )
}

/// Says which model answers, where another may have been meant.
fn note_doubt(word: &str, fetcher: &Fetcher<'_>) {
    let default = catalogue::DEFAULT.name;
    let advice = match catalogue::similar_to(word) {
        Some(entry) => format!("; did you mean `metallic run {}`?", entry.name),
        None => String::new(),
    };
    fetcher.terminal.note(format_args!("no model is called {word:?}: it is a prompt for {default}{advice}"));
}

/// Whether the prompt is put to the model as a conversation.
fn converses(args: &RunArgs, model: &Opened<'_>) -> Result<bool> {
    if args.raw || model.has_template() {
        return Ok(!args.raw);
    }
    let system = args.session.talk.system.as_ref().map(|_| "--system");
    match system.or(args.tools.as_ref().map(|_| "--tools")) {
        Some(flag) => {
            let what = format!("{flag} needs a chat template, and the model has none");
            Err(Failure::new(Kind::Usage, what).advice("`--chat-template chatml` is one that many know"))
        }
        None => Ok(false),
    }
}

/// Descriptions of tools from a file.
pub(crate) fn tools(path: &Path, limit: Limit) -> Result<Vec<Value>> {
    let wrong = || {
        Failure::new(Kind::Usage, format!("{} is not a list of tools", path.display()))
            .advice("it is a JSON list such as [{\"type\": \"function\", \"function\": {\"name\": …}}]")
    };
    let list: Vec<Value> =
        serde_json::from_str(&input::file(path, limit)?).map_err(|e| wrong().because(e))?;
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
