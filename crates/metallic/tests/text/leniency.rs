//! Vocabularies with something wrong that llama.cpp loads: the same ids as without it, and one warning that names it.

use metallic::text::{EncodeOptions, TokenType, Tokenizer, TokenizerError};

use metallic_gguf::Gguf;

use crate::oracles::Oracles;
use crate::small_vocabularies::{PLAIN, Parts};
use crate::tokenizers::names;
use crate::warnings::warnings_of;

type Change = fn(&mut Parts);

fn load(parts: &Parts) -> (Result<Tokenizer, TokenizerError>, Vec<String>) {
    warnings_of(|| parts.tokenizer())
}

/// Changes a vocabulary in ways that may not matter to a text: the ids stay, and one warning has these words.
fn check(parts: &Parts, text: &str, changes: &[(Change, &[&str])]) {
    let ids = |parts: &Parts| {
        let (tokenizer, warnings) = load(parts);
        (tokenizer.expect("a usable vocabulary").encode(text, PLAIN).expect("ids"), warnings)
    };
    let (expected, none) = ids(parts);
    assert_eq!(none, [""; 0], "warnings about a good vocabulary");
    for (at, (change, words)) in changes.iter().enumerate() {
        let mut parts = parts.clone();
        change(&mut parts);
        let (found, warnings) = ids(&parts);
        assert_eq!(found, expected, "change {at}");
        let [warning] = warnings.as_slice() else { panic!("change {at}: {warnings:?}") };
        assert!(words.iter().all(|word| warning.contains(word)), "change {at}: {warning}");
    }
}

#[test]
fn byte_pair_vocabularies() {
    let bpe = Parts::bpe(&["a b"]);
    let merges = |more: &[&str]| Some(["a b"].iter().chain(more).map(|&merge| merge.to_owned()).collect());
    assert_eq!(merges(&["c"]), Some(vec!["a b".to_owned(), "c".to_owned()]));
    check(
        &bpe,
        "abab a#",
        &[
            (|p| p.types[3] = 0, &["1 token", "number 3", "type 0"]),
            (|p| (p.types[3], p.types[4]) = (77, -1), &["2 token", "number 3", "type 77"]),
            (|p| p.types[3] = 6, &["1 token", "number 3", "\"#\""]),
            (|p| p.tokens[33] = vec![0xFF], &["1 token", "UTF-8", "number 33"]),
            (|p| p.types.push(3), &["token_type", "99 entries", "98 tokens"]),
            (
                |p| p.merges.as_mut().unwrap().extend(["ab".into(), "x nothing".into()]),
                &["2 merge", "number 1"],
            ),
            (
                |p| p.merges.as_mut().unwrap().extend(["", " ", "a c", "世 a"].map(str::to_owned)),
                &["4 merge"],
            ),
            (|p| p.ids.push(("unknown", 98)), &["unknown_token_id", "98"]),
            (|p| p.ids.push(("eot", u32::MAX)), &["eot_token_id", "4294967295"]),
            (|p| p.numbers.push(("eom_token_id", -1)), &["eom_token_id", "-1"]),
            (|p| p.numbers.push(("add_bos_token", 0)), &["add_bos_token", "number 0"]),
        ],
    );
}

#[test]
fn other_kinds() {
    let spm = Parts::spm(&[("▁", -1.0), ("a", -1.0), ("b", -1.0), ("ab", -1.0)]);
    check(
        &spm,
        "abab",
        &[
            (|p| p.scores = None, &["scores"]),
            (|p| p.scores.as_mut().unwrap().push(0.0), &["scores", "264 entries"]),
            (|p| p.tokens[9] = b"<0xG0>".to_vec(), &["1 token", "byte", "number 9"]),
            (|p| p.tokens[9] = b"\xFF".to_vec(), &["UTF-8", "number 9"]),
            (|p| p.ids[1] = ("bos", 99_999), &["bos_token_id", "99999"]),
        ],
    );
    let unigram = Parts { model: "t5", ..spm.clone() };
    check(&unigram, "b", &[(|p| p.scores = None, &["scores"])]);
    let wordpiece = Parts { model: "bert", ..spm.clone() };
    check(
        &wordpiece,
        "b",
        &[
            (|p| p.ids.push(("cls", 1000)), &["cls_token_id"]),
            (|p| p.ids.push(("seperator", 1000)), &["seperator_token_id"]),
            (|p| p.numbers.push(("normalizer.lowercase", 1)), &["lowercase", "true"]),
        ],
    );
    let rwkv = Parts { model: "rwkv", scores: None, ..spm };
    check(
        &rwkv,
        "ab",
        &[
            (|p| (p.types[9], p.tokens[9]) = (1, b"a\\".to_vec()), &["backslash", "number 9"]),
            (|p| (p.types[9], p.tokens[9]) = (1, b"\\x4".to_vec()), &["backslash", "number 9"]),
        ],
    );
}

