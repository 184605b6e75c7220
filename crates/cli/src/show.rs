//! `metallic show`: what a model is and can do, as a person asks. `inspect` has all that is in its file.

use std::io::{self, Write};

use metallic::GgufFile;
use metallic::text::{ChatTemplate, Message, RenderOptions};
use metallic_gguf::{GgmlType, Gguf, Metadata, Value};
use serde::Serialize;
use serde_json::json;

use crate::args::ShowArgs;
use crate::failure::{Failure, Kind, Result, one_line};
use crate::fetch::Fetcher;
use crate::model_file;
use crate::terminal::{Style, Terminal, human_bytes};

/// What `general.file_type` means, by number (llama.cpp's `llama_ftype`); an empty name was never published or is
/// no longer.
const FILE_TYPES: [&str; 41] = [
    "F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "",
    "",
    "",
    "Q8_0",
    "Q5_0",
    "Q5_1",
    "Q2_K",
    "Q3_K_S",
    "Q3_K_M",
    "Q3_K_L",
    "Q4_K_S",
    "Q4_K_M",
    "Q5_K_S",
    "Q5_K_M",
    "Q6_K",
    "IQ2_XXS",
    "IQ2_XS",
    "Q2_K_S",
    "IQ3_XS",
    "IQ3_XXS",
    "IQ1_S",
    "IQ4_NL",
    "IQ3_S",
    "IQ3_M",
    "IQ2_S",
    "IQ2_M",
    "IQ4_XS",
    "IQ1_M",
    "BF16",
    "",
    "",
    "",
    "TQ1_0",
    "TQ2_0",
    "MXFP4_MOE",
    "NVFP4",
    "Q1_0",
];

/// Shows the model.
pub(crate) fn run(args: &ShowArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let path = fetcher.locate(&args.model)?.path;
    let file = model_file::open_for_inspection(&path, fetcher.terminal)?;
    let facts = Facts::of(&file);
    let mut out = io::stdout().lock();
    let written = if args.template {
        let template = facts.template.as_deref().ok_or_else(|| {
            Failure::new(Kind::BadModel, format!("{} has no chat template", path.display()))
        })?;
        writeln!(out, "{}", fetcher.terminal.safe(template))
    } else if args.json {
        serde_json::to_writer_pretty(&mut out, &facts).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        facts.write(&mut out, fetcher.terminal)
    };
    written.map_err(Failure::output)
}

/// What a file says of its model. What it doesn't say is `None`.
#[derive(Serialize)]
struct Facts {
    name: Option<String>,
    architecture: Option<String>,
    n_parameters: u64,
    quantization: String,
    context_length: Option<u64>,
    embedding_length: Option<u64>,
    n_layers: Option<u64>,
    tokenizer: Option<String>,
    pre_tokenizer: Option<String>,
    n_vocab: Option<u64>,
    capabilities: Vec<&'static str>,
    license: Option<String>,
    /// Why it doesn't run here.
    unusable: Option<String>,
    n_bytes: u64,
    n_files: usize,
    path: String,
    template: Option<String>,
}

impl Facts {
    fn of(file: &GgufFile) -> Self {
        let gguf = file.gguf();
        let metadata = gguf.metadata();
        let architecture = text(&metadata, "general.architecture");
        let number = |key: &str| {
            let key = format!("{}.{key}", architecture.as_deref()?);
            metadata.optional::<u64>(&key).ok().flatten()
        };
        let n_vocab = match metadata.get("tokenizer.ggml.tokens") {
            Some(Value::Array(tokens)) => Some(tokens.len() as u64),
            _ => None,
        };
        let license = ["general.license", "general.license.name", "general.license.link"];
        Facts {
            name: text(&metadata, "general.name"),
            n_parameters: gguf.tensors().map(|tensor| tensor.n_elements()).fold(0, u64::saturating_add),
            quantization: quantization(&gguf),
            context_length: number("context_length"),
            embedding_length: number("embedding_length"),
            n_layers: number("block_count"),
            tokenizer: text(&metadata, "tokenizer.ggml.model"),
            pre_tokenizer: text(&metadata, "tokenizer.ggml.pre"),
            n_vocab,
            capabilities: capabilities(&gguf),
            license: license.iter().find_map(|key| text(&metadata, key)),
            unusable: metallic::model::unused_tensors(&gguf).err().map(|error| one_line(&error.to_string())),
            n_bytes: file.n_bytes(),
            n_files: gguf.n_shards(),
            path: file.path().display().to_string(),
            template: template(&metadata),
            architecture,
        }
    }

