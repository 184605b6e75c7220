//! What `metallic run` is asked: which of its arguments is the model, and what makes up the prompt.
//!
//! `run MODEL PROMPT` and `run PROMPT` look alike, so what the first argument names decides. A word that can only be
//! a path but names nothing is an error: answered as a prompt, by another model than was meant, it would mislead.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::args::RunArgs;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::{ModelName, no_model};
use crate::input::{self, Limit};

/// How long text on standard input may take to begin where there is a prompt without it: whoever starts us may hold a
/// pipe open that nothing comes through.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is asked of which model.
#[derive(Debug, PartialEq)]
pub(crate) struct Question {
    /// The model, if one is named.
    pub(crate) model: Option<ModelName>,
    /// What the command line says of the prompt, its own words and those of a file; standard input may have more.
    pub(crate) said: Option<String>,
    /// Whether the file is standard input, of which nothing is left then.
    is_all_said: bool,
    /// A first word of the prompt that may have been meant as a model's name.
    pub(crate) doubt: Option<String>,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    File,
    /// A folder, or something that may not be looked at.
    Other,
    Nothing,
}

impl Question {
    /// The question of a command line.
    pub(crate) fn of(args: &RunArgs) -> Result<Self> {
        Self::with(args, find)
    }

    /// The prompt, which takes all of standard input unless that is a terminal; `None` where nothing is asked.
    pub(crate) fn prompt(&self, limit: Limit) -> Result<Option<String>> {
        self.prompt_with(|patience| input::piped(limit, patience))
    }

    fn prompt_with(
        &self,
        piped: impl FnOnce(Option<Duration>) -> Result<Option<String>>,
    ) -> Result<Option<String>> {
        let patience = self.said.as_ref().map(|_| PATIENCE);
        let more = if self.is_all_said { None } else { piped(patience)?.map(input::strip_line_end) };
        Ok(joined(self.said.clone().into_iter().chain(more)))
    }

    fn with(args: &RunArgs, find: impl Fn(&Path) -> Found) -> Result<Self> {
        let mut model = args.session.model.clone();
        let mut words: Vec<&OsStr> = args.first.iter().chain(&args.rest).map(OsString::as_os_str).collect();
        let mut doubt = None;
        if model.is_none()
            && let Some(first) = args.first.as_deref()
        {
            model = named(first, find)?;
            if model.is_some() {
                words.remove(0);
            } else if !has_white_space(first)
                && args.rest.first().is_none_or(|second| has_white_space(second))
            {
                doubt = first.to_str().map(str::to_owned);
            }
        }
        words.extend(args.literal.iter().map(OsString::as_os_str));
        let is_all_said = args.file.as_deref() == Some(Path::new(input::STDIN));
        Ok(Self { model, said: said(args, &words)?, is_all_said, doubt })
    }
}

/// The model that a first argument names, if it names one.
fn named(first: &OsStr, find: impl Fn(&Path) -> Found) -> Result<Option<ModelName>> {
    let path = Path::new(first);
    match ModelName::from_os(first.to_owned()) {
        Ok(ModelName::Path(_)) => {}
        Ok(name) => return Ok(Some(name)),
        Err(_) if has_white_space(first) || first.is_empty() => return Ok(None),
        Err(wrong) => return Err(Failure::new(Kind::Usage, wrong)),
    }
    match find(path) {
        Found::File => Ok(Some(ModelName::Path(path.to_owned()))),
        Found::Other if looks_like_path(first) => Ok(Some(ModelName::Path(path.to_owned()))),
        Found::Nothing if looks_like_path(first) || looks_like_name(first) => {
            Err(no_model(path).or_advice("put `--` before it if it is a prompt"))
        }
        Found::Other | Found::Nothing => Ok(None),
    }
}

fn find(path: &Path) -> Found {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Found::File,
        Ok(_) => Found::Other,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Found::Nothing
        }
        Err(_) => Found::Other,
    }
}

