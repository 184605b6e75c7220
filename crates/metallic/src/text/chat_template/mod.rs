//! From a conversation to the text that a model was trained to continue.
//!
//! A file carries its template in Jinja, written for Python's jinja2 as Hugging Face transformers sets it up.
//! minijinja renders it; what values do, from operators to filters, is Python's and in the files beside this
//! one. What Python makes of 70 published templates and five conversations, text or error, is made of them here,
//! and so it is of the snippets that `tools/jinja_snippets.py` writes, but for what `docs/chat-templates.md` names.
//!
//! A template is code from a stranger, so the work and the memory that rendering may take are limited by
//! [`RENDER_FUEL`], how deep calls nest by [`MAX_RECURSION`], and what could overflow the stack by [`source`].
//! What remains: a macro that hands a list of twice its argument to itself can make a value that takes long to
//! compare, which the engine does not count.

mod arguments;
mod bounds;
mod built_in;
mod checks;
mod clock;
mod expression;
mod filters;
mod globals;
mod html;
mod lexer;
mod message;
mod methods;
mod numbers;
mod operators;
mod printf;
mod python_json;
mod python_repr;
mod sequences;
mod source;
mod spec;
mod str_format;

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use metallic_gguf::{Gguf, Metadata};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, merge_maps};
use minijinja::{AutoEscape, Environment, Output, State, Template, Value, context};

pub use message::Message;
pub use source::MAX_TEMPLATE_BYTES;

use super::AnswerFormat;

/// How much work rendering may do. One unit is one instruction, or 64 bytes written. It is hundreds of times
/// what the most verbose published template needs for a conversation that fills a context of 100,000 tokens.
pub const RENDER_FUEL: u64 = 2_000_000;

/// How deep macros and loops may nest.
pub const MAX_RECURSION: usize = 100;

/// Why a chat template can't be used, or not for a conversation.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // a field's name and the variant's text say what it is
pub enum TemplateError {
    /// A key of the templates has a wrong type or is not text.
    #[error("the file's chat template can't be read")]
    Metadata(#[from] metallic_gguf::Error),

    /// The template is not valid, or uses something of Jinja that is not supported.
    #[error("the chat template {name:?} is not valid: {reason}")]
    Invalid { name: String, reason: String },

    /// There are several templates for uses that nobody has asked for.
    #[error("the file has no chat template for every use, only {}: choose one", names.join(", "))]
    NoDefault { names: Vec<String> },

    /// The template itself refuses the conversation, for instance because roles do not alternate.
    #[error("the chat template refuses this conversation: {message}")]
    Refused { message: String },

    /// Rendering took more than it may.
    #[error(
        "the chat template ran out of fuel: it did more than {limit} units of work for one conversation; \
         it is broken or hostile"
    )]
    OutOfFuel { limit: u64 },

    /// Rendering failed.
    #[error("the chat template failed: {reason}")]
    Failed { reason: String },
}

/// What a template is told beside the messages.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// Whether the text ends with the opening of the assistant's answer. On by default.
    pub add_generation_prompt: bool,
    /// Descriptions of tools that the model may call, as JSON schemas. None by default.
    pub tools: Vec<serde_json::Value>,
    /// The text of the token that begins a text. Empty by default.
    pub bos_token: String,
    /// The text of the token that ends a text. Empty by default.
    pub eos_token: String,
    /// Further variables that the template knows, such as `enable_thinking`.
    pub variables: serde_json::Map<String, serde_json::Value>,
    /// The time, where the user is, that templates may put into their text. None by default: `strftime_now` is
    /// then not defined, and templates that ask for it write a date of their own.
    pub now: Option<DateTime>,
}

impl Default for RenderOptions {
    fn default() -> Self {
        RenderOptions {
            add_generation_prompt: true,
            tools: Vec::new(),
            bos_token: String::new(),
            eos_token: String::new(),
            variables: serde_json::Map::new(),
            now: None,
        }
    }
}

/// The chat templates of one model.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The one that is used whatever there is.
    chosen: Option<String>,
}

/// The template that is used if no other is asked for, or fits.
const DEFAULT: &str = "default";
/// The template that is used if there are tools and a template of this name.
const TOOL_USE: &str = "tool_use";

impl ChatTemplate {
    /// Reads the template of a file (`tokenizer.chat_template`), and those for other uses
    /// (`tokenizer.chat_template.NAME`). `None` if it has none: it is not a model for conversations.
    ///
    /// # Errors
    /// [`TemplateError::Metadata`] and [`TemplateError::Invalid`].
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Option<Self>, TemplateError> {
        let sources = sources(&gguf.metadata())?;
        if sources.is_empty() { Ok(None) } else { ChatTemplate::from_sources(sources).map(Some) }
    }

