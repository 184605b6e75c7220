//! Where the user types: a line editor with the history of earlier chats on a terminal, plain lines from a pipe.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use metallic::text::MAX_TEXT_BYTES;
use rustyline::config::Config;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;

use super::entry::{Entry, Lines};
use super::history::{History, MAX_ENTRIES};
use crate::failure::{Failure, Kind, Result};
use crate::fetch::store::cache_folder;
use crate::terminal::{Style, Terminal};

type LineEditor = rustyline::Editor<(), MemHistory>;

/// Reads what the user enters.
pub(super) struct Editor<'a> {
    terminal: &'a Terminal,
    /// `None` for a pipe.
    line_editor: Option<LineEditor>,
    /// Where the entries of a terminal are kept. What a script sends is nobody's typing.
    history: Option<History>,
    lines: Lines,
}

/// What became of the wait for a line.
enum Line {
    Text(String),
    Interrupted,
    End,
}

impl<'a> Editor<'a> {
    pub(super) fn new(terminal: &'a Terminal) -> Result<Self> {
        let mut editor = Editor { terminal, line_editor: None, history: None, lines: Lines::default() };
        if io::stdin().is_terminal() {
            let config = Config::builder().max_history_size(MAX_ENTRIES).map_err(cannot_read)?.build();
            let history = MemHistory::with_config(&config);
            let mut line_editor = LineEditor::with_history(config, history).map_err(cannot_read)?;
            // Without a home folder there is no history, and with it no reason not to talk.
            editor.history = cache_folder().ok().map(|folder| History::at(folder.join("chat-history")));
            match editor.history.as_ref().map_or(Ok(Vec::new()), History::load) {
                Ok(entries) => entries.into_iter().for_each(|entry| {
                    let _ = line_editor.add_history_entry(entry); // fails for no entry
                }),
                Err(error) => tracing::warn!("can't read the history of earlier chats: {error}"),
            }
            editor.line_editor = Some(line_editor);
        }
        Ok(editor)
    }

    /// Whether somebody sits there.
    pub(super) fn is_terminal(&self) -> bool {
        self.line_editor.is_some()
    }

    /// What the user enters next; `None` when they leave.
    pub(super) fn read(&mut self) -> Result<Option<Entry>> {
        let mut interrupted = false;
        let mut entered: Vec<String> = Vec::new();
        loop {
            match self.read_line()? {
                Line::Text(line) => {
                    interrupted = false;
                    let entry = self.lines.push(&line);
                    entered.push(line);
                    if entry.is_some() {
                        self.remember(&entered.join("\n"));
                        return Ok(entry);
                    }
                    if !self.lines.is_open() {
                        entered.clear();
                    }
                }
                Line::End => return Ok(self.lines.finish()),
                Line::Interrupted if self.lines.is_open() => {
                    self.lines = Lines::default();
                    entered.clear();
                }
                Line::Interrupted if interrupted => return Ok(None),
                Line::Interrupted => {
                    interrupted = true;
                    self.terminal.note("Ctrl-C again or Ctrl-D leaves");
                }
            }
        }
    }

    fn read_line(&mut self) -> Result<Line> {
        let Some(editor) = &mut self.line_editor else { return piped_line() };
        let prompt = if self.lines.is_open() { "… " } else { "> " };
        match editor.readline(&self.terminal.paint(Style::Green, prompt)) {
            Ok(line) => Ok(Line::Text(line)),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(error) => Err(cannot_read(error)),
        }
    }

    /// Keeps an entry for this chat and the next. Losing it is no reason to fail.
    fn remember(&mut self, entered: &str) {
        let Some(editor) = &mut self.line_editor else { return };
        let is_new = editor.add_history_entry(entered).unwrap_or(false);
        if let Some(history) = &self.history
            && is_new
            && let Err(error) = history.append(entered)
        {
            tracing::warn!("can't keep the history of this chat: {error}");
            self.history = None; // said once
        }
    }
}

fn piped_line() -> Result<Line> {
    let mut bytes = Vec::new();
    // One byte more than a tokenizer takes: enough to be refused there, and no more.
    let limit = MAX_TEXT_BYTES as u64 + 1;
    let read = io::stdin().lock().take(limit).read_until(b'\n', &mut bytes);
    if read.map_err(|e| Failure::io("can't read standard input", e))? == 0 {
        return Ok(Line::End);
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        Failure::new(Kind::General, "standard input is no text")
            .because(e.utf8_error())
            .advice("convert it to UTF-8")
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Line::Text(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

fn cannot_read(error: ReadlineError) -> Failure {
    Failure::new(Kind::General, "can't read from the terminal").because(error)
}
