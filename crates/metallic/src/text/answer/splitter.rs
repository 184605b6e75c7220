//! Splits an answer as it arrives.

use std::cmp::Reverse;

use super::calls;
use super::progress::{News, Progress};
use super::section::{Kind, Section};
use super::{MalformedCall, Part, ToolCall};
use crate::text::stop_matcher::undecided_from;

/// The longest header that is waited for. The longest in use has some eighty bytes.
const MAX_HEADER_BYTES: usize = 512;

/// Takes an answer in pieces of any size and gives its parts, as soon as it is certain what they are.
///
/// What may be the beginning of a marker waits, and so does whitespace that may precede one, and a call until
/// it is complete; but of one that is JSON between markers it is told as it comes that it has begun, and its arguments.
#[derive(Clone, Debug)]
pub struct AnswerSplitter {
    sections: Vec<&'static Section>,
    /// The section that the answer is in, if it is in one.
    within: Option<&'static Section>,
    /// What has arrived and is not given out.
    held: String,
    /// Of a header or calls: how much of what is held can't be the end.
    n_searched: usize,
    /// Of calls: how much of them has been told.
    progress: Progress,
    /// Whether all that has come is whitespace.
    at_start: bool,
    /// Whether whitespace belongs to the marker before it.
    after_marker: bool,
}

/// What is looked for, and the section after it, if it begins one.
type Marker = (&'static str, Option<&'static Section>);

/// A stretch of an answer; all of them make up the answer again.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) text: String,
    pub(super) role: Role,
}

/// What a stretch of an answer is.
#[derive(Debug)]
pub(super) enum Role {
    Marker,
    Reasoning,
    Content,
    /// No text of its own: what is known of a call before its end.
    News(News),
    Calls(Result<Vec<ToolCall>, String>),
}

impl AnswerSplitter {
    pub(super) fn new(sections: &[&'static Section], prompt: &str) -> Self {
        // Where a call has no marker, JSON is one only if the prompt has told of tools.
        let may_come =
            |section: &&&Section| !matches!(section.kind, Kind::WholeAnswer) || prompt.contains(section.sign);
        let within = sections.iter().copied().find(|section| section.is_open(prompt));
        AnswerSplitter {
            sections: sections.iter().filter(may_come).copied().collect(),
            within,
            held: String::new(),
            n_searched: 0,
            progress: Progress::default(),
            at_start: true,
            after_marker: within.is_some(),
        }
    }

    /// Takes more of the answer.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        parts(self.split(text, false))
    }

    /// Ends the answer, and gives what is left.
    pub fn finish(&mut self) -> Vec<Part> {
        parts(self.split("", true))
    }

    pub(super) fn split(&mut self, text: &str, is_end: bool) -> Vec<Segment> {
        self.held.push_str(text);
        let mut out = Vec::new();
        while !self.held.is_empty() && self.step(is_end, &mut out) {}
        out
    }

    /// Gives out the next stretch; false when more must come first.
    fn step(&mut self, is_end: bool, out: &mut Vec<Segment>) -> bool {
        match self.within.map(|section| (section, &section.kind)) {
            None => self.step_text(None, is_end, out),
            Some((section, Kind::Reasoning | Kind::Content)) => self.step_text(Some(section), is_end, out),
            Some((section, Kind::Header { .. })) => self.step_header(section, is_end, out),
            Some((section, Kind::Calls(_) | Kind::WholeAnswer)) => self.step_calls(section, is_end, out),
        }
    }

    /// Text up to the marker that ends it: a section's own, or outside of sections the beginning of one.
    fn step_text(&mut self, within: Option<&'static Section>, is_end: bool, out: &mut Vec<Segment>) -> bool {
        if std::mem::take(&mut self.after_marker) {
            let n_blank = self.held.len() - self.held.trim_start().len();
            self.give(n_blank, Role::Marker, out);
            self.after_marker = self.held.is_empty();
            return !self.after_marker;
        }
        let (end, marker) = self.next_marker(within, is_end);
        let text = &self.held[..end];
        // Whitespace at the end may belong to a marker that is still to come.
        let n_text = if is_end && marker.is_none() || self.sections.is_empty() {
            text.len()
        } else {
            text.trim_end().len()
        };
        let is_reasoning = within.is_some_and(|section| matches!(section.kind, Kind::Reasoning));
        self.at_start &= n_text == 0;
        self.give(n_text, if is_reasoning { Role::Reasoning } else { Role::Content }, out);
        let Some((marker, next)) = marker else { return false };
        let is_kept = next.is_some_and(|next| !matches!(next.kind, Kind::Reasoning | Kind::Content));
        let n_kept = if is_kept { marker.len() } else { 0 };
        self.give(end - n_text + marker.len() - n_kept, Role::Marker, out);
        self.within = next;
        self.n_searched = n_kept;
        self.after_marker = !is_kept;
        self.at_start = false;
        true
    }

    /// Where the text ends that is certain, and the marker if one ends it.
    fn next_marker(&self, within: Option<&'static Section>, is_end: bool) -> (usize, Option<Marker>) {
        let markers: Vec<Marker> = match within {
            Some(section) => section.close.iter().map(|&close| (close, None)).collect(),
            None => self.sections.iter().flat_map(|section| self.outside_markers(section)).collect(),
        };
        let undecided =
            if is_end { self.held.len() } else { undecided_from(&self.held, markers.iter().map(|m| m.0)) };
        // Of markers at the same place the longest counts.
        let found = markers.iter().filter_map(|&marker| Some((self.held.find(marker.0)?, marker)));
        let first = found.min_by_key(|&(at, (text, _))| (at, Reverse(text.len())));
        match first.filter(|&(at, _)| at < undecided) {
            Some((at, marker)) => (at, Some(marker)),
            None => (undecided, None),
        }
    }

