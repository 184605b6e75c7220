//! Which template makes a conversation a text.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use metallic::GgufFile;
use metallic::text::{AnswerFormat, ChatTemplate, Message, RenderOptions, TemplateError};

use crate::failure::{Failure, Kind, Result};
use crate::input::{self, Limit};

/// A template and where it is from.
pub(crate) struct Chosen {
    template: ChatTemplate,
    /// The file that errors name: the model's own, or the template's.
    origin: PathBuf,
}

impl Chosen {
    /// The text of a conversation.
    pub(crate) fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        self.template.render(messages, options).map_err(|e| match e {
            TemplateError::NoDefault { .. } => unusable(&self.origin, e),
            _ => Failure::new(Kind::General, self.origin.display().to_string()).because(e),
        })
    }

    /// The template, for whoever has errors of their own.
    #[cfg(feature = "serve")]
    pub(crate) fn into_template(self) -> ChatTemplate {
        self.template
    }

    /// How answers are marked.
    pub(crate) fn answer_format(&self) -> AnswerFormat {
        self.template.answer_format()
    }
}

/// The template that the user asks for: a name or a file; or else the model's own, if it has one.
pub(crate) fn choose(file: &GgufFile, path: &Path, choice: Option<&OsStr>) -> Result<Option<Chosen>> {
    let own = ChatTemplate::from_gguf(&file.gguf());
    let in_file = |template| Chosen { template, origin: path.to_owned() };
    let Some(choice) = choice else {
        return own.map(|own| own.map(in_file)).map_err(|e| unusable(path, e));
    };
    // Whatever is wrong with the model's own, another may be used in its place.
    let own = own.ok().flatten();
    let named = choice.to_str().and_then(|name| {
        own.clone().and_then(|own| own.choose(name)).or_else(|| ChatTemplate::built_in(name))
    });
    match named {
        Some(template) => Ok(Some(in_file(template))),
        None if Path::new(choice).is_file() => from_file(Path::new(choice)).map(Some),
        None => Err(unknown(choice, own.as_ref())),
    }
}

/// A model's own template is at fault, whichever the conversation.
fn unusable(path: &Path, error: TemplateError) -> Failure {
    let advice = match error {
        TemplateError::NoDefault { .. } => "`--chat-template NAME` does",
        _ => "`--chat-template` uses another",
    };
    Failure::new(Kind::BadModel, format!("can't use the chat template of {}", path.display()))
        .because(error)
        .advice(advice)
}

fn from_file(path: &Path) -> Result<Chosen> {
    let unusable = || Failure::new(Kind::Usage, format!("can't use {}", path.display()));
    let source = input::file(path, Limit::TEMPLATE)?;
    if source.trim().is_empty() {
        return Err(unusable().because("the template is empty"));
    }
    let template = ChatTemplate::new(&source).map_err(|e| unusable().because(e))?;
    Ok(Chosen { template, origin: path.to_owned() })
}

fn unknown(choice: &OsStr, own: Option<&ChatTemplate>) -> Failure {
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let mut own: Vec<_> = own.into_iter().flat_map(ChatTemplate::names).collect();
    own.sort_unstable();
    let built_in = list(ChatTemplate::built_in_names().collect());
    Failure::new(Kind::Usage, format!("{choice:?} is neither a chat template's name nor a file"))
        .advice(format!("the model has {}; built in are {built_in}", list(own)))
}
