//! From what a model says to what it thinks, answers, and wants to have called.
//!
//! A chat template shows how its model marks reasoning and calls of tools, for it writes those of earlier
//! turns the same way. So [`AnswerFormat`] looks in the template's text for the markers of the published
//! families, which are all in one table ([`families`]), and never at a model's name. [`AnswerSplitter`] then
//! finds them in the answer, however it is cut into tokens.

mod calls;
mod families;
mod literal;
mod section;
mod splitter;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::{Message, Tokenizer};
use section::{Kind, Section};
pub use splitter::AnswerSplitter;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Part {
    /// More of what the model says to itself.
    Reasoning(String),
    /// More of what it says to the user.
    Content(String),
    /// A call of a tool.
    ToolCall(ToolCall),
    /// What should be calls of tools, but can't be read.
    Malformed(MalformedCall),
}

/// A model's wish to have a tool called.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ToolCall {
    /// What the result is to refer to, where the model says that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Which tool.
    pub name: String,
    /// With what. Families that write arguments between tags don't tell text from other values; what reads as
    /// a number, a truth value, a list or an object is taken to be that, and anything else to be text.
    pub arguments: Map<String, Value>,
}

/// Text in the place of calls that is not a call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the model's call of a tool can't be read: {reason}")]
pub struct MalformedCall {
    /// What the model has said, markers and all.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An answer that is complete, its parts put together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// What the model has said to itself.
    pub reasoning: String,
    /// What it has said to the user, calls that can't be read among it.
    pub content: String,
    /// The tools that it wants to have called, in order.
    pub tool_calls: Vec<ToolCall>,
}

impl Answer {
    /// Adds a part.
    pub fn push(&mut self, part: Part) {
        match part {
            Part::Reasoning(text) => self.reasoning.push_str(&text),
            Part::Content(text) => self.content.push_str(&text),
            Part::ToolCall(call) => self.tool_calls.push(call),
            Part::Malformed(call) => self.content.push_str(&call.text),
        }
    }

    /// The message that stands for the answer in a conversation. Reasoning is its field `reasoning_content`,
    /// which templates use as their models want it: most leave it out of earlier turns.
    pub fn into_message(self) -> Message {
        let mut message = Message::new("assistant", self.content);
        if !self.reasoning.is_empty() {
            message.more.insert("reasoning_content".to_owned(), Value::String(self.reasoning));
        }
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.into_iter().map(|ToolCall { id, name, arguments }| {
                let mut call =
                    json!({"type": "function", "function": {"name": name, "arguments": arguments}});
                // Templates ask whether there is one.
                if let Some(id) = id {
                    call["id"] = Value::String(id);
                }
                call
            });
            message.tool_calls = Some(calls.collect());
        }
        message
    }
}

/// How a model marks the parts of its answers.
///
/// ```
/// use metallic::text::{ChatTemplate, Part};
///
/// # fn main() -> Result<(), metallic::text::TemplateError> {
/// let template = ChatTemplate::new(
///     "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n\
///      {% endfor %}<|im_start|>assistant\n<think>\n{# <tool_call> #}",
/// )?;
/// let prompt = "<|im_start|>user\nWeather in Paris?<|im_end|>\n<|im_start|>assistant\n<think>\n";
/// let mut splitter = template.answer_format().splitter(prompt);
/// assert_eq!(splitter.push("I must loo"), [Part::Reasoning("I must loo".into())]);
/// assert_eq!(splitter.push("k.\n</th"), [Part::Reasoning("k.".into())]);
/// assert_eq!(splitter.push("ink>\n\nA moment."), [Part::Content("A moment.".into())]);
/// assert_eq!(splitter.push("<tool_call>{\"name\": \"weather\", \"argum"), []);
/// let parts = splitter.push("ents\": {\"city\": \"Paris\"}}</tool_call>");
/// let [Part::ToolCall(call)] = &parts[..] else { panic!("{parts:?}") };
/// assert_eq!((call.name.as_str(), &call.arguments["city"]), ("weather", &"Paris".into()));
/// assert_eq!(splitter.finish(), []);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct AnswerFormat {
    sections: Vec<&'static Section>,
    /// Sections of other families, which count where the prompt opens one: some templates open a thought and
    /// never name its end.
    others: &'static [Section],
}

impl AnswerFormat {
    /// The format of the model that a chat template is for. One without any marker makes all of an answer
    /// content, unless the prompt opens a thought.
    pub fn of_template(source: &str) -> Self {
        let sections = families::SECTIONS.iter().filter(|s| source.contains(s.sign)).collect();
        AnswerFormat { sections, others: families::SECTIONS }
    }

    /// Whether an answer may have a part that the model says to itself.
    pub fn has_reasoning(&self) -> bool {
        self.sections.iter().any(|section| matches!(section.kind, Kind::Reasoning | Kind::Header { .. }))
    }

    /// A splitter for the answer to a prompt, whose end may already have opened a part of it. Where calls
    /// have no marker (Llama 3 writes mere JSON), the prompt also says whether there can be any.
    pub fn splitter(&self, prompt: &str) -> AnswerSplitter {
        AnswerSplitter::new(&self.sections(prompt), prompt)
    }

    /// The control tokens that the markers of an answer to a prompt are made of.
    /// [`Request::control_tokens`](crate::Request::control_tokens) puts their text into the answer.
    pub fn control_tokens(&self, tokenizer: &Tokenizer, prompt: &str) -> Vec<u32> {
        let sections = self.sections(prompt);
        let uses = |id: &u32| {
            let text = tokenizer.piece(*id).and_then(|text| std::str::from_utf8(text).ok());
            text.is_some_and(|text| !text.is_empty() && sections.iter().any(|s| s.uses(text)))
        };
        let all = 0..tokenizer.n_vocab() as u32;
        all.filter(|id| tokenizer.is_control(*id)).filter(uses).collect()
    }

    /// The sections of the template, or with them the thought of another family that the prompt opens.
    fn sections(&self, prompt: &str) -> Vec<&'static Section> {
        let is_known = self.sections.iter().any(|section| section.is_open(prompt));
        let opened =
            self.others.iter().find(|section| !is_known && section.is_thought() && section.is_open(prompt));
        self.sections.iter().copied().chain(opened).collect()
    }
}
