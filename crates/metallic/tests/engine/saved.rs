//! Prompts that were read once come back from disk, with the bits that they had.

use std::fs;
use std::path::Path;

use super::*;

const DIGEST: &str = "of the tiny model";

fn save(engine: &mut Engine, prompt: &[u32], whole: bool, path: &Path) -> usize {
    let mut bytes = Vec::new();
    let n_tokens = engine.save_prompt(prompt, whole, DIGEST, &mut bytes).unwrap();
    fs::write(path, bytes).unwrap();
    n_tokens
}

/// Longer than a page, in which it ends.
fn long(engine: &Engine, max_tokens: usize) -> Request {
    let text = "a prompt that is read once and kept; ".repeat(10);
    Request { logprobs: Some(3), exact: true, ..request(engine, &text, max_tokens) }
}

#[test]
fn a_saved_prompt_is_gone_on_with_as_if_it_had_been_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompt");
    for bytes in [testing::tiny_model().unwrap(), testing::tiny_mixture().unwrap()] {
        let mut first = engine_of(&bytes, 600, 1);
        let asked = long(&first, 20);
        let expected = heard(&mut first, asked.clone());
        assert_eq!(save(&mut first, &asked.prompt, false, &path), asked.prompt.len());

        let mut second = engine_of(&bytes, 600, 2);
        assert_eq!(second.load_prompt(&path, DIGEST).unwrap(), asked.prompt.len());
        let found = heard(&mut second, asked.clone());
        assert_eq!((&found.tokens, &found.logprobs), (&expected.tokens, &expected.logprobs));
        let (.., stats) = found.end.unwrap();
        assert_eq!((stats.n_cached, stats.n_read), (asked.prompt.len() - 1, 1));

        // With the answer: a prompt that goes on from it reads what is new.
        let n_all = asked.prompt.len() + found.tokens.len() - 1;
        assert_eq!(save(&mut second, &asked.prompt, true, &path), n_all);
        let longer = Request {
            prompt: [&asked.prompt[..], &found.tokens, &[97, 98]].concat(),
            exact: false,
            ..asked.clone()
        };
        let mut third = engine_of(&bytes, 600, 1);
        assert_eq!(third.load_prompt(&path, DIGEST).unwrap(), n_all);
        let after = heard(&mut third, longer.clone());
        let again = heard(&mut second, longer);
        assert_eq!((&after.tokens, &after.logprobs), (&again.tokens, &again.logprobs));
        assert_eq!(after.end.unwrap().1.n_read, 3);

        // A prompt that begins otherwise has nothing of it.
        let other = request(&third, "something else", 5);
        assert_eq!(heard(&mut third, other).end.unwrap().1.n_cached, 1, "the mark of the beginning alone");
    }
}

#[test]
fn what_is_damaged_or_of_another_model_is_an_error_and_nothing_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompt");
    let mut first = engine(600, 1);
    let asked = long(&first, 4);
    heard(&mut first, asked.clone());
    save(&mut first, &asked.prompt, false, &path);
    let whole = fs::read(&path).unwrap();

    let mut second = engine(600, 1);
    let mut reason = |bytes: &[u8], digest: &str| {
        fs::write(&path, bytes).unwrap();
        match second.load_prompt(&path, digest).unwrap_err() {
            Error::SavedSequence { reason, .. } => reason,
            error => panic!("{error:?}"),
        }
    };
    assert_eq!(reason(&whole, "of another"), "it is of another model");
    for n_bytes in [0, 8, 15, 16, 100, 4095, 4096, 5000, whole.len() - 5, whole.len() - 1] {
        let reason = reason(&whole[..n_bytes], DIGEST);
        assert!(
            reason.contains("cut short") || reason.contains("no prompt that was saved"),
            "{n_bytes}: {reason}"
        );
    }
    // Every byte counts but the zeros between, which the sum has, too.
    for at in (0..whole.len()).step_by(whole.len() / 97).chain([8, 12, 16, whole.len() - 1, whole.len() - 5])
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        assert!(!reason(&bytes, DIGEST).is_empty(), "{at}");
    }
    let mut bytes = whole.clone();
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(reason(&bytes, DIGEST).contains("4294967295 tokens"));
    // All pages are free again.
    let answer = heard(&mut second, long(&engine(600, 1), 200));
    assert_eq!(answer.tokens.len(), 200);

    fs::write(&path, &whole).unwrap();
    let short = engine(100, 1).load_prompt(&path, DIGEST).unwrap_err();
    assert!(short.to_string().contains("and the context 100"), "{short}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(second.load_prompt(&path, DIGEST), Err(Error::Open { .. })));
    assert_eq!(second.save_prompt(&[1, 2, 3], false, DIGEST, &mut Vec::new()).unwrap(), 0);
}
