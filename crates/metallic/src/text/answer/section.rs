//! What a section of an answer is: where it begins and ends, and how what is in it is written.

use super::calls::ID_MARKS;
use super::literal::GEMMA_QUOTE;

/// A part of an answer between two markers.
#[derive(Debug)]
pub(super) struct Section {
    /// What the chat template of a model contains that writes this section.
    pub(super) sign: &'static str,
    /// What it begins with.
    pub(super) open: &'static str,
    /// What it ends with: one of these, or the end of the answer.
    pub(super) close: &'static [&'static str],
    /// What is in it.
    pub(super) kind: Kind,
}

/// What is in a section.
#[derive(Debug)]
pub(super) enum Kind {
    /// What the model says to itself.
    Reasoning,
    /// What it says to the user.
    Content,
    /// Calls of tools, written in the first of these ways that fits.
    Calls(&'static [Syntax]),
    /// Calls of tools that are all of an answer. There is no marker but their own beginning, so it takes the
    /// sign in the prompt as well, and what can't be read is content.
    WholeAnswer,
    /// To whom the model speaks: to itself, to the user, or to a tool.
    Header { to_self: &'static Section, to_user: &'static Section, to_tool: &'static Section },
}

/// How a call of a tool is written.
#[derive(Debug)]
pub(super) enum Syntax {
    /// JSON: an object with a name and arguments, several of them, or a list of them. Whatever a family's own way, all are
    /// read.
    Json(Object),
    /// The name between tags, then arguments.
    Tagged { call: Tag, arguments: Arguments },
    /// Python's, `name(key=value)`.
    Python,
    /// Gemma's, `call:name{key:value}`.
    Gemma,
}

/// How a family writes a call in JSON.
#[derive(Debug)]
pub(super) struct Object {
    /// The key of the tool's name; none where the name is itself the key of the arguments.
    pub(super) name: Option<&'static str>,
    /// The key of the arguments.
    pub(super) arguments: &'static str,
    /// The key of an id before the name, and of one after the arguments, where there may be one.
    pub(super) ids: [Option<&'static str>; 2],
    /// Whether calls are items of a list; `None` for both, which some families share a marker for.
    pub(super) in_list: Option<bool>,
}

/// How a call's arguments are written.
#[derive(Debug)]
pub(super) enum Arguments {
    /// A JSON object.
    Json,
    /// Each by itself.
    Tagged(Tag),
}

/// A named part of a call.
#[derive(Debug)]
pub(super) struct Tag {
    /// Before the name.
    pub(super) open: &'static str,
    /// After the name.
    pub(super) name_end: &'static str,
    /// What the value begins after, if not at the end of the name.
    pub(super) value_after: &'static str,
    /// After the value; `{}` is the name.
    pub(super) close: &'static str,
}

impl Section {
    /// Whether it is what the model says to itself.
    pub(super) fn is_thought(&self) -> bool {
        matches!(self.kind, Kind::Reasoning)
    }

    /// Whether a prompt ends within the section.
    pub(super) fn is_open(&self, prompt: &str) -> bool {
        match self.kind {
            Kind::Header { .. } => match (prompt.rfind(self.open), prompt.rfind(self.close[0])) {
                (Some(open), Some(close)) => open > close,
                (open, _) => open.is_some(),
            },
            Kind::Reasoning | Kind::Content => prompt.trim_end().ends_with(self.open),
            Kind::Calls(_) | Kind::WholeAnswer => false,
        }
    }

    /// Whether a token of this text may be a part of what marks the section.
    pub(super) fn uses(&self, token: &str) -> bool {
        let in_tag = |tag: &Tag| {
            [tag.open, tag.name_end, tag.value_after, tag.close].iter().any(|text| text.contains(token))
        };
        let in_syntax = |syntax: &Syntax| match syntax {
            Syntax::Json(_) | Syntax::Python => false,
            Syntax::Gemma => GEMMA_QUOTE.contains(token),
            Syntax::Tagged { call, arguments } => {
                in_tag(call)
                    || ID_MARKS.iter().any(|mark| mark.contains(token))
                    || matches!(arguments, Arguments::Tagged(argument) if in_tag(argument))
            }
        };
        let in_kind = match &self.kind {
            Kind::Calls(syntaxes) => syntaxes.iter().any(in_syntax),
            Kind::Header { to_self, to_user, to_tool } => {
                [to_self, to_user, to_tool].iter().any(|section| section.uses(token))
            }
            Kind::Reasoning | Kind::Content | Kind::WholeAnswer => false,
        };
        in_kind || self.open.contains(token) || self.close.iter().any(|close| close.contains(token))
    }
}