    /// A template from its text.
    ///
    /// # Errors
    /// [`TemplateError::Invalid`] if the text is no template.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        ChatTemplate::from_sources(BTreeMap::from([(DEFAULT.to_owned(), source.to_owned())]))
    }

    /// A template for a well-known format, for files that carry none. [`ChatTemplate::built_in_names`] has
    /// the names.
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, source) = built_in::TEMPLATES.iter().find(|(known, _)| *known == name)?;
        ChatTemplate::new(source).ok()
    }

    /// The names of the built-in templates.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        built_in::TEMPLATES.iter().map(|(name, _)| *name)
    }

    fn from_sources(sources: BTreeMap<String, String>) -> Result<Self, TemplateError> {
        let mut environment = Environment::empty();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the standard delimiters are valid"));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(RENDER_FUEL));
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_formatter(write_value);
        environment.set_unknown_method_callback(methods::call);
        operators::add_to(&mut environment);
        filters::add_to(&mut environment);
        checks::add_to(&mut environment);
        globals::add_to(&mut environment);
        for (name, source) in sources {
            let invalid = |reason| TemplateError::Invalid { name: name.clone(), reason };
            let source = source::prepare(&source)
                .map_err(|error| invalid(format!("{} (line {})", error.reason, error.line)))?;
            environment
                .add_template_owned(name.clone(), source)
                .map_err(|error| invalid(describe(&error)))?;
        }
        Ok(ChatTemplate { environment, chosen: None })
    }

    /// The names of the templates; the one without a name is `default`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.environment.templates().map(|(name, _)| name)
    }

    /// These templates, of which the one of this name is used for every conversation. `None` if there is none.
    pub fn choose(mut self, name: &str) -> Option<Self> {
        self.environment.get_template(name).ok()?;
        self.chosen = Some(name.to_owned());
        Some(self)
    }

    /// How the model that the templates are for marks the parts of its answers.
    pub fn answer_format(&self) -> AnswerFormat {
        let sources = self.environment.templates().map(|(_, template)| template.source().to_owned());
        AnswerFormat::of_template(&sources.collect::<String>())
    }

    /// The template for a conversation: the one that was chosen; where there are tools, the one for them; the one
    /// without a name; or the only one.
    fn template(&self, has_tools: bool) -> Result<Template<'_, '_>, TemplateError> {
        let mut names: Vec<_> = self.names().map(str::to_owned).collect();
        let for_tools = has_tools.then_some(TOOL_USE);
        let wanted = [self.chosen.as_deref(), for_tools, Some(DEFAULT)];
        let named = wanted.into_iter().flatten().find_map(|name| self.environment.get_template(name).ok());
        match named {
            Some(template) => Ok(template),
            None if names.len() == 1 => self.environment.get_template(&names[0]).map_err(failed),
            None => {
                names.sort_unstable();
                Err(TemplateError::NoDefault { names })
            }
        }
    }

    /// The text of a conversation. If no template was chosen and there are tools, it is the template
    /// `tool_use` that renders it, where there is one. A file with a single template, whatever its name, has it
    /// for all uses.
    ///
    /// # Errors
    /// [`TemplateError::NoDefault`] if there are only templates for other uses;
    /// [`TemplateError::Refused`] with the template's own words, if it has some;
    /// [`TemplateError::OutOfFuel`] and [`TemplateError::Failed`].
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, TemplateError> {
        let template = self.template(!options.tools.is_empty())?;
        // Python passes `None` where there are no tools, and templates ask for that.
        let tools = (!options.tools.is_empty()).then(|| Value::from(Serde(&options.tools)));
        let variables = context! {
            messages => Value::from(Serde(messages)),
            tools,
            documents => Value::from(()),
            add_generation_prompt => options.add_generation_prompt,
            bos_token => options.bos_token.as_str(),
            eos_token => options.eos_token.as_str(),
        };
        let time = options.now.map(|now| ("strftime_now", clock::strftime(now)));
        let variables =
            merge_maps([variables, Value::from_pairs(time), Value::from(Serde(&options.variables))]);
        template.render(variables).map_err(failed)
    }
}

fn sources(metadata: &Metadata<'_>) -> Result<BTreeMap<String, String>, TemplateError> {
    const KEY: &str = "tokenizer.chat_template";
    let mut sources = BTreeMap::new();
    let keys = metadata.iter().filter_map(|(key, _)| Some((key, key.strip_prefix(KEY)?)));
    for (key, rest) in keys {
        let name = match rest.strip_prefix('.') {
            Some(name) => name,
            None if rest.is_empty() => DEFAULT,
            None => continue, // a key of another meaning, such as the list of names
        };
        // One without any text would make every conversation empty; it is what some programs write for none.
        let source = metadata.required::<&str>(key)?;
        if !source.trim().is_empty() {
            sources.insert(name.to_owned(), source.to_owned());
        }
    }
    Ok(sources)
}

fn failed(error: minijinja::Error) -> TemplateError {
    if let Some(message) = globals::raised(&error) {
        return TemplateError::Refused { message };
    }
    match error.kind() {
        minijinja::ErrorKind::OutOfFuel => TemplateError::OutOfFuel { limit: RENDER_FUEL },
        _ => TemplateError::Failed { reason: describe(&error) },
    }
}

/// What is wrong and in which line.
fn describe(error: &minijinja::Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or(detail.clone(), |line| format!("{detail} (line {line})"))
}

/// Writes a value as Python's `str` does.
fn write_value(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    let text = python_repr::text(state, value)?;
    let escapes = *state.auto_escape() == AutoEscape::Html;
    Ok(out.write_str(&if escapes { html::escaped(value, &text) } else { text })?)
}