/// Whether somebody who writes this means a path. A sentence may have a separator or a file's name in it, too; one word
/// hardly ever does, and `--` is there for "and/or".
fn looks_like_path(text: &OsStr) -> bool {
    let bytes = text.as_encoded_bytes();
    let ends_as_model = Path::new(text).extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    if has_white_space(text) {
        let starts = ["/", "./", "../", "~/", "\\", ".\\", "..\\"];
        return ends_as_model && starts.iter().any(|start| bytes.starts_with(start.as_bytes()));
    }
    ends_as_model || bytes.contains(&b'/') || bytes.contains(&b'\\')
}

/// Whether it is like the names that models have elsewhere, such as `llama3.2:1b`, and unlike a word of a sentence.
fn looks_like_name(text: &OsStr) -> bool {
    let Some(text) = text.to_str() else { return false };
    let is_made_of = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let ends = text.ends_with(|c: char| c.is_ascii_alphanumeric());
    begins && ends && text.chars().all(is_made_of) && text.contains(|c: char| c.is_ascii_digit() || c == ':')
}

fn has_white_space(text: &OsStr) -> bool {
    text.to_string_lossy().contains(char::is_whitespace)
}

/// What the command line says of the prompt.
fn said(args: &RunArgs, words: &[&OsStr]) -> Result<Option<String>> {
    if !words.is_empty() && args.prompt.is_some() {
        return Err(Failure::new(Kind::Usage, "there are two prompts, an argument and that of --prompt")
            .advice("give one of them"));
    }
    let mut parts = Vec::new();
    if !words.is_empty() {
        let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
        let words = words.ok_or_else(|| Failure::new(Kind::Usage, "the prompt is not UTF-8"))?;
        parts.push(words.join(" "));
    }
    parts.extend(args.prompt.clone());
    if let Some(path) = &args.file {
        parts.push(input::strip_line_end(input::file(path, Limit::within(&args.session.engine.compute))?));
    }
    Ok(joined(parts))
}

