//! Splits an answer as it arrives.

use super::calls;
use super::section::{Kind, Section};
use super::{MalformedCall, Part, ToolCall};
use crate::text::stop_matcher::undecided_from;

/// The longest header that is waited for. The longest in use has some eighty bytes.
const MAX_HEADER_BYTES: usize = 512;

/// Takes an answer in pieces of any size and gives its parts, as soon as it is certain what they are.
///
/// What may be the beginning of a marker waits, and so does whitespace that may precede one, and a call until it is complete.
#[derive(Clone, Debug)]
pub struct AnswerSplitter {
    sections: Vec<&'static Section>,
    /// The section that the answer is in, if it is in one.
    within: Option<&'static Section>,
    /// What has arrived and is not given out.
    held: String,
    /// Of a header or calls: how much of what is held can't be the end.
    n_searched: usize,
    /// Whether all that has come is whitespace.
    at_start: bool,
    /// Whether whitespace belongs to the marker before it.
    after_marker: bool,
}

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
    Calls(Result<Vec<ToolCall>, String>),
}

impl AnswerSplitter {
    pub(super) fn new(sections: Vec<&'static Section>, prompt: &str) -> Self {
        let within = sections.iter().copied().find(|section| is_open(section, prompt));
        AnswerSplitter {
            sections,
            within,
            held: String::new(),
            n_searched: 0,
            at_start: true,
            after_marker: within.is_some(),
        }
    }

    /// Takes more of the answer.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        parts(self.push_segments(text))
    }

    /// Ends the answer, and gives what is left.
    pub fn finish(&mut self) -> Vec<Part> {
        parts(self.finish_segments())
    }

    pub(super) fn push_segments(&mut self, text: &str) -> Vec<Segment> {
        self.held.push_str(text);
        self.run(false)
    }

    pub(super) fn finish_segments(&mut self) -> Vec<Segment> {
        self.run(true)
    }

    fn run(&mut self, is_end: bool) -> Vec<Segment> {
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
        let Some((len, next)) = marker else { return false };
        let keeps_marker = next.is_some_and(|next| !matches!(next.kind, Kind::Reasoning | Kind::Content));
        self.give(if keeps_marker { end - n_text } else { end - n_text + len }, Role::Marker, out);
        self.within = next;
        self.n_searched = if keeps_marker { len } else { 0 };
        self.after_marker = !keeps_marker;
        self.at_start = false;
        true
    }

    /// Where text ends, for now or because of a marker; that marker's length and the section after it.
    fn next_marker(
        &self,
        within: Option<&'static Section>,
        is_end: bool,
    ) -> (usize, Option<(usize, Option<&'static Section>)>) {
        let markers: Vec<_> = match within {
            Some(section) => section.close.iter().map(|&close| (close, None)).collect(),
            None => self.sections.iter().flat_map(|section| self.outside_markers(section)).collect(),
        };
        let undecided =
            if is_end { self.held.len() } else { undecided_from(&self.held, markers.iter().map(|m| m.0)) };
        // Of markers at the same place the longest counts.
        let first = markers
            .iter()
            .filter_map(|&(text, next)| Some((self.held.find(text)?, text.len(), next)))
            .min_by_key(|&(at, len, _)| (at, std::cmp::Reverse(len)));
        match first.filter(|&(at, ..)| at < undecided) {
            Some((at, len, next)) => (at, Some((len, next))),
            None => (undecided, None),
        }
    }

    /// The markers of a section that count outside of sections, and what follows them.
    fn outside_markers(
        &self,
        section: &'static Section,
    ) -> impl Iterator<Item = (&'static str, Option<&'static Section>)> {
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
                let n_open = if self.held.starts_with(section.open) { section.open.len() } else { 0 };
                self.give(n_open, Role::Content, out);
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
        let n_open = if self.held.starts_with(section.open) { section.open.len() } else { 0 };
        let (end, n_close) = match self.find_close(section) {
            Some(end) => {
                (end, section.close.iter().find(|c| self.held[..end].ends_with(**c)).map_or(0, |c| c.len()))
            }
            None if is_end => (self.held.len(), 0),
            None => return false,
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
        self.within = None;
        self.after_marker = calls.is_ok();
        self.give(end, Role::Calls(calls.map_err(|error| error.reason)), out);
        true
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

/// Whether a prompt ends within a section.
fn is_open(section: &Section, prompt: &str) -> bool {
    match section.kind {
        Kind::Header { .. } => match (prompt.rfind(section.open), prompt.rfind(section.close[0])) {
            (Some(open), Some(close)) => open > close,
            (open, _) => open.is_some(),
        },
        Kind::Reasoning | Kind::Content => prompt.trim_end().ends_with(section.open),
        Kind::Calls(_) | Kind::WholeAnswer => false,
    }
}

fn parts(segments: Vec<Segment>) -> Vec<Part> {
    let mut parts = Vec::new();
    for Segment { text, role } in segments {
        match role {
            Role::Marker => {}
            Role::Reasoning => parts.push(Part::Reasoning(text)),
            Role::Content => parts.push(Part::Content(text)),
            Role::Calls(Ok(calls)) => parts.extend(calls.into_iter().map(Part::ToolCall)),
            Role::Calls(Err(reason)) => parts.push(Part::Malformed(MalformedCall { text, reason })),
        }
    }
    parts
}
