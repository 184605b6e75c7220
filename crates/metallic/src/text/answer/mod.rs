//! From what a model says to what it thinks, answers, and wants to have called.
//!
//! A chat template shows how its model marks reasoning and calls of tools, for it writes those of earlier
//! turns the same way. So [`AnswerFormat`] looks in the template's text for the markers of the published
//! families, which are all in one table ([`families`]), and never at a model's name. [`AnswerSplitter`] then
//! finds them in the answer, however it is cut into tokens.

mod calls;
mod families;
mod form;
mod literal;
mod progress;
mod section;
mod splitter;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::{Message, Tokenizer};
pub use form::CallFormError;
use form::{Before, CallForm, Controls};
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
    /// A call of a tool begins, of which all comes as a [`Part::ToolCall`] at its end. Only of calls that are JSON between
    /// markers it is told before; those of one section that are told are the first of it.
    CallBegun {
        /// What the result is to refer to, where the model has said that already.
        id: Option<String>,
        /// Which tool.
        name: String,
    },
    /// More of the text of the JSON that the arguments of the call are that has begun last.
    CallArguments(String),
    /// A call of a tool.
    ToolCall(ToolCall),
    /// What should be calls of tools, but can't be read; those that have begun are among it.
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
            Part::CallBegun { .. } | Part::CallArguments(_) => {}
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
/// let parts = splitter.push("ents\": {\"city\": \"Pa");
/// let begun = Part::CallBegun { id: None, name: "weather".into() };
/// assert_eq!(parts, [begun, Part::CallArguments("{\"city\": \"Pa".into())]);
/// let parts = splitter.push("ris\"}}</tool_call>");
/// let [Part::CallArguments(rest), Part::ToolCall(call)] = &parts[..] else { panic!("{parts:?}") };
/// assert_eq!(rest, "ris\"}");
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
    /// How calls are written, where that is known.
    calls: Option<CallForm>,
}

impl AnswerFormat {
    /// The format of the model that a chat template is for. One without any marker makes all of an answer
    /// content, unless the prompt opens a thought.
    pub fn of_template(source: &str) -> Self {
        let sections: Vec<_> = families::SECTIONS.iter().filter(|s| source.contains(s.sign)).collect();
        let calls = CallForm::of_template(source, &sections);
        AnswerFormat { sections, others: families::SECTIONS, calls }
    }

    /// Whether an answer may have a part that the model says to itself.
    pub fn has_reasoning(&self) -> bool {
        self.sections.iter().any(|section| matches!(section.kind, Kind::Reasoning | Kind::Header { .. }))
    }

    /// Whether an answer may call tools.
    pub fn has_calls(&self) -> bool {
        let is_call = |section: &&Section| {
            matches!(section.kind, Kind::Calls(_) | Kind::WholeAnswer | Kind::Header { .. })
        };
        self.sections.iter().copied().any(|section| is_call(&section))
    }

    /// The grammar, in Lark's notation as llguidance reads it, of answers to a prompt that call one of these tools or, unless
    /// `only_one`, several, in the model's own way of writing calls and with arguments that keep to the tools' schemas. The
    /// tools are described as in OpenAI's API. A thought may come before: it must, where the prompt opens one.
    ///
    /// # Errors
    /// That there is no such form, or a tool has a name that can't be called.
    pub fn calls_grammar(
        &self,
        tokenizer: &Tokenizer,
        prompt: &str,
        tools: &[Value],
        only_one: bool,
    ) -> Result<String, CallFormError> {
        let all = 0..tokenizer.n_vocab() as u32;
        let controls = all.filter(|id| tokenizer.is_control(*id)).filter_map(|id| {
            let text = std::str::from_utf8(tokenizer.piece(id)?).ok()?;
            (!text.is_empty()).then(|| (text.to_owned(), id))
        });
        let controls = Controls { texts: controls.collect(), ends: tokenizer.stop_tokens().to_vec() };
        self.grammar(prompt, controls, tools, only_one)
    }

    fn grammar(
        &self,
        prompt: &str,
        controls: Controls,
        tools: &[Value],
        only_one: bool,
    ) -> Result<String, CallFormError> {
        let form = self.calls.as_ref().ok_or(CallFormError::NoForm)?;
        let sections = self.sections(prompt);
        let thoughts = || sections.iter().copied().filter(|section| section.is_thought());
        let opened = thoughts().find(|section| section.is_open(prompt)).map(|section| (section, true));
        let has_ended =
            thoughts().any(|section| section.close.iter().any(|close| prompt.trim_end().ends_with(close)));
        let own = thoughts().next().filter(|_| !has_ended).map(|section| (section, false));
        let contents = sections.iter().copied().filter(|section| matches!(section.kind, Kind::Content));
        let before = Before { thought: opened.or(own), contents: contents.collect() };
        form::grammar(form, &before, controls, tools, only_one)
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
