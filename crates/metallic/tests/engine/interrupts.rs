//! Passes that are given up: nothing of them is left.

use std::cell::{Cell, RefCell};

use metallic::engine::{Engine, FinishReason, Request, RequestId};
use metallic::model::{Piece, Role};
use metallic::sampling::SamplingParams;
use metallic::{Error, testing};

use crate::files::Streamed;
use crate::{Heard, engine_of, heard, load, request};

/// Parts of the tiny models: the embedding, two for each of two layers, and the head.
const N_PARTS: usize = 6;

/// Dense, a mixture, and a mixture that is swapped in; of batches of 16.
fn engines() -> [Engine; 3] {
    let [dense, mixture] = [testing::tiny_model(), testing::tiny_mixture()].map(Result::unwrap);
    [engine_of(&dense, 128, 1), engine_of(&mixture, 128, 1), Streamed::new().engine]
}

/// A step that is interrupted before the part of this number. Returns the requests of its pass.
fn interrupted(engine: &mut Engine, n_before: usize) -> Vec<RequestId> {
    let (n_looks, of) = (Cell::new(0), RefCell::new(Vec::new()));
    let is_interrupted = |ids: &[RequestId]| {
        *of.borrow_mut() = ids.to_vec();
        n_looks.replace(n_looks.get() + 1) == n_before
    };
    assert!(engine.step_unless(&is_interrupted, &mut |event| panic!("{event:?}")), "more to do");
    assert_eq!(n_looks.get(), n_before + 1, "no part is begun after that");
    of.into_inner()
}

#[test]
fn an_answer_after_an_interrupted_prompt_has_the_bits_of_a_new_engine() {
    let long = "a prompt of more than two batches of 16, of which one is read";
    let next = "a prompt of more than one batch, which begins as the other one";
    let exact =
        |engine: &Engine, text: &str| Request { exact: true, logprobs: Some(5), ..request(engine, text, 8) };
    let expected = engines().map(|mut fresh| {
        let request = exact(&fresh, next);
        heard(&mut fresh, request)
    });
    for (mut engine, expected) in engines().into_iter().zip(expected) {
        for n_before in 0..N_PARTS {
            let id = engine.submit(exact(&engine, long)).unwrap();
            assert!(engine.step(&mut |event| panic!("{event:?}")));
            let before = *engine.stats(id).unwrap();
            assert_eq!(interrupted(&mut engine, n_before), [id]);
            assert_eq!(engine.stats(id), Some(&before), "a pass that was given up counts in nothing");
            let mut events = Heard::default();
            engine.cancel(id, &mut |event| events.take(event));
            assert_eq!(events.of(id).1, FinishReason::Cancelled);
            assert!(!engine.step(&mut |event| panic!("{event:?}")), "nothing to do");

            let request = exact(&engine, next);
            let found = heard(&mut engine, request);
            assert_eq!((&found.tokens, &found.logprobs), (&expected.tokens, &expected.logprobs));
        }
    }
}

/// Whatever is read and said at that time, and with a sampler that would tell if it had chosen a token that nobody heard of.
#[test]
fn requests_that_are_not_cancelled_go_on_with_the_same_bits() {
    let prompts = ["one", "a rather longer prompt, of more than one batch", "x", "and so on"];
    for bytes in [testing::tiny_model().unwrap(), testing::tiny_mixture().unwrap()] {
        let answers = |interrupts: bool| {
            let mut engine = engine_of(&bytes, 128, 3); // one waits
            for prompt in prompts {
                let sampling = SamplingParams { seed: Some(7), ..SamplingParams::default() };
                let request = Request { sampling, logprobs: Some(5), ..request(&engine, prompt, 12) };
                engine.submit(request).unwrap();
            }
            let mut heard = Heard::default();
            for n in 0.. {
                if interrupts {
                    interrupted(&mut engine, n % N_PARTS);
                }
                if !engine.step(&mut |event| heard.take(event)) {
                    break;
                }
            }
            heard.0
        };
        for (found, expected) in answers(true).values().zip(answers(false).values()) {
            assert_eq!((&found.tokens, &found.logprobs), (&expected.tokens, &expected.logprobs));
            let counts = |answer: &crate::Answer| answer.end.map(|(reason, stats)| (reason, stats.n_read));
            assert_eq!(counts(found), counts(expected));
        }
    }
}

/// The policy that [`Engine::step_unless`] advises, for one who serves several.
#[test]
fn who_interrupts_knows_whose_tokens_are_in_the_pass() {
    let mut engine = engine_of(&testing::tiny_model().unwrap(), 64, 2);
    let ids: Vec<_> = (0..3).map(|_| engine.submit(request(&engine, "Hello", 4)).unwrap()).collect();
    let cancelled = RefCell::new(vec![ids[0]]);
    let is_interrupted = |of: &[RequestId]| of.iter().all(|id| cancelled.borrow().contains(id));
    // One of two is cancelled: the other's pass goes on.
    let mut heard = Heard::default();
    assert!(engine.step_unless(&is_interrupted, &mut |event| heard.take(event)));
    assert_eq!(heard.0[&ids[1]].tokens.len(), 1);
    // Nobody is left but one who waits.
    cancelled.borrow_mut().push(ids[1]);
    assert!(engine.step_unless(&is_interrupted, &mut |event| panic!("{event:?}")));
    for id in &ids[..2] {
        engine.cancel(*id, &mut |event| heard.take(event));
    }
    while engine.step_unless(&is_interrupted, &mut |event| heard.take(event)) {}
    let reasons = ids.iter().map(|id| heard.of(*id).1).collect::<Vec<_>>();
    assert_eq!(reasons, [FinishReason::Cancelled, FinishReason::Cancelled, FinishReason::MaxTokens]);
}

#[test]
fn pages_of_an_interrupted_pass_come_back() {
    // Two pages, which one sequence fills.
    let (mut model, _) = load(&testing::tiny_model().unwrap(), 512, 1);
    let tokens = [1; 16];
    let piece = |sequence, start| {
        let role = Role::Prompt { len: 512 };
        Piece { sequence, start, tokens: &tokens, role, logits: 0..0 }
    };
    let [first, second] = [(); 2].map(|()| model.create_sequence());
    // A page, of which 8 positions are left.
    let short = Piece { tokens: &tokens[..8], ..piece(first, 0) };
    model.forward(&[short], &mut |_, _| {}).unwrap();
    for start in (8..248).step_by(16) {
        model.forward(&[piece(first, start)], &mut |_, _| {}).unwrap();
    }
    let passed = model.forward_unless(&|| true, None, &[piece(first, 248)], &mut |_, _| {});
    assert!(matches!(passed, Err(Error::Interrupted)));
    model.forward(&[piece(second, 0)], &mut |_, _| {}).unwrap();
    let full = model.forward(&[piece(first, 248)], &mut |_, _| {});
    assert!(matches!(full, Err(Error::CacheFull { n_pages: 2, .. })), "{full:?}");
}
