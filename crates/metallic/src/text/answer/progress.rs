//! What is known of a call while it is being written: its name, and its arguments as far as they have come, where they are
//! JSON.
//!
//! Calls without a marker are not told before their end, for until then they may be text.

use super::calls::{ARGUMENTS, IDS, NAMES, checked_name, head, id_and_name};
use super::section::{Arguments, Kind, Section, Syntax};

/// The longest beginning of a call that is looked through again with each piece.
const MAX_HEAD_BYTES: usize = 1024;

/// What has come of a call.
#[derive(Debug, PartialEq)]
pub(super) enum News {
    /// A call begins.
    Begun { id: Option<String>, name: String },
    /// More of the JSON that its arguments are.
    Arguments(String),
}

/// How far the calls of a section have been told.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Up to where the section has been read.
    at: usize,
    state: State,
    /// Calls that were begun.
    n_begun: usize,
}

#[derive(Clone, Debug, Default)]
enum State {
    /// Before a call.
    #[default]
    Before,
    /// In arguments, of which what comes before `at` is told; alone in JSON, or in the object that the call is.
    Within { depth: Depth, is_alone: bool },
    /// After arguments, in the rest of the call's object.
    After(Depth),
    /// Nothing more can be told before the end.
    Done,
}

/// How deep in JSON a place is.
#[derive(Clone, Debug, Default)]
struct Depth {
    n_open: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Depth {
    /// Goes past a byte of a JSON value, and tells whether the value ends with it.
    fn pass(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.n_open += 1,
            b'}' | b']' => self.n_open = self.n_open.saturating_sub(1),
            _ => {}
        }
        self.n_open == 0 && matches!(byte, b'}' | b']')
    }
}

/// What a text is the beginning of.
enum Start {
    /// Perhaps a call.
    Open,
    /// None that can be told yet.
    Other,
    /// A call whose arguments begin here.
    Call { id: Option<String>, name: String, arguments_at: usize, is_alone: bool },
}

impl Progress {
    /// Reads on in a section, of which all that has come is given, its opening marker of `n_open` bytes included.
    pub(super) fn read(&mut self, section: &'static Section, n_open: usize, text: &str) -> Vec<News> {
        let mut news = Vec::new();
        let Kind::Calls(syntaxes) = &section.kind else { return news };
        // What has been taken for a part of a call was the end of the section.
        if self.at > text.len() {
            self.state = State::Done;
        }
        loop {
            match &mut self.state {
                State::Done => return news,
                State::Before => {
                    let is_first = self.n_begun == 0;
                    let from = if is_first { 0 } else { self.at };
                    match start(syntaxes, text, from, if is_first { n_open } else { from }, is_first) {
                        Start::Call { id, name, arguments_at, is_alone } => {
                            news.push(News::Begun { id, name });
                            self.n_begun += 1;
                            self.at = arguments_at;
                            self.state = State::Within { depth: Depth::default(), is_alone };
                        }
                        Start::Open if text.len() - from <= MAX_HEAD_BYTES => return news,
                        Start::Open | Start::Other => self.state = State::Done,
                    }
                }
                State::Within { depth, is_alone } => {
                    let rest = &text.as_bytes()[self.at..];
                    let end = rest.iter().position(|byte| depth.pass(*byte)).map(|at| self.at + at + 1);
                    let told = &text[self.at..end.unwrap_or(text.len())];
                    if !told.is_empty() {
                        news.push(News::Arguments(told.to_owned()));
                    }
                    self.at += told.len();
                    if end.is_none() {
                        return news;
                    }
                    self.state = if *is_alone {
                        State::Before
                    } else {
                        State::After(Depth { n_open: 1, ..Depth::default() })
                    };
                }
                State::After(depth) => {
                    let rest = &text.as_bytes()[self.at..];
                    let Some(end) = rest.iter().position(|byte| depth.pass(*byte)) else {
                        self.at = text.len();
                        return news;
                    };
                    self.at += end + 1;
                    self.state = State::Before;
                }
            }
        }
    }
}

/// What begins in a section from a place on; `inner` is where its opening marker has ended.
fn start(syntaxes: &[Syntax], text: &str, from: usize, inner: usize, is_first: bool) -> Start {
    if syntaxes.iter().any(|syntax| matches!(syntax, Syntax::Json(_))) {
        let rest = text[inner..].trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ';'));
        let rest = if is_first { rest.strip_prefix('[').unwrap_or(rest).trim_start() } else { rest };
        match rest.as_bytes().first() {
            None => return Start::Open,
            Some(b'{') => return object_start(rest, text.len() - rest.len()),
            Some(_) => {}
        }
    }
    for syntax in syntaxes {
        let Syntax::Tagged { call, arguments: arguments @ Arguments::Json } = syntax else { continue };
        let Some((_, after)) = text[from..].split_once(call.open) else { continue };
        let Ok(head) = head(after.trim_start(), call, arguments) else { return Start::Open };
        let has_attributes = !call.value_after.is_empty();
        let name = head.name.split_whitespace().next().filter(|_| has_attributes).unwrap_or(head.name);
        let rest = head.rest.trim_start();
        return match (rest.as_bytes().first(), id_and_name(name)) {
            (None, Ok(_)) => Start::Open,
            (Some(b'{'), Ok((id, name))) => {
                Start::Call { id, name, arguments_at: text.len() - rest.len(), is_alone: true }
            }
            _ => Start::Other,
        };
    }
    let may_come =
        syntaxes.iter().any(|syntax| matches!(syntax, Syntax::Tagged { arguments: Arguments::Json, .. }));
    if may_come { Start::Open } else { Start::Other }
}

/// A call as a JSON object, of which `text` is the beginning and `at` the place.
fn object_start(text: &str, at: usize) -> Start {
    let (mut id, mut name) = (None, None);
    let mut rest = text[1..].trim_start();
    loop {
        let Some((key, after)) = string(rest) else { return Start::Open };
        let Some(value) = after.trim_start().strip_prefix(':') else {
            return if after.trim().is_empty() { Start::Open } else { Start::Other };
        };
        let value = value.trim_start();
        let is_one_of = |keys: &[&str]| keys.contains(&key.as_str());
        if is_one_of(&ARGUMENTS) {
            return match (value.as_bytes().first(), name) {
                (None, _) => Start::Open,
                (Some(b'{'), Some(name)) => {
                    Start::Call { id, name, arguments_at: at + text.len() - value.len(), is_alone: false }
                }
                _ => Start::Other,
            };
        }
        match value.as_bytes().first() {
            None => return Start::Open,
            Some(b'"') => {}
            Some(_) => return Start::Other,
        }
        let Some((given, after)) = string(value) else { return Start::Open };
        // Of several names it is not certain yet which counts.
        if is_one_of(&NAMES) && name.is_none() && checked_name(&given).is_ok() {
            name = Some(given);
        } else if is_one_of(&IDS) && id.is_none() {
            id = Some(given);
        } else if key != "type" {
            return Start::Other;
        }
        let after = after.trim_start();
        match after.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if after.is_empty() => return Start::Open,
            None => return Start::Other,
        }
    }
}

/// The JSON string that a text begins with, if it has an end, and what follows. Of what is none nothing comes either: its
/// end is that of the section.
fn string(text: &str) -> Option<(String, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}
