//! Where the user types: a line editor with the history of earlier chats on a terminal, plain lines from a pipe.

use std::io::{self, BufRead, IsTerminal as _, Read as _};

use rustyline::config::Config;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;

use super::entry::{Entry, Lines};
use super::history::{History, MAX_ENTRIES};
use crate::failure::{Failure, Kind, Result};
use crate::fetch::store::cache_folder;
use crate::input::{self, Limit};
use crate::terminal::{Style, Terminal};

type LineEditor = rustyline::Editor<(), MemHistory>;

/// Reads what the user enters.
pub(super) struct Editor<'a> {
    terminal: &'a Terminal,
    /// `None` for a pipe.
    line_editor: Option<LineEditor>,
    /// Where the entries of a terminal are kept. What a script sends is nobody's typing.
    history: Option<History>,
    limit: Limit,
    lines: Lines,
}

/// What became of the wait for a line.
enum Line {
    Text(String),
    Interrupted,
    End,
}

impl<'a> Editor<'a> {
    pub(super) fn new(terminal: &'a Terminal, limit: Limit) -> Result<Self> {
        let lines = Lines::new(limit.n_bytes);
        let mut editor = Editor { terminal, line_editor: None, history: None, limit, lines };
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
                    if self.is_terminal() {
                        entered.push(line);
                    }
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
                    self.lines = Lines::new(self.limit.n_bytes);
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
        let Some(editor) = &mut self.line_editor else { return piped_line(self.limit.n_bytes) };
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

/// A line from a pipe; of one that is longer than `limit`, no more than shows that, and where it begins and ends.
fn piped_line(limit: usize) -> Result<Line> {
    let line = line_of(&mut io::stdin().lock(), limit);
    let bytes = line.map_err(|e| Failure::io("can't read standard input", e))?;
    if bytes.is_empty() {
        return Ok(Line::End);
    }
    // What is left out may cut characters.
    let text = if bytes.len() > limit + 1 {
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    } else {
        String::from_utf8(bytes)
    };
    let text = text.map_err(|e| {
        Failure::new(Kind::General, "standard input is no text")
            .because(e.utf8_error())
            .advice("convert it to UTF-8")
    })?;
    Ok(Line::Text(input::strip_line_end(text)))
}

/// See [`piped_line`].
fn line_of(source: &mut impl BufRead, limit: usize) -> io::Result<Vec<u8>> {
    /// Bytes read at once, and kept of the end.
    const CHUNK: usize = 8 << 10;
    let mut line = Vec::new();
    loop {
        let n = source.take(CHUNK as u64).read_until(b'\n', &mut line)?;
        if n == 0 || line.ends_with(b"\n") {
            return Ok(line);
        }
        // The part that stays is too long even without quotes and line end.
        if line.len() > limit + 2 * CHUNK {
            line.drain(limit + CHUNK..line.len() - CHUNK);
        }
    }
}

fn cannot_read(error: ReadlineError) -> Failure {
    Failure::new(Kind::General, "can't read from the terminal").because(error)
}
