//! Where texts begin and end, and which tokens end an answer.

use metallic::text::{EncodeOptions, Tokenizer};
use metallic_gguf::Gguf;

use crate::oracles::Oracles;
use crate::small_vocabularies::Parts;
use crate::warnings::warnings_of;

/// Texts that carry the marks themselves, as those that a chat template made do.
#[test]
fn the_marks_of_a_text_are_not_doubled() {
    let mut bpe = Parts::bpe(&[]);
    bpe.flags = vec![("add_bos_token", true), ("add_eos_token", true)];
    let tokenizer = bpe.tokenizer().expect("a valid vocabulary");
    let (bos, eos) = (tokenizer.bos().expect("BOS"), tokenizer.eos().expect("EOS"));
    let a = u32::from(b'a' - b' ');
    let ids = |text, add_bos, add_eos| {
        let options = EncodeOptions { add_bos, add_eos, parse_special: true };
        tokenizer.encode(text, options).expect("ids")
    };
    for text in ["a", "<s>a", "a<|im_end|>", "<s>a<|im_end|>"] {
        assert_eq!(ids(text, true, true), [bos, a, eos], "{text}");
    }
    assert_eq!(ids("<s><s>a", true, false), [bos, bos, a], "what was written twice stays");
    assert_eq!(ids("<s>a", false, false), [bos, a]);
    assert_eq!(ids("a", true, false), [bos, a]);
    assert_eq!(ids("", true, true), [bos, eos]);
    // Where one token is both, a text of nothing still has its two ends.
    bpe.ids = vec![("bos", eos), ("eos", eos)];
    let both = bpe.tokenizer().expect("a valid vocabulary");
    assert_eq!(both.encode("", EncodeOptions::default()).expect("ids"), [eos, eos]);
}

/// A control token of such a name ends an answer whatever the file calls EOS; text of that name does not.
#[test]
fn ends_are_known_by_name_and_type() {
    let ends = |name: &str, of: i32| {
        let mut parts = Parts::bpe(&[]);
        parts.tokens.push(name.as_bytes().to_vec());
        parts.types.push(of);
        let tokenizer = parts.tokenizer().expect("a vocabulary");
        tokenizer.stop_tokens().contains(&(parts.types.len() as u32 - 1))
    };
    let (text, control, user_defined) = (1, 3, 4);
    for name in ["<eos>", "</s>", "<|eos|>", "<reponame>"] {
        assert_eq!([text, control, user_defined].map(|of| ends(name, of)), [false, true, false], "{name}");
    }
    for name in ["<|tool_response>", "<|file_sep|>", "<|fim_pad|>", "<|repo_name|>"] {
        assert_eq!([text, control, user_defined].map(|of| ends(name, of)), [false, true, true], "{name}");
    }
    for name in ["<|endoftext|>", "<end_of_turn>", "[EOS]", "<turn|>"] {
        assert_eq!([text, control, user_defined].map(|of| ends(name, of)), [true; 3], "{name}");
    }
    assert!(!ends("<|tool_response|>", control));
}

/// In harmony and in Solar's format `<|end|>` ends a thought, after which the answer comes; elsewhere the answer.
#[test]
fn the_end_of_a_part_is_no_end_of_an_answer() {
    let ends = |names: &[&str]| {
        let mut parts = Parts::bpe(&[]);
        parts.tokens.extend(names.iter().map(|name| name.as_bytes().to_vec()));
        parts.types.extend(vec![3; names.len()]);
        let tokenizer = parts.tokenizer().expect("a vocabulary");
        let ids = tokenizer.stop_tokens().iter().map(|&id| tokenizer.piece(id).expect("a token"));
        ids.skip(1).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ends(&["<|end|>", "<|return|>", "<|call|>"]), ["<|return|>", "<|call|>"]);
    assert_eq!(ends(&["<|end|>", "<|flush|>", "<|calls|>"]), ["<|flush|>", "<|calls|>"]);
    assert_eq!(ends(&["<|end|>", "<|call|>"]), ["<|end|>", "<|call|>"]);
}

