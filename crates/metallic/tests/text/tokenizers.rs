//! Token ids against those of the vocabularies' publishers.

use std::collections::HashMap;
use std::path::Path;

use metallic::text::{EncodeOptions, Tokenizer};
use metallic_gguf::Gguf;
use serde::Deserialize;

use crate::oracles::{Oracles, model};

const PLAIN: EncodeOptions = EncodeOptions { add_bos: false, add_eos: false, parse_special: false };

/// The vocabularies that are for text which is changed first: small letters, one space for several.
const NORMALIZING: &[&str] = &["bert-bge", "nomic-bert-moe"];

pub(crate) fn names(oracles: &Oracles) -> Vec<String> {
    let files = std::fs::read_dir(oracles.path("tokenizers")).expect("a folder of vocabularies");
    let name = |file: &str| Some(file.strip_prefix("ggml-vocab-")?.strip_suffix(".gguf")?.to_owned());
    let files = files.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = files.filter_map(|file| name(&file)).collect();
    names.sort();
    names
}

/// Texts and their ids. Four vocabularies have none.
fn cases(oracles: &Oracles, name: &str) -> Vec<(String, Vec<u32>)> {
    if !oracles.path(&format!("tokenizers/ggml-vocab-{name}.gguf.inp")).exists() {
        return Vec::new();
    }
    let read = |ending| oracles.read(&format!("tokenizers/ggml-vocab-{name}.gguf.{ending}"));
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (texts, ids) = (text(read("inp")), text(read("out")));
    let parse = |line: &str| line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
    let ids: Vec<_> = ids.lines().map(parse).collect();
    let separator = "\n__ggml_vocab_test__\n";
    let texts = texts.strip_suffix(separator).unwrap_or(&texts).split(separator);
    let texts: Vec<_> = texts.map(str::to_owned).collect();
    assert_eq!(texts.len(), ids.len());
    texts.into_iter().zip(ids).collect()
}

/// llama.cpp does not normalise, so its answers for decomposed texts are not those of Qwen's own tokenizer. These are what
/// transformers 5.24 gives, with `Qwen3_5Tokenizer` made of the same vocabulary.
fn of_composed(name: &str, text: &str) -> Option<Vec<u32>> {
    match text {
        _ if name != "qwen35" => None,
        "e\u{301}" => Some(vec![963]),
        "re\u{301}sume\u{301}" => Some(vec![42611, 1242, 963]),
        _ if text.starts_with("a\u{300}a\u{300}") => Some(vec![6362; text.len() / "a\u{300}".len()]),
        _ => None,
    }
}

