//! `metallic chat`: a conversation.
//!
//! `editor` reads what the user enters and `entry` says what it is, `commands` is the table of what can be typed
//! beside text, `conversation` what was said.

mod commands;
mod conversation;
mod editor;
mod entry;
mod history;

use std::io::{self, Write as _};
use std::path::Path;

use metallic::FinishReason;
use serde_json::Value;

use crate::args::{ChatArgs, SessionArgs};
use crate::failure::{Failure, Kind, Result};
use crate::fetch::{Fetcher, ModelName};
use crate::interrupt::Interrupt;
use crate::output_file::{OutputFile, Target};
use crate::session::{Answer, Opened, Prompt, Session};
use crate::speech::Form;
use crate::terminal::Style;

use commands::Next;
pub(crate) use commands::help;
use conversation::Conversation;
use editor::Editor;
use entry::Entry;

/// Where `-n` does not say how long answers get: the share of the context that is kept for the next one.
const ROOM: usize = 4;

/// Talks until the user leaves.
pub(crate) fn run(args: &ChatArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let model = args.model.clone().unwrap_or_else(|| args.session.model());
    talk(&model, !args.no_context_shift, &args.session, fetcher)
}

/// Talks with a model; `shifts` is whether the oldest turns give way when the context is full. Of a
/// script, whose turns nobody watches, the first failure is the chat's.
pub(crate) fn talk(model: &ModelName, shifts: bool, args: &SessionArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let opened = Opened::open(model, args, fetcher)?;
    if !opened.has_template() {
        return Err(Failure::new(Kind::BadModel, format!("{model} has no chat template")).advice(
            "if it was made for conversation, `--chat-template` says how, chatml for many; \
                 if not, use `metallic run --raw`",
        ));
    }
    let session = opened.load("")?;
    let mut editor = Editor::new(fetcher.terminal, session.text_limit())?;
    let welcome = format!(
        "{} with a context of {} tokens; /help for what can be typed, Ctrl-D to leave",
        session.name(),
        session.n_ctx()
    );
    fetcher.terminal.note(fetcher.terminal.paint_err(Style::Dim, welcome));
    let mut chat = Chat {
        session,
        fetcher,
        conversation: Conversation::default(),
        tools: Vec::new(),
        shifts,
        has_told_of_shift: false,
    };
    chat.reset();
    let mut first_failure = None;
    while let Some(entry) = editor.read()? {
        match chat.take(entry) {
            Ok(Next::Leave) => break,
            Ok(_) => {}
            Err(failure) if failure.is_silent() => return Err(failure),
            Err(failure) => {
                fetcher.terminal.error(&failure);
                let is_lost = failure.kind() == Kind::DeviceLost;
                first_failure.get_or_insert(failure);
                if is_lost {
                    chat = chat.reload()?;
                }
            }
        }
    }
    match first_failure {
        Some(failure) if !editor.is_terminal() => Err(failure.told()),
        _ => Ok(()),
    }
}

struct Chat<'a> {
    session: Session<'a>,
    fetcher: &'a Fetcher<'a>,
    conversation: Conversation,
    /// What the model may call.
    tools: Vec<Value>,
    /// Whether the oldest turns give way when the context is full.
    shifts: bool,
    has_told_of_shift: bool,
}

impl Chat<'_> {
    /// Does what the user has entered. What goes wrong is told, and the conversation goes on without it.
    fn take(&mut self, entry: Entry) -> Result<Next> {
        let before = self.conversation.clone();
        let next = match entry {
            Entry::Text(text) => {
                self.conversation.ask(&text);
                Next::Answer
            }
            Entry::TooLong => return Err(self.session.text_limit().failure("the entry")),
            Entry::Command(name, arguments) => match commands::find(&name) {
                Some(command) => command.run(self, &arguments)?,
                None => {
                    self.reply(format_args!(
                        "there is no {name}; /help lists what there is, and // begins a text with a slash"
                    ));
                    Next::Read
                }
            },
        };
        if next == Next::Answer {
            let n_forgotten = before.n_forgotten();
            let answer = self.answer().inspect_err(|_| self.conversation = before)?;
            self.finish(answer, n_forgotten)?;
        }
        Ok(next)
    }

    /// The same conversation with the model loaded again: to the GPU that was asked for, or not at all.
    fn reload(self) -> Result<Self> {
        self.fetcher
            .terminal
            .note("the model is loaded again, and the conversation goes on before what was said last");
        Ok(Self { session: self.session.reload()?, ..self })
    }

    fn reset(&mut self) {
        self.conversation = Conversation::of(self.session.opening().into_iter().collect());
    }

    /// Tells what was asked for.
    fn reply(&self, text: impl std::fmt::Display) {
        self.fetcher.terminal.reply(text);
    }

    /// What makes the model answer what it is told.
    fn prompt(&self) -> Result<Prompt> {
        self.session.turn(&self.conversation.told(), &self.tools)
    }

    /// Has the model answer, with room for that if older turns can give way.
    fn answer(&mut self) -> Result<Answer> {
        let Self { session, conversation, tools, .. } = self;
        let n_ctx = session.n_ctx();
        let room = session.max_tokens().unwrap_or(n_ctx / ROOM).min(n_ctx / 2);
        if !self.shifts {
            let prompt = session.turn(&conversation.told(), tools)?;
            return session.answer(prompt, Form::Prose, &mut |_, _| None);
        }
        let prompt = prompt_with(room, session, conversation, tools)?;
        session.answer(prompt, Form::Prose, &mut |session, n_said| {
            let n_forgotten = conversation.n_forgotten();
            // What the template refuses now, it refuses in the next turn, too, and then it is told.
            let prompt = prompt_with(n_said + room, session, conversation, tools).ok()?;
            let is_shorter = conversation.n_forgotten() > n_forgotten;
            (is_shorter && prompt.tokens().len() + n_said < n_ctx).then_some(prompt)
        })
    }

    /// Adds an answer to the conversation and tells what there is to tell of it.
    fn finish(&mut self, answer: Answer, n_forgotten: usize) -> Result<()> {
        writeln!(io::stdout()).map_err(Failure::output)?;
        self.session.note_cost(&answer);
        if self.conversation.n_forgotten() > n_forgotten && !self.has_told_of_shift {
            self.has_told_of_shift = true;
            self.fetcher.terminal.note(
                "the context is full: from now on the model is no longer told of the oldest turns; \
                 -c makes more room, --no-context-shift stops instead",
            );
        }
        let is_full = answer.reason == FinishReason::ContextFull;
        self.conversation.add(answer.said.into_message());
        if is_full {
            return Err(self.session.context_full().advice("/reset starts again, -c makes more room"));
        }
        Ok(())
    }
}

/// A prompt that leaves this much room for the answer, without the turns that have to give way for it. The last one
/// stays.
fn prompt_with(
    room: usize,
    session: &Session<'_>,
    conversation: &mut Conversation,
    tools: &[Value],
) -> Result<Prompt> {
    loop {
        let prompt = session.turn(&conversation.told(), tools)?;
        if prompt.tokens().len() + room <= session.n_ctx() || !conversation.forget_oldest() {
            return Ok(prompt);
        }
    }
}

/// Writes a file that must not exist: whole, or not at all.
fn write_new(path: &Path, text: &str, interrupt: &Interrupt) -> Result<()> {
    let target = Target::check(path, &[], false).map_err(|failure| failure.advice("give another name"))?;
    let file = target.create(interrupt)?;
    file.file().write_all(text.as_bytes()).map_err(|e| file.failure(e))?;
    OutputFile::finish_all(vec![file])
}
