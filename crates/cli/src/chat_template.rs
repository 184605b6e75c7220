//! Which template makes a conversation a text.

use std::ffi::OsStr;
use std::path::Path;

use metallic::GgufFile;
use metallic::text::ChatTemplate;

use crate::failure::{Failure, Kind, Result};
use crate::input;

/// The template that the user asks for: a name or a file; or else the model's own, if it has one.
pub(crate) fn choose(file: &GgufFile, path: &Path, choice: Option<&OsStr>) -> Result<Option<ChatTemplate>> {
    let own = ChatTemplate::from_gguf(&file.gguf());
    let Some(choice) = choice else {
        return own.map_err(|e| {
            Failure::new(Kind::BadModel, format!("can't use the chat template of {}", path.display()))
                .because(e)
                .advice("`--chat-template` uses another")
        });
    };
    // Whatever is wrong with the model's own, another may be used in its place.
    let own = own.ok().flatten();
    let named = choice.to_str().and_then(|name| {
        own.clone().and_then(|own| own.choose(name)).or_else(|| ChatTemplate::built_in(name))
    });
    match named {
        Some(template) => Ok(Some(template)),
        None if Path::new(choice).is_file() => from_file(Path::new(choice)).map(Some),
        None => Err(unknown(choice, own.as_ref())),
    }
}

fn from_file(path: &Path) -> Result<ChatTemplate> {
    ChatTemplate::new(&input::file(path)?)
        .map_err(|e| Failure::new(Kind::Usage, format!("can't use {}", path.display())).because(e))
}

fn unknown(choice: &OsStr, own: Option<&ChatTemplate>) -> Failure {
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let mut own: Vec<_> = own.into_iter().flat_map(ChatTemplate::names).collect();
    own.sort_unstable();
    let built_in = list(ChatTemplate::built_in_names().collect());
    Failure::new(Kind::Usage, format!("{choice:?} is neither a chat template's name nor a file"))
        .advice(format!("the model has {}; built in are {built_in}", list(own)))
}