/// Parts of a prompt with an empty line between them; `None` if there are none.
fn joined(parts: impl IntoIterator<Item = String>) -> Option<String> {
    let (full, empty): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| !part.is_empty());
    (!full.is_empty() || !empty.is_empty()).then(|| full.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};

    const FILES: [&str; 4] = ["m.gguf", "./my model.gguf", "models/m.bin", "README"];

    /// The model and the prompt of `metallic run ARGS`, with these files, and this text on standard input or a
    /// terminal.
    fn ask(args: &[&str], stdin: Option<&str>) -> Result<(Option<String>, Option<String>)> {
        let args: Vec<OsString> = ["metallic", "run"].iter().chain(args).map(OsString::from).collect();
        let Command::Run(args) = Cli::read(&args).expect("arguments").command else {
            panic!("another command")
        };
        let find = |path: &Path| match path.to_str() {
            Some(name) if FILES.contains(&name) => Found::File,
            Some("src" | "models/") => Found::Other,
            _ => Found::Nothing,
        };
        let question = Question::with(&args, find)?;
        let prompt = question.prompt_with(|_| Ok(stdin.map(str::to_owned)))?;
        Ok((question.model.map(|model| model.to_string()), prompt))
    }

    #[test]
    fn the_first_argument_is_the_model_if_it_names_one() {
        for (args, model, prompt) in [
            (&["m.gguf", "hi"][..], Some("m.gguf"), Some("hi")),
            (&["m.gguf"], Some("m.gguf"), None),
            (&["models/m.bin", "hi"], Some("models/m.bin"), Some("hi")),
            (&["README", "hi"], Some("README"), Some("hi")),
            (&["./my model.gguf", "hi"], Some("./my model.gguf"), Some("hi")),
            (&["models/", "hi"], Some("models/"), Some("hi")),
            (&["smollm2", "why", "is", "the sky", "blue?"], Some("smollm2"), Some("why is the sky blue?")),
            (&["hf:o/r/f.gguf", "hi"], Some("hf:o/r/f.gguf"), Some("hi")),
            (&["pypi:p==1/f.gguf", "hi"], Some("pypi:p==1/f.gguf"), Some("hi")),
            (&["smollm2", "--", "-5 degrees"], Some("smollm2"), Some("-5 degrees")),
            (&["smollm2", "-p", "-5 degrees"], Some("smollm2"), Some("-5 degrees")),
            (&["smollm2", "-n", "5", "hi", "--temp", "0", "there"], Some("smollm2"), Some("hi there")),
            // A prompt for the default model.
            (&["hi"], None, Some("hi")),
            (&["src"], None, Some("src")),
            (&["why", "is", "the", "sky", "blue"], None, Some("why is the sky blue")),
            (&["what is 1/2?"], None, Some("what is 1/2?")),
            (&["What is in m.gguf"], None, Some("What is in m.gguf")),
            (&["hf: what is it?"], None, Some("hf: what is it?")),
            (&["2", "plus", "2?"], None, Some("2 plus 2?")),
            (&["Translate:", "2", "dogs"], None, Some("Translate: 2 dogs")),
            (&[""], None, Some("")),
            // All is prompt.
            (&["--", "m.gguf"], None, Some("m.gguf")),
            (&["--", "and/or"], None, Some("and/or")),
            (&["-m", "smollm2", "m.gguf"], Some("smollm2"), Some("m.gguf")),
            (&["-m", "smollm2", "no/such.gguf", "x"], Some("smollm2"), Some("no/such.gguf x")),
            (&["-m", "smollm2"], Some("smollm2"), None),
            (&[], None, None),
        ] {
            let expected = (model.map(str::to_owned), prompt.map(str::to_owned));
            assert_eq!(ask(args, None).expect("a question"), expected, "{args:?}");
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_is_no_prompt() {
        for path in [
            "./no.gguf",
            "no.gguf",
            "no.GGUF",
            "no/such",
            "/x",
            "..\\x",
            "C:\\m.gguf",
            "./no such.gguf",
            "llama3",
            "gemma3:1b",
            "SmolLM2",
        ] {
            let failure = ask(&[path, "hi"], Some("text")).expect_err(path);
            assert_eq!(
                (failure.kind(), failure.to_string().contains("`--`")),
                (Kind::NoModel, true),
                "{path}"
            );
        }
        assert_eq!(ask(&["hf:x", "hi"], None).expect_err("no name").kind(), Kind::Usage);
    }

    #[test]
    fn text_from_standard_input_follows_the_prompt() {
        for (args, stdin, prompt) in [
            (&["smollm2"][..], "a\nb\n", "a\nb"),
            (&["smollm2", "Review this"], "a\r\n", "Review this\n\na"),
            (&["-m", "smollm2", "-p", "Review this"], "a\n\n", "Review this\n\na\n"),
            (&["Review this"], "", "Review this"),
            (&["Review this"], "\n", "Review this"),
            (&[""], "a", "a"),
            (&[], "", ""),
        ] {
            let (_, asked) = ask(args, Some(stdin)).expect("a question");
            assert_eq!(asked.as_deref(), Some(prompt), "{args:?} {stdin:?}");
        }
        assert_eq!(ask(&["a", "-p", "b"], None).expect_err("two prompts").kind(), Kind::Usage);
    }

    #[test]
    fn a_word_that_may_be_a_model_is_doubted() {
        let doubt = |args: &[&str]| {
            let args: Vec<OsString> = ["metallic", "run"].iter().chain(args).map(OsString::from).collect();
            let Command::Run(args) = Cli::read(&args).expect("arguments").command else {
                panic!("another command")
            };
            Question::with(&args, |_| Found::Nothing).expect("a question").doubt
        };
        assert_eq!(doubt(&["mistral", "why is the sky blue?"]).as_deref(), Some("mistral"));
        for sure in
            [&["why", "is", "the", "sky", "blue"][..], &["why so blue?"], &["smollm2"], &["-m", "m", "x"]]
        {
            assert_eq!(doubt(sure), None, "{sure:?}");
        }
    }
}
