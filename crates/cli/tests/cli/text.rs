//! `metallic tokenize` and `metallic perplexity`.

use crate::alphabet::{self, LOGIT, N_VOCAB, Options, successor};
use crate::sandbox::Sandbox;

#[test]
fn tokens_are_shown_with_their_text() {
    let sandbox = Sandbox::new("tokenize-text");
    sandbox.write("a.gguf", alphabet::model());
    let shown = sandbox.run(&["tokenize", "a.gguf", "a\"é<|im_end|>"]).succeeds().stdout;
    let expected = "     97  \"a\"\n     34  \"\\\"\"\n    195  b\"\\xc3\"\n    169  b\"\\xa9\"\n    257  \"<|im_end|>\"\n";
    assert_eq!(shown, expected);
}

#[test]
fn ids_follow_the_flags() {
    let sandbox = Sandbox::new("tokenize-ids");
    sandbox.write("a.gguf", alphabet::model());
    sandbox.write("bos.gguf", alphabet::model_with(Options { add_bos: true, ..Options::default() }));
    let ids = |args: &[&str]| sandbox.run(&[&["tokenize", "--ids"], args].concat()).succeeds().stdout;
    assert_eq!(ids(&["a.gguf", "ab"]), "[97, 98]\n");
    assert_eq!(ids(&["a.gguf", ""]), "[]\n");
    assert_eq!(ids(&["bos.gguf", "ab"]), "[256, 97, 98]\n");
    assert_eq!(ids(&["bos.gguf", "ab", "--no-bos"]), "[97, 98]\n");
    assert_eq!(ids(&["a.gguf", "<|im_end|>"]), "[257]\n");
    assert_eq!(
        ids(&["a.gguf", "<|im_end|>", "--no-special"]),
        "[60, 124, 105, 109, 95, 101, 110, 100, 124, 62]\n"
    );
}

#[test]
fn text_comes_from_standard_input_as_it_is() {
    let sandbox = Sandbox::new("tokenize-stdin");
    sandbox.write("a.gguf", alphabet::model());
    let piped = sandbox.run_with_input(&["tokenize", "a.gguf", "--ids"], "a\n").succeeds();
    assert_eq!(piped.stdout, "[97, 10]\n");
    let no_text = sandbox.run_with_input(&["tokenize", "a.gguf", "--ids"], [0x61, 0xff]);
    assert!(no_text.fails(1).contains("UTF-8"), "{no_text:?}");
}

#[test]
fn perplexity_is_what_it_is_by_hand() {
    const N_CTX: usize = 32;
    let sandbox = Sandbox::new("perplexity");
    sandbox.write("a.gguf", alphabet::model());
    // Four chunks and a rest that is left out; z is followed by what the model does not expect.
    let text = "abcdefghijklmnopqrstuvwxyz".repeat(5);
    sandbox.write("text", &text);

    let ln_sum = (f64::from(LOGIT).exp() + N_VOCAB as f64 - 1.0).ln();
    let surprise = |pair: &[u8]| {
        let is_expected = u32::from(pair[1]) == successor(pair[0].into());
        if is_expected { ln_sum - f64::from(LOGIT) } else { ln_sum }
    };
    let scored: Vec<f64> = text
        .as_bytes()
        .chunks_exact(N_CTX)
        .flat_map(|chunk| chunk[N_CTX / 2..].windows(2))
        .map(surprise)
        .collect();
    let n = scored.len() as f64;
    let mean = scored.iter().sum::<f64>() / n;
    let variance = scored.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let expected = [mean.exp(), mean.exp() * (variance / (n - 1.0)).sqrt()];

    for args in [&["-c", "32"][..], &["-c", "32", "-b", "5", "-t", "1"]] {
        let outcome = sandbox.run(&[&["perplexity", "a.gguf", "--text", "text"], args].concat()).succeeds();
        let numbers: Vec<f64> =
            outcome.stdout.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        for (found, expected) in numbers.iter().zip(expected) {
            assert!((found - expected).abs() < 2e-3 * expected, "{outcome:?} {expected}");
        }
        assert!(outcome.stdout.ends_with("(4 chunks of 32 tokens, 60 scored)\n"), "{outcome:?}");
    }
    let less = sandbox
        .run(&["perplexity", "a.gguf", "--text", "text", "-c", "32", "--chunks", "1", "-v"])
        .succeeds();
    assert!(less.stdout.contains("(1 chunks") && less.stderr.contains("chunk 1: perplexity "), "{less:?}");
}

#[test]
fn a_text_too_short_or_missing_is_told() {
    let sandbox = Sandbox::new("perplexity-short");
    sandbox.write("a.gguf", alphabet::model());
    sandbox.write("text", "abc");
    let short = sandbox.run(&["perplexity", "a.gguf", "--text", "text"]);
    assert!(short.fails(1).contains("3 tokens"), "{short:?}");
    let missing = sandbox.run(&["perplexity", "a.gguf", "--text", "nowhere"]);
    assert!(missing.fails(1).contains("nowhere"), "{missing:?}");
}