/// Files of ollama have the ends of a publisher's generation_config.json as a list.
#[test]
fn a_list_of_ends_is_read() {
    let mut bpe = Parts::bpe(&[]);
    bpe.ends = vec![7, 99_999];
    let (tokenizer, warnings) = warnings_of(|| bpe.tokenizer());
    assert_eq!(tokenizer.expect("a vocabulary").stop_tokens(), [7, 96]);
    assert_eq!(warnings, [""; 0]);
}

/// What ends an answer in the published vocabularies.
#[test]
fn stop_tokens_are_the_publishers() {
    let Some(oracles) = Oracles::find() else { return };
    for (name, expected) in [
        ("aquila", &["<|endoftext|>", "</s>"][..]),
        ("baichuan", &["</s>"]),
        ("gemma-4", &["<eos>", "<|tool_response>", "<turn|>"]), // `</s>` is text
        ("llama-bpe", &["<|end_of_text|>", "<|eot_id|>"]),
        ("llama-spm", &["</s>"]),
        ("phi-3", &["<|endoftext|>", "<|end|>"]), // `</s>` is user-defined
        ("qwen2", &["<|endoftext|>", "<|im_end|>"]), // `</s>` is text
        ("starcoder", &["<|endoftext|>", "<fim_pad>"]),
    ] {
        let bytes = oracles.read(&format!("tokenizers/ggml-vocab-{name}.gguf"));
        let tokenizer =
            Tokenizer::from_gguf(&Gguf::parse(&bytes).expect("a valid file")).expect("a tokenizer");
        let found = tokenizer.stop_tokens().iter().map(|&id| tokenizer.piece(id).expect("a token"));
        let found: Vec<_> = found.map(|piece| String::from_utf8_lossy(piece).into_owned()).collect();
        assert_eq!(found, expected, "{name}");
    }
}

/// What the parts of a text with a gap are marked with in the published vocabularies.
#[test]
fn infill_tokens_are_the_publishers() {
    let Some(oracles) = Oracles::find() else { return };
    for (name, expected) in [
        ("refact", Some(["<fim_prefix>", "<fim_suffix>", "<fim_middle>"])),
        ("starcoder", Some(["<fim_prefix>", "<fim_suffix>", "<fim_middle>"])),
        ("deepseek-coder", Some(["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"])),
        ("llama-bpe", None),
        ("qwen2", None),
    ] {
        let bytes = oracles.read(&format!("tokenizers/ggml-vocab-{name}.gguf"));
        let tokenizer =
            Tokenizer::from_gguf(&Gguf::parse(&bytes).expect("a valid file")).expect("a tokenizer");
        let found = tokenizer.infill_tokens().map(|tokens| {
            [tokens.prefix, tokens.suffix, tokens.middle]
                .map(|id| String::from_utf8_lossy(tokenizer.piece(id).expect("a token")).into_owned())
        });
        assert_eq!(found, expected.map(|names| names.map(str::to_owned)), "{name}");
    }
}

/// By their keys, of today and of before, whatever they are called.
#[test]
fn infill_tokens_have_keys() {
    for keys in
        [[("fim_pre", 5), ("fim_suf", 6), ("fim_mid", 7)], [("prefix", 5), ("suffix", 6), ("middle", 7)]]
    {
        let mut bpe = Parts::bpe(&[]);
        bpe.ids.extend(keys);
        let (tokenizer, warnings) = warnings_of(|| bpe.tokenizer());
        let tokens = tokenizer.expect("a vocabulary").infill_tokens().expect("all three");
        assert_eq!([tokens.prefix, tokens.suffix, tokens.middle], [5, 6, 7]);
        assert_eq!(warnings, [""; 0]);
        bpe.ids.pop();
        assert_eq!(bpe.tokenizer().expect("a vocabulary").infill_tokens(), None, "one is missing");
    }
}