#[test]
fn ids_are_the_publishers() {
    let Some(oracles) = Oracles::find() else { return };
    for name in names(&oracles) {
        let bytes = oracles.read(&format!("tokenizers/ggml-vocab-{name}.gguf"));
        let gguf = Gguf::parse(&bytes).expect("a valid file");
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a valid tokenizer");
        let cases = cases(&oracles, &name);
        for (text, ids) in &cases {
            let composed = of_composed(&name, text);
            let ids = composed.as_ref().unwrap_or(ids);
            assert!(tokenizer.least_tokens(text) <= ids.len(), "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text, PLAIN).as_ref(), Ok(ids), "{name}: {text:?}");
            if !NORMALIZING.contains(&&*name) && composed.is_none() {
                assert_eq!(tokenizer.decode(ids), *text, "{name}");
            }
        }
        println!("{name}: {} texts exact", cases.len());
    }
}

#[test]
fn every_text_comes_back() {
    let Some(oracles) = Oracles::find() else { return };
    let mut texts: Vec<_> = cases(&oracles, "llama-bpe").into_iter().map(|(text, _)| text).collect();
    texts.extend(["<s><|im_end|><eos>", "\u{0}\u{1}\u{7f}\u{ad}", "a\u{FFFD}\u{10FFFF}é"].map(str::to_owned));
    for name in names(&oracles) {
        let bytes = oracles.read(&format!("tokenizers/ggml-vocab-{name}.gguf"));
        let gguf = Gguf::parse(&bytes).expect("a valid file");
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a valid tokenizer");
        for text in &texts {
            if NORMALIZING.contains(&&*name) {
                let ids = tokenizer.encode(text, PLAIN).expect("ids");
                let changed = tokenizer.decode(&ids);
                // Unknown characters have no text, so what was around them meets.
                if !ids.iter().any(|&id| tokenizer.is_control(id)) {
                    assert_eq!(tokenizer.encode(&changed, PLAIN), Ok(ids), "{name}: {text:?}");
                }
                continue;
            }
            let ids = tokenizer.encode(text, PLAIN).expect("ids");
            assert_eq!(tokenizer.decode(&ids), *text, "{name}: {ids:?}");
            assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{name}: {text:?} made a control token");
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    prompt: String,
    tokens: Vec<u32>,
}

#[test]
fn smollm2_sees_the_oracles_ids() {
    check_model("SmolLM2-135M-Instruct.Q4_1.gguf", None, &["<|endoftext|>", "<|im_end|>", "<reponame>"]);
}

#[test]
fn gemma3_sees_the_oracles_ids() {
    check_model("gemma-3-270m-q4_k_m.gguf", Some("<bos>"), &["<eos>", "<end_of_turn>"]);
}

fn check_model(name: &str, bos: Option<&str>, stops: &[&str]) {
    let (Some(oracles), Some(path)) = (Oracles::find(), model(name)) else { return };
    let tokenizer = tokenizer_of(&path);
    let answers: HashMap<String, Vec<Answer>> =
        serde_json::from_slice(&oracles.read("models.json")).expect("the oracle's answers");
    for Answer { prompt, tokens } in &answers[name] {
        assert_eq!(tokenizer.encode(prompt, EncodeOptions::default()).as_ref(), Ok(tokens), "{prompt:?}");
    }
    let name_of = |id: u32| std::str::from_utf8(tokenizer.piece(id).expect("a token")).expect("UTF-8");
    let first = tokenizer.encode("", EncodeOptions::default()).expect("ids");
    assert_eq!(first.first().map(|&id| name_of(id)), bos);
    assert_eq!(tokenizer.stop_tokens().iter().map(|&id| name_of(id)).collect::<Vec<_>>(), stops);

    // A control token's name is a token only where it is asked for.
    let text = format!("{}hello", stops[1]);
    let parsed = EncodeOptions { parse_special: true, ..PLAIN };
    assert_eq!(tokenizer.encode(&text, parsed).expect("ids")[0], tokenizer.stop_tokens()[1]);
    let ids = tokenizer.encode(&text, PLAIN).expect("ids");
    assert!(ids.iter().all(|&id| !tokenizer.is_control(id)));
    assert_eq!(tokenizer.decode(&ids), text);
}

fn tokenizer_of(path: &Path) -> Tokenizer {
    let bytes = std::fs::read(path).expect("a readable model");
    Tokenizer::from_gguf(&Gguf::parse(&bytes).expect("a valid model")).expect("a valid tokenizer")
}

/// A bound that is far off would let texts through that take much memory to encode.
#[test]
fn the_least_number_of_tokens_is_not_far_off_for_long_words() {
    let Some(path) = model("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let file = metallic::GgufFile::open(path).expect("a model");
    let tokenizer = Tokenizer::from_gguf(&file.gguf()).expect("a valid tokenizer");
    for text in ["a".repeat(100_000), "word ".repeat(20_000), "\u{e9}".repeat(50_000), " ".repeat(100_000)] {
        let (least, n) = (tokenizer.least_tokens(&text), tokenizer.encode(&text, PLAIN).expect("ids").len());
        println!("{:?}…: {least} of {n}", text.get(..2));
        assert!(least <= n && least > 100_000 / 500, "{least} of {n}");
    }
}