    fn write(&self, out: &mut impl Write, terminal: &Terminal) -> io::Result<()> {
        let unknown = || Some("unknown".to_owned());
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let tokenizer = self.tokenizer.as_ref().map(|model| {
            let pre = self.pre_tokenizer.as_ref().map_or(String::new(), |pre| format!(" ({pre})"));
            let n_vocab = self.n_vocab.map_or(String::new(), |n| format!(", {n} tokens"));
            format!("{model}{pre}{n_vocab}")
        });
        let template = match &self.template {
            Some(template) => format!("{} characters; --template prints it", template.chars().count()),
            None => "none: --chat-template of `run` and `chat` gives one".to_owned(),
        };
        let files = if self.n_files == 1 { "" } else { &format!(" in {} files", self.n_files) };
        let rows = [
            ("name", self.name.clone()),
            ("architecture", self.architecture.clone().or_else(unknown)),
            ("parameters", Some(human_count(self.n_parameters))),
            ("quantization", Some(self.quantization.clone())),
            ("context", self.context_length.map(|n| format!("{n} tokens"))),
            ("embedding", number(self.embedding_length)),
            ("layers", number(self.n_layers)),
            ("tokenizer", tokenizer),
            ("template", Some(template)),
            ("can do", Some(self.capabilities.join(", "))),
            ("licence", self.license.clone().or_else(unknown)),
            ("runs here", Some(self.unusable.as_ref().map_or("yes".to_owned(), |why| format!("no: {why}")))),
            ("size", Some(format!("{}{files}", human_bytes(self.n_bytes)))),
            ("file", Some(self.path.clone())),
        ];
        for (label, value) in rows {
            if let Some(value) = value {
                writeln!(
                    out,
                    "{}  {}",
                    terminal.paint(Style::Bold, format!("{label:<12}")),
                    one_line(&value)
                )?;
            }
        }
        Ok(())
    }
}

/// A text of the metadata. One that is empty, or of another type, says nothing.
fn text(metadata: &Metadata<'_>, key: &str) -> Option<String> {
    match metadata.get(key) {
        Some(Value::String(bytes)) => {
            Some(String::from_utf8_lossy(bytes).into_owned()).filter(|text| !text.is_empty())
        }
        _ => None,
    }
}

/// The mixture of types that a file says it has, or else the type that most of its bytes have.
pub(crate) fn quantization(gguf: &Gguf<'_>) -> String {
    let number = gguf.metadata().optional::<u64>("general.file_type").ok().flatten();
    let name = number
        .and_then(|number| FILE_TYPES.get(usize::try_from(number).ok()?))
        .filter(|name| !name.is_empty());
    let bytes_of = |wanted: GgmlType| -> u64 {
        let tensors = gguf.tensors().filter(|tensor| tensor.ggml_type() == wanted);
        tensors.map(|tensor| tensor.n_bytes()).fold(0, u64::saturating_add)
    };
    match name {
        Some(name) => (*name).to_owned(),
        None => {
            let types: std::collections::BTreeSet<_> =
                gguf.tensors().map(|tensor| tensor.ggml_type()).collect();
            let most = types.into_iter().max_by_key(|ggml_type| bytes_of(*ggml_type));
            most.map_or("none".to_owned(), |ggml_type| format!("mostly {ggml_type}"))
        }
    }
}

/// The template that a conversation takes where none is asked for: the file's default, or the only one that has a name.
fn template(metadata: &Metadata<'_>) -> Option<String> {
    const KEY: &str = "tokenizer.chat_template";
    let default = text(metadata, KEY);
    let mut named = metadata.iter().map(|(key, _)| key).filter(|key| key.starts_with(&format!("{KEY}.")));
    default.or_else(|| match (named.next(), named.next()) {
        (Some(only), None) => text(metadata, only),
        _ => None,
    })
}

/// What the model was made for, as far as its chat template tells.
fn capabilities(gguf: &Gguf<'_>) -> Vec<&'static str> {
    let mut capabilities = vec!["completion"];
    let Ok(Some(template)) = ChatTemplate::from_gguf(gguf) else { return capabilities };
    capabilities.push("chat");
    if takes_tools(&template) {
        capabilities.push("tools");
    }
    if template.answer_format().has_reasoning() {
        capabilities.push("reasoning");
    }
    capabilities
}

/// Whether the model is told of tools.
fn takes_tools(template: &ChatTemplate) -> bool {
    let tool = json!({"type": "function", "function": {
        "name": "weather", "description": "The weather of a place", "parameters": {"type": "object", "properties": {}},
    }});
    let messages = [Message::new("user", "?")];
    let render = |tools| template.render(&messages, &RenderOptions { tools, ..RenderOptions::default() });
    matches!((render(Vec::new()), render(vec![tool])), (Ok(without), Ok(with)) if without != with)
}

/// A number of parameters for people: `134.5M`.
fn human_count(n: u64) -> String {
    let units = [(1_000_000_000_000, "T"), (1_000_000_000, "B"), (1_000_000, "M"), (1000, "K")];
    let unit = units.into_iter().find(|(size, _)| n >= *size);
    unit.map_or(n.to_string(), |(size, name)| format!("{:.1}{name}", n as f64 / size as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_for_people() {
        for (n, text) in [(0, "0"), (999, "999"), (134_515_008, "134.5M"), (8_030_261_248, "8.0B")] {
            assert_eq!(human_count(n), text);
        }
    }

    #[test]
    fn file_types_have_llama_cpps_numbers() {
        for (number, name) in
            [(1, "F16"), (7, "Q8_0"), (15, "Q4_K_M"), (25, "IQ4_NL"), (32, "BF16"), (38, "MXFP4_MOE")]
        {
            assert_eq!(FILE_TYPES[number], name);
        }
    }
}
