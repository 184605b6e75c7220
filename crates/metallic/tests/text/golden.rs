//! Token ids of small vocabularies against those of other programs (`tools/golden_tokens.py` writes them).

use std::collections::HashMap;

use metallic::text::EncodeOptions;
use serde::Deserialize;

use crate::small_vocabularies::Parts;

/// A vocabulary as a file has it, and texts with their ids.
#[derive(Deserialize)]
struct Golden<'a> {
    name: &'a str,
    model: &'a str,
    pre: Option<&'a str>,
    /// What the file says about the model.
    #[serde(borrow, default)]
    general: HashMap<&'a str, &'a str>,
    tokens: Vec<String>,
    types: Vec<i32>,
    scores: Option<Vec<f32>>,
    merges: Option<Vec<String>>,
    charsmap: Option<Vec<u8>>,
    #[serde(borrow, default)]
    ids: HashMap<&'a str, u32>,
    #[serde(borrow, default)]
    flags: HashMap<&'a str, bool>,
    /// Whether special tokens of the texts are parsed.
    #[serde(default)]
    special: bool,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn ids_are_those_of_other_programs() {
    let golden: Vec<Golden<'static>> =
        serde_json::from_str(include_str!("golden.json")).expect("the file of answers");
    for of in golden {
        let parts = Parts {
            model: of.model,
            pre: of.pre,
            general: of.general.into_iter().collect(),
            tokens: of.tokens.into_iter().map(String::into_bytes).collect(),
            types: of.types,
            scores: of.scores,
            merges: of.merges,
            charsmap: of.charsmap,
            ids: of.ids.into_iter().collect(),
            flags: of.flags.into_iter().collect(),
            ..Parts::bpe(&[])
        };
        let tokenizer = parts.tokenizer().expect("a valid vocabulary");
        for Case { text, ids } in of.cases {
            let options = EncodeOptions { add_bos: false, add_eos: false, parse_special: of.special };
            // White space beside special tokens may be dropped, but is counted.
            let bound = if of.special { 0 } else { tokenizer.least_tokens(&text) };
            assert!(bound <= ids.len(), "{}: {text:?}", of.name);
            assert_eq!(tokenizer.encode(&text, options), Ok(ids), "{}: {text:?}", of.name);
        }
    }
}
