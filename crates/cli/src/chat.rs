//! `metallic chat`: a conversation.

use std::fs;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;

use metallic::FinishReason;
use metallic::text::Message;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::args::ChatArgs;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::Fetcher;
use crate::fetch::store::cache_folder;
use crate::session::Session;
use crate::terminal::{Style, Terminal};

const HELP: &str = "\
/reset   forget the conversation
/help    this list
/exit    leave; so does Ctrl-D
Ctrl-C   stops the answer; at the prompt, twice leaves";

/// Talks until the user leaves.
pub(crate) fn run(args: &ChatArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let session = Session::start(&args.session, fetcher)?;
    if !session.has_template() {
        return Err(Failure::new(Kind::BadModel, format!("{} has no chat template", args.session.model))
            .advice(
                "if it was made for conversation, `--chat-template` says how, chatml for many; \
                 if not, use `metallic run --raw`",
            ));
    }
    let mut prompt = Prompt::new(fetcher.terminal)?;
    fetcher
        .terminal
        .note(fetcher.terminal.paint_err(Style::Dim, "/help for what can be typed, Ctrl-D to leave"));
    let mut chat = Chat { session, fetcher, messages: Vec::new() };
    chat.reset();
    while let Some(line) = prompt.read_line()? {
        match line.trim() {
            "" => {}
            "/exit" | "/quit" => break,
            "/help" => fetcher.terminal.note(HELP),
            "/reset" => chat.reset(),
            command if command.starts_with('/') && !command.contains(' ') => {
                fetcher.terminal.note(format_args!("there is no {command}; /help lists what there is"));
            }
            text => chat.say(text)?,
        }
    }
    prompt.save_history();
    Ok(())
}

struct Chat<'a> {
    session: Session<'a>,
    fetcher: &'a Fetcher<'a>,
    messages: Vec<Message>,
}

impl Chat<'_> {
    fn reset(&mut self) {
        self.messages = self.session.opening().into_iter().collect();
    }

    /// One turn. What goes wrong with it is told, and the conversation goes on without it.
    fn say(&mut self, text: &str) -> Result<()> {
        let n_before = self.messages.len();
        self.messages.push(Message::new("user", text));
        match self.answer() {
            Err(failure) if matches!(failure.kind(), Kind::OutputClosed) => Err(failure),
            Err(failure) => {
                self.messages.truncate(n_before);
                self.fetcher.terminal.error(&failure);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn answer(&mut self) -> Result<()> {
        let prompt = self.session.turn(&self.messages, Vec::new())?;
        let answer = self.session.answer(prompt)?;
        writeln!(io::stdout()).map_err(Failure::output)?;
        self.session.note_cost(&answer);
        let is_full = answer.reason == FinishReason::ContextFull;
        self.messages.push(answer.said.into_message());
        if is_full {
            return Err(self.session.context_full().advice("/reset starts again, -c makes more room"));
        }
        Ok(())
    }
}

/// Where the user types, with the history of earlier sessions.
struct Prompt<'a> {
    terminal: &'a Terminal,
    editor: DefaultEditor,
    text: String,
    history: Option<PathBuf>,
}

impl<'a> Prompt<'a> {
    fn new(terminal: &'a Terminal) -> Result<Self> {
        let cannot = |e| Failure::new(Kind::General, "can't read from the terminal").because(e);
        let mut editor = DefaultEditor::new().map_err(cannot)?;
        // What a script sends is nobody's typing.
        let history =
            if io::stdin().is_terminal() { Some(cache_folder()?.join("chat-history")) } else { None };
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        Ok(Prompt { terminal, editor, text: terminal.paint(Style::Green, "> "), history })
    }

    /// The next line; `None` when the user leaves.
    fn read_line(&mut self) -> Result<Option<String>> {
        let mut interrupted = false;
        loop {
            match self.editor.readline(&self.text) {
                Ok(line) => {
                    let _ = self.editor.add_history_entry(line.as_str());
                    return Ok(Some(line));
                }
                Err(ReadlineError::Eof) => return Ok(None),
                Err(ReadlineError::Interrupted) if interrupted => return Ok(None),
                Err(ReadlineError::Interrupted) => {
                    interrupted = true;
                    self.terminal.note("Ctrl-C again or Ctrl-D leaves");
                }
                Err(e) => return Err(Failure::new(Kind::General, "can't read from the terminal").because(e)),
            }
        }
    }

    /// Keeps the history for the next session, readable by this user alone. Losing it is no reason to fail.
    fn save_history(&mut self) {
        let Some(path) = &self.history else { return };
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = folder.map_err(ReadlineError::from).and_then(|()| self.editor.save_history(path))
        {
            tracing::warn!("can't save the history {}: {error}", path.display());
        }
    }
}