    /// The markers of a section that count outside of sections, and what follows them.
    fn outside_markers(&self, section: &'static Section) -> impl Iterator<Item = Marker> {
        let text = self.held.trim_start();
        let is_first = |marker: &str| self.at_start && (text.starts_with(marker) || marker.starts_with(text));
        let opens = !matches!(section.kind, Kind::WholeAnswer) || is_first(section.open);
        // Some models that are not to think begin with the end of a thought.
        let close = section
            .close
            .first()
            .copied()
            .filter(|close| matches!(section.kind, Kind::Reasoning) && is_first(close));
        opens.then_some((section.open, Some(section))).into_iter().chain(close.map(|close| (close, None)))
    }

    /// A header, up to its end: it says what the section after it is.
    fn step_header(&mut self, section: &'static Section, is_end: bool, out: &mut Vec<Segment>) -> bool {
        let Kind::Header { to_self, to_user, to_tool } = &section.kind else { return false };
        let end = self.find_close(section).filter(|&end| end <= MAX_HEADER_BYTES);
        let Some(end) = end else {
            let is_none = is_end || self.held.len() > MAX_HEADER_BYTES;
            if is_none {
                self.give(self.n_open(section), Role::Content, out);
                self.within = None;
            }
            return is_none;
        };
        let header = &self.held[..end];
        let recipient = header.split_once("to=").map(|(_, after)| {
            after.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default()
        });
        let next = match recipient {
            Some("self") => to_self,
            None if header.contains("analysis") => to_self,
            None | Some("user") => to_user,
            Some(_) => to_tool,
        };
        self.within = Some(next);
        if matches!(next.kind, Kind::Calls(_)) {
            self.n_searched = end; // the header names the tool
        } else {
            self.give(end, Role::Marker, out);
            self.after_marker = true;
        }
        true
    }

    /// Calls, up to the marker that ends them. One that leaves a text open is in that text.
    fn step_calls(&mut self, section: &'static Section, is_end: bool, out: &mut Vec<Segment>) -> bool {
        let n_open = self.n_open(section);
        let (end, n_close) = match self.find_close(section) {
            Some(end) => {
                (end, section.close.iter().find(|c| self.held[..end].ends_with(**c)).map_or(0, |c| c.len()))
            }
            None if is_end => (self.held.len(), 0),
            None => {
                self.tell(section, self.held.len(), out);
                return false;
            }
        };
        let whole = &self.held[..end];
        let calls = match &section.kind {
            Kind::Calls(syntaxes) => calls::parse(syntaxes, whole, &whole[n_open..end - n_close]),
            _ => calls::json_calls(whole),
        };
        if !is_end && matches!(&calls, Err(error) if error.is_cut) {
            self.n_searched = end;
            return true;
        }
        self.tell(section, end - n_close, out);
        self.progress = Progress::default();
        self.within = None;
        self.after_marker = calls.is_ok();
        let is_content = calls.is_err() && matches!(section.kind, Kind::WholeAnswer);
        let role = if is_content { Role::Content } else { Role::Calls(calls.map_err(|error| error.reason)) };
        self.give(end, role, out);
        true
    }

    /// Tells what has come of calls that have not ended.
    fn tell(&mut self, section: &'static Section, end: usize, out: &mut Vec<Segment>) {
        let n_open = self.n_open(section);
        let news = self.progress.read(section, n_open, &self.held[..end]);
        out.extend(news.into_iter().map(|news| Segment { text: String::new(), role: Role::News(news) }));
    }

    /// The length of a section's opening marker, unless it was in the prompt.
    fn n_open(&self, section: &Section) -> usize {
        if self.held.starts_with(section.open) { section.open.len() } else { 0 }
    }

    /// The end of a section's closing marker, if it has come, after what has been searched.
    fn find_close(&mut self, section: &Section) -> Option<usize> {
        let rest = &self.held[self.n_searched..];
        let found = section
            .close
            .iter()
            .filter_map(|close| Some((rest.find(close)?, close.len())))
            .min_by_key(|f| f.0);
        if let Some((at, len)) = found {
            return Some(self.n_searched + at + len);
        }
        self.n_searched += undecided_from(rest, section.close.iter().copied());
        None
    }

    fn give(&mut self, n_bytes: usize, role: Role, out: &mut Vec<Segment>) {
        if n_bytes > 0 {
            out.push(Segment { text: self.held.drain(..n_bytes).collect(), role });
            self.n_searched = 0;
        }
    }
}

fn parts(segments: Vec<Segment>) -> Vec<Part> {
    let mut parts = Vec::new();
    for Segment { text, role } in segments {
        match role {
            Role::Marker => {}
            Role::Reasoning => parts.push(Part::Reasoning(text)),
            Role::Content => parts.push(Part::Content(text)),
            Role::News(News::Begun { id, name }) => parts.push(Part::CallBegun { id, name }),
            Role::News(News::Arguments(json)) => parts.push(Part::CallArguments(json)),
            Role::Calls(Ok(calls)) => parts.extend(calls.into_iter().map(Part::ToolCall)),
            Role::Calls(Err(reason)) => parts.push(Part::Malformed(MalformedCall { text, reason })),
        }
    }
    parts
}