/// What a file says of its tokens and no code reads for its kind is told, unless it makes no difference.
#[test]
fn keys_that_may_change_tokens_are_told() {
    let mut spm = Parts::spm(&[("▁", -1.0), ("a", -1.0)]);
    spm.flags =
        vec![("remove_extra_whitespaces", false), ("add_sep_token", true), ("add_space_prefix", true)];
    spm.ids.extend([("padding", 0), ("fim_pre", 0), ("mask", 99_999)]);
    spm.pre = Some("default");
    check(
        &spm,
        "a",
        &[
            (|p| p.flags[0].1 = true, &["tokenizer.ggml.remove_extra_whitespaces"]),
            (|p| p.charsmap = Some(vec![0; 8]), &["tokenizer.ggml.precompiled_charsmap"]),
            (|p| p.numbers = vec![("from_the_future", 1), ("suppress", 2)], &["from_the_future", "suppress"]),
        ],
    );
    check(
        &Parts::bpe(&["a b"]),
        "ab",
        &[(|p| p.flags.push(("add_space_prefix", true)), &["add_space_prefix"])],
    );
}

#[test]
fn published_vocabularies_are_read_without_a_warning() {
    let Some(oracles) = Oracles::find() else { return };
    for name in names(&oracles) {
        let bytes = oracles.read(&format!("tokenizers/ggml-vocab-{name}.gguf"));
        let gguf = Gguf::parse(&bytes).expect("a valid file");
        let (tokenizer, mut warnings) = warnings_of(|| Tokenizer::from_gguf(&gguf));
        tokenizer.expect("a tokenizer");
        // Some are older than the key.
        warnings.retain(|warning| !warning.starts_with("pre-tokenizer \"(none)\""));
        assert_eq!(warnings, [""; 0], "{name}");
    }
}

/// Scores are numbers, whole or not.
#[test]
fn scores_may_be_integers() {
    let mut spm = Parts::spm(&[("▁", -9.0), ("a", -9.0), ("b", -9.0), ("ab", -3.0), ("ba", -2.0)]);
    let ids = |parts: &Parts| parts.tokenizer().expect("a vocabulary").encode("aba", PLAIN).expect("ids");
    let expected = ids(&spm);
    spm.whole_scores = true;
    assert_eq!(ids(&spm), expected);
}

/// llama.cpp (`src/llama-vocab.cpp`) and SentencePiece have `<unk>`, `<s>` and `</s>` as 0, 1 and 2.
#[test]
fn special_tokens_that_no_key_names_are_sentence_pieces_own() {
    let mut spm = Parts::spm(&[("▁", -1.0), ("a", -1.0)]);
    spm.ids.clear();
    let (tokenizer, warnings) = load(&spm);
    let tokenizer = tokenizer.expect("a usable vocabulary");
    assert_eq!((tokenizer.bos(), tokenizer.eos(), warnings), (Some(1), Some(2), vec![]));
    let options = EncodeOptions { add_bos: true, ..PLAIN };
    assert_eq!(tokenizer.encode("a", options).expect("ids"), [1, 259, 260]);
    // What a key says is not there is not, and a piece of text is no mark.
    spm.numbers = vec![("bos_token_id", -1)];
    spm.types[2] = 1;
    let tokenizer = spm.tokenizer().expect("a usable vocabulary");
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, None));
}

/// A type that no one defined is that of text: text becomes the token, and the token is shown.
#[test]
fn a_token_of_no_type_is_text() {
    let mut bpe = Parts::bpe(&["a b"]);
    let id = bpe.types.len() - 3;
    bpe.types[id] = 0;
    let tokenizer = bpe.tokenizer().expect("a vocabulary");
    assert_eq!(tokenizer.encode("ab", PLAIN).expect("ids"), [id as u32]);
    assert_eq!(tokenizer.decode(&[id as u32]), "ab");
    assert_eq!(tokenizer.token_type(id as u32), Some(TokenType::Normal));
}

/// Neither search may find a piece that is part of a character.
#[test]
fn half_a_character_is_no_token() {
    for of in [1, 3, 4] {
        for model in ["gpt2", "llama", "t5", "bert", "plamo2"] {
            let mut parts =
                Parts { model, merges: Some(Vec::new()), ..Parts::spm(&[("é", -1.0), ("▁", -1.0)]) };
            parts.tokens.extend([b"\xC3".to_vec(), b"\xA9".to_vec()]);
            parts.types.extend([of, of]);
            parts.scores.as_mut().expect("scores").extend([9.0, 9.0]);
            let tokenizer = parts.tokenizer().expect("a vocabulary");
            let parsed = EncodeOptions { parse_special: true, ..PLAIN };
            let ids = tokenizer.encode("é", parsed).unwrap_or_default();
            assert!(ids.iter().all(|&id| id < 261), "{model}, type {of}: {ids:?}");
        }
    }
}
