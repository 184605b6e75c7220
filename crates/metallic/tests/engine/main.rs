//! The engine's promises: events in order, one end for each request, the same text whatever else runs.

#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

mod files;
mod grammar;
mod interrupts;
mod saved;
mod sharing;
mod speculation;

use std::collections::BTreeMap;
use std::slice;

use metallic::engine::{Engine, Event, FinishReason, MAX_WAITING, Request, RequestId, Stats};
use metallic::sampling::{Logprobs, SamplingParams};
use metallic::text::{EncodeOptions, Tokenizer};
use metallic::{Error, GgufFile, GgufLoader, Model, testing};

fn engine(n_ctx: usize, n_sequences: usize) -> Engine {
    engine_of(&testing::tiny_model().unwrap(), n_ctx, n_sequences)
}

fn engine_of(bytes: &[u8], n_ctx: usize, n_sequences: usize) -> Engine {
    let (model, tokenizer) = load(bytes, n_ctx, n_sequences);
    Engine::new(model, tokenizer)
}

fn load(bytes: &[u8], n_ctx: usize, n_sequences: usize) -> (Model, Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, bytes).unwrap();
    let file = GgufFile::open(&path).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file.gguf()).unwrap();
    let loader = GgufLoader::new(file).threads(1).context_length(n_ctx).sequences(n_sequences).batch(16);
    (loader.load().unwrap(), tokenizer)
}

fn request(engine: &Engine, prompt: &str, max_tokens: usize) -> Request {
    let options = EncodeOptions { add_bos: true, add_eos: true, parse_special: false };
    let prompt = engine.tokenizer().encode(prompt, options).unwrap();
    Request { sampling: SamplingParams::greedy(), max_tokens: Some(max_tokens), ..Request::new(prompt) }
}

/// What was said to each request, and how it ended.
#[derive(Default)]
struct Heard(BTreeMap<RequestId, Answer>);

#[derive(Clone, Default)]
struct Answer {
    tokens: Vec<u32>,
    logprobs: Vec<Logprobs>,
    text: String,
    end: Option<(FinishReason, Stats)>,
}

impl Heard {
    fn take(&mut self, event: Event) {
        match event {
            Event::Token { request, token, logprobs } => {
                let answer = self.0.entry(request).or_default();
                assert!(answer.end.is_none(), "nothing follows the end");
                answer.tokens.push(token);
                answer.logprobs.extend(logprobs);
            }
            Event::Text { request, text } => {
                let answer = self.0.entry(request).or_default();
                assert!(!text.is_empty() && answer.end.is_none(), "nothing follows the end");
                answer.text.push_str(&text);
            }
            Event::Finished { request, reason, stats } => {
                let answer = self.0.entry(request).or_default();
                assert_eq!(answer.tokens.len(), stats.n_generated);
                let before = answer.end.replace((reason, stats));
                assert!(before.is_none(), "a request ends once");
            }
            Event::Failed { error, .. } => panic!("{error}"),
        }
    }

    fn of(&self, id: RequestId) -> (String, FinishReason, Stats) {
        let Answer { text, end, .. } = self.0[&id].clone();
        let (reason, stats) = end.unwrap();
        (text, reason, stats)
    }
}

fn heard(engine: &mut Engine, request: Request) -> Answer {
    let mut heard = Heard::default();
    engine.generate(request, |event| heard.take(event)).unwrap();
    heard.0.into_values().next().unwrap()
}

fn run(engine: &mut Engine, requests: &[Request]) -> Vec<(String, FinishReason, Stats)> {
    let mut heard = Heard::default();
    let ids: Vec<_> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
    while engine.step(&mut |event| heard.take(event)) {}
    assert_eq!(heard.0.len(), requests.len());
    ids.into_iter().map(|id| heard.of(id)).collect()
}

/// To the last bit, where nothing is kept that was computed in another way.
#[test]
fn answers_do_not_depend_on_what_else_is_running() {
    let prompts = ["one", "a rather longer prompt, of more than one batch", "x", "two", "and so on"];
    for bytes in [testing::tiny_model().unwrap(), testing::tiny_mixture().unwrap()] {
        let mut alone = engine_of(&bytes, 128, 1);
        let request = |prompt: &&str| {
            let request = request(&alone, prompt, 40);
            Request { logprobs: Some(5), exact: true, ..request }
        };
        let requests: Vec<_> = prompts.iter().map(request).collect();
        let expected: Vec<_> = requests.iter().map(|r| heard(&mut alone, r.clone())).collect();
        assert!(expected.iter().any(|answer| answer.text.chars().count() > 10));

        let mut together = engine_of(&bytes, 128, 3); // fewer slots than requests: two wait
        let mut heard = Heard::default();
        let ids: Vec<_> = requests.iter().map(|r| together.submit(r.clone()).unwrap()).collect();
        while together.step(&mut |event| heard.take(event)) {}
        for (id, expected) in ids.iter().zip(&expected) {
            let found = &heard.0[id];
            assert_eq!((&found.tokens, &found.logprobs), (&expected.tokens, &expected.logprobs));
        }
    }
}

#[test]
fn a_limit_a_stop_string_and_a_full_context_end_an_answer() {
    let mut engine = engine(64, 1);
    let limited = request(&engine, "Hello", 30);
    let (text, reason, stats) = run(&mut engine, slice::from_ref(&limited)).remove(0);
    assert_eq!((reason, stats.n_prompt, stats.n_generated), (FinishReason::MaxTokens, 6, 30));

    // Stop before some middle part of what it says.
    let middle: String = text.chars().skip(5).take(3).collect();
    assert_eq!(middle.chars().count(), 3, "{text:?}");
    let (before, _) = text.split_once(&middle).unwrap();
    let stopped = Request { stop: vec!["never said".into(), middle.clone()], ..limited.clone() };
    let (found, reason, _) = run(&mut engine, &[stopped]).remove(0);
    assert_eq!((found.as_str(), reason), (before, FinishReason::StopString));

    let unlimited = Request { max_tokens: None, ..limited };
    let (found, reason, stats) = run(&mut engine, &[unlimited]).remove(0);
    assert!(found.starts_with(&text));
    // The last token needs no place of its own.
    assert_eq!((reason, stats.n_generated), (FinishReason::ContextFull, 64 - 6 + 1));
}

#[test]
fn tokens_and_how_likely_they_were_come_with_the_text() {
    let mut engine = engine(64, 1);
    let mut request = request(&engine, "Hello", 12);
    request.logprobs = Some(3);
    // What is chosen is not what the model finds likeliest, and neither bias nor temperature may show.
    request.sampling = SamplingParams {
        temperature: 5.0,
        logit_bias: (0..40).map(|id| (id, 3.0)).collect(),
        repeat_penalty: 1.5,
        seed: Some(1),
        ..SamplingParams::default()
    };
    let mut heard = Heard::default();
    let id = engine.submit(request.clone()).unwrap();
    while engine.step(&mut |event| heard.take(event)) {}
    let Answer { tokens, logprobs, text, .. } = heard.0[&id].clone();
    assert_eq!((tokens.len(), logprobs.len()), (12, 12));
    assert_eq!(engine.tokenizer().decode(&tokens), text);

    // By definition, from the model's logits.
    let (mut model, _) = load(&testing::tiny_model().unwrap(), 64, 1);
    let all = [&request.prompt[..], &tokens].concat();
    let n_prompt = request.prompt.len();
    let wanted = n_prompt - 1..all.len() - 1;
    let mut checked = 0;
    let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-4;
    model
        .evaluate(&all, wanted, &mut |position, logits| {
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let expected = |id: u32| (f64::from(logits[id as usize]).exp() / sum).ln();
            let found = &logprobs[position + 1 - n_prompt];
            assert!(close(found.chosen, expected(all[position + 1])), "{found:?}");
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            assert!(found.top.iter().map(|one| one.token).eq(order[..3].iter().copied()));
            assert!(found.top.iter().all(|one| close(one.logprob, expected(one.token))), "{found:?}");
            checked += 1;
        })
        .unwrap();
    assert_eq!(checked, 12);
}

#[test]
fn tokens_of_text_that_is_held_back_come_before_it() {
    let mut engine = engine(64, 1);
    let mut request = request(&engine, "Hello", 3);
    // Only at its end is it clear that it does not begin a stop string.
    request.sampling.logit_bias = vec![(u32::from(b'a'), 1e6)];
    request.stop = vec!["aaaa".into()];
    let mut order = Vec::new();
    engine
        .generate(request, |event| match event {
            Event::Token { token, logprobs, .. } => {
                assert_eq!((token, logprobs), (b'a'.into(), None));
                order.push("token".to_owned());
            }
            Event::Text { text, .. } => order.push(text),
            Event::Finished { .. } => order.push("end".into()),
            Event::Failed { error, .. } => panic!("{error}"),
        })
        .unwrap();
    assert_eq!(order, ["token", "token", "token", "aaa", "end"]);
}

#[test]
fn the_models_own_stop_token_ends_an_answer_and_is_not_said() {
    let mut engine = engine(64, 1);
    let mut request = request(&engine, "Hello", 30);
    request.sampling.logit_bias = vec![(testing::END_OF_TURN, 1e9)];
    let (text, reason, stats) = run(&mut engine, &[request]).remove(0);
    assert_eq!((text.as_str(), reason, stats.n_generated), ("", FinishReason::StopToken, 1));
}

#[test]
fn a_stop_string_that_names_a_special_token_stops_at_that_token() {
    let mut engine = engine(64, 1);
    let mut request = request(&engine, "Hello", 30);
    // `ab` is held back when the token comes, and is no part of it.
    request.stop = vec!["abx".into(), "<|im_start|>".into()];
    let im_start = engine.tokenizer().special_token("<|im_start|>").unwrap();
    request.sampling.logit_bias = vec![(b'a'.into(), 1e6), (im_start, 9e5)];
    request.sampling.presence_penalty = 2e5;
    let (text, reason, stats) = run(&mut engine, slice::from_ref(&request)).remove(0);
    assert_eq!((text.as_str(), reason, stats.n_generated), ("a", FinishReason::StopString, 2));

    request.stop.truncate(1);
    let (_, reason, _) = run(&mut engine, &[request]).remove(0);
    assert_eq!(reason, FinishReason::MaxTokens);
    for not_one in ["", "Hello", "<|im_start|>x", " <|im_start|>", "<|im_start|><|im_end|>"] {
        assert_eq!(engine.tokenizer().special_token(not_one), None, "{not_one:?}");
    }
}

#[test]
fn where_ends_are_ignored_the_answer_goes_on() {
    let mut engine = engine(64, 1);
    let mut request = request(&engine, "Hello", 10);
    request.sampling.logit_bias = vec![(testing::END_OF_TURN, 1e9)];
    request.ignore_eos = true;
    let (_, reason, stats) = run(&mut engine, &[request]).remove(0);
    assert_eq!((reason, stats.n_generated), (FinishReason::MaxTokens, 10));
}

#[test]
fn numbers_that_are_no_distribution_fail_the_request_that_has_them() {
    let whole = testing::tiny_model().unwrap();
    let with = |name: &str, value: f32, rows: std::ops::Range<usize>| {
        let mut bytes = whole.clone();
        let gguf = metallic::gguf::Gguf::parse(&whole).unwrap();
        let tensor = gguf.tensor(name).unwrap();
        let row_bytes = tensor.data().len() / tensor.shape().get(1).map_or(1, |n| *n as usize);
        let start = tensor.data().as_ptr() as usize - whole.as_ptr() as usize;
        for at in (start + rows.start * row_bytes..start + rows.end * row_bytes).step_by(4) {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    };
    for (bytes, is_nan) in [
        (with("output.weight", f32::NAN, 0..259), true),
        (with("output.weight", f32::NAN, 7..8), true),
        (with("output_norm.weight", f32::INFINITY, 0..1), true), // ±inf, whose sums are NaN
    ] {
        let mut engine = engine_of(&bytes, 64, 1);
        let request = request(&engine, "Hello", 5);
        let mut events = Vec::new();
        engine.generate(request.clone(), |event| events.push(event)).unwrap();
        let [Event::Failed { error, .. }] = &events[..] else { panic!("{events:?}") };
        match &**error {
            Error::BrokenLogits { position, largest } => {
                assert_eq!((*position, largest.is_nan()), (request.prompt.len() - 1, is_nan));
            }
            other => panic!("{other}"),
        }
        let (mut model, _) = load(&bytes, 64, 1);
        let evaluated = model.evaluate(&request.prompt, 0..2, &mut |_, _| panic!("no logits"));
        assert!(matches!(evaluated, Err(Error::BrokenLogits { position: 0, .. })));
    }

    // A token whose embedding is broken breaks only the answers to prompts that have it.
    let mut engine = engine_of(&with("token_embd.weight", f32::NAN, 90..91), 64, 2);
    let [good, bad] = ["Hello", "Z"].map(|prompt| request(&engine, prompt, 4));
    let mut ends = Vec::new();
    for request in [good, bad] {
        engine.submit(request).unwrap();
    }
    while engine.step(&mut |event| match event {
        Event::Finished { reason, .. } => ends.push(Some(reason)),
        Event::Failed { .. } => ends.push(None),
        _ => {}
    }) {}
    assert_eq!(ends, [None, Some(FinishReason::MaxTokens)]);
}

#[test]
fn a_prompt_that_is_replaced_makes_room_and_the_answer_goes_on_after_the_new_one() {
    let mut engine = engine(64, 1);
    let prompt = |engine: &Engine, text: &str| request(engine, text, 0).prompt;
    // Beginning and end are as before; the middle gives way.
    let long = prompt(&engine, "begin, a middle that is of forty bytes or so, end");
    let short = prompt(&engine, "begin, end");
    let whole = Request { max_tokens: Some(30), ..request(&engine, "", 0) };
    let id = engine.submit(Request { prompt: long.clone(), ..whole.clone() }).unwrap();
    assert_eq!(engine.room(id), None, "it waits");
    let (mut tokens, mut n_before) = (Vec::new(), 0);
    loop {
        let is_full = engine.room(id) == Some(0);
        if is_full {
            n_before = tokens.len();
            assert_eq!(n_before, 64 - long.len());
            let too_long = engine.replace_prompt(id, long[..long.len() - 1].repeat(2));
            assert!(matches!(too_long, Err(Error::PromptTooLong { .. })));
            engine.replace_prompt(id, short.clone()).unwrap();
            assert_eq!(engine.room(id), Some(64 - short.len() - n_before));
        }
        if !engine.step(&mut |event| match event {
            Event::Token { token, .. } => tokens.push(token),
            Event::Finished { reason, stats, .. } => {
                assert_eq!((reason, stats.n_generated), (FinishReason::MaxTokens, 30));
                assert_eq!((stats.n_prompt, stats.n_cached), (long.len(), 0));
            }
            Event::Text { .. } => {}
            Event::Failed { error, .. } => panic!("{error}"),
        }) {
            break;
        }
    }
    assert_eq!(tokens.len(), 30);
    // From there on it says what a new engine says after the new prompt and the answer so far.
    let so_far = [&short[..], &tokens[..n_before]].concat();
    let fresh = Request { prompt: so_far, max_tokens: Some(30 - n_before), ..whole };
    let mut expected = Vec::new();
    self::engine(64, 1)
        .generate(fresh, |event| {
            if let Event::Token { token, .. } = event {
                expected.push(token);
            }
        })
        .unwrap();
    assert_eq!(tokens[n_before..], expected);
    assert!(engine.room(id).is_none() && engine.replace_prompt(id, short).is_ok(), "it has ended");
}

#[test]
fn the_next_turn_reads_only_what_is_new_and_says_the_same() {
    let mut warm = engine(128, 2);
    let first = request(&warm, "A conversation that begins here", 8);
    let other = request(&warm, "Something else entirely", 8);
    run(&mut warm, &[first.clone(), other]);
    let second = request(&warm, "A conversation that begins here, and goes on", 8);
    let (text, _, stats) = run(&mut warm, slice::from_ref(&second)).remove(0);
    assert_eq!(stats.n_cached, first.prompt.len());
    let (cold, _, stats) = run(&mut engine(128, 1), &[second]).remove(0);
    assert_eq!((text, stats.n_cached), (cold, 0));
}

#[test]
fn an_exact_turn_has_the_bits_that_it_has_in_a_new_sequence() {
    for (first, n_kept) in [("A conversation that begins with many tokens", usize::MAX), ("Few", 0)] {
        let mut warm = engine(256, 1);
        let first = request(&warm, first, 8);
        assert_eq!(first.prompt.len() > 8, n_kept > 0);
        let (n_first, answer) = (first.prompt.len(), heard(&mut warm, first.clone()).tokens);
        let prompt = [&first.prompt[..], &answer, &first.prompt[..], &first.prompt].concat();
        let second = Request { prompt, exact: true, logprobs: Some(5), ..first };
        let (found, expected) = (heard(&mut warm, second.clone()), heard(&mut engine(256, 1), second));
        assert_eq!((found.tokens, found.logprobs), (expected.tokens, expected.logprobs));
        // What was a prompt's and is again, in tiles both times.
        assert_eq!(found.end.unwrap().1.n_cached, n_first.min(n_kept));
    }
}

#[test]
fn the_same_prompt_again_runs_only_its_last_token() {
    let mut engine = engine(64, 1);
    let request = request(&engine, "again", 4);
    let (expected, ..) = run(&mut engine, slice::from_ref(&request)).remove(0);
    let (found, _, stats) = run(&mut engine, slice::from_ref(&request)).remove(0);
    assert_eq!((found, stats.n_cached), (expected, request.prompt.len() - 1));
}

#[test]
fn cancelled_requests_end_once_and_free_their_slot() {
    let mut engine = engine(64, 1);
    let mut heard = Heard::default();
    let endless = Request { max_tokens: None, ..request(&engine, "Hello", 0) };
    let running = engine.submit(endless.clone()).unwrap();
    let waiting = engine.submit(endless).unwrap();
    for _ in 0..5 {
        assert!(engine.step(&mut |event| heard.take(event)));
    }
    engine.cancel(waiting, &mut |event| heard.take(event));
    engine.cancel(running, &mut |event| heard.take(event));
    engine.cancel(running, &mut |event| heard.take(event));
    assert!(!engine.step(&mut |event| heard.take(event)));
    assert_eq!(heard.of(running).1, FinishReason::Cancelled);
    assert_eq!((heard.of(waiting).1, heard.of(waiting).0), (FinishReason::Cancelled, String::new()));
    let next = request(&engine, "Hello", 3);
    assert_eq!(run(&mut engine, &[next])[0].1, FinishReason::MaxTokens);
}

#[test]
fn a_request_under_way_tells_what_it_has_cost() {
    let mut engine = engine(128, 1);
    let batch = engine.model().n_batch();
    let prompt = vec![5; 2 * batch + 1];
    let id = engine.submit(Request { prompt, ..request(&engine, "", 2) }).unwrap();
    assert_eq!(engine.stats(id), None, "it waits");
    let mut counts = Vec::new();
    while engine.step(&mut |_| {}) {
        counts.extend(engine.stats(id).map(|stats| (stats.n_read, stats.n_generated)));
    }
    assert_eq!(counts, [(batch, 0), (2 * batch, 0), (2 * batch + 1, 1)]);
    assert_eq!(engine.stats(id), None, "it has ended");
}

#[test]
fn tokens_that_were_not_read_count_in_no_rate() {
    let mut engine = engine(64, 1);
    let long = request(&engine, &"word ".repeat(8), 1);
    let n_prompt = long.prompt.len();
    // Batches are of 16.
    let mut heard = Heard::default();
    let id = engine.submit(long.clone()).unwrap();
    engine.step(&mut |event| heard.take(event));
    engine.cancel(id, &mut |event| heard.take(event));
    let stats = heard.of(id).2;
    assert_eq!((stats.n_prompt, stats.n_cached, stats.n_read), (n_prompt, 0, 16));
    assert_eq!(stats.prefill_rate(), Some(16.0 / stats.prefill.as_secs_f64()));
    // What was read stays cached.
    let stats = run(&mut engine, &[long])[0].2;
    assert_eq!((stats.n_cached, stats.n_read), (16, n_prompt - 16));
}

#[test]
fn requests_that_cannot_run_are_refused() {
    let mut engine = engine(16, 1);
    let good = request(&engine, "Hello", 1);
    let with = |prompt: Vec<u32>| Request { prompt, ..good.clone() };
    assert!(matches!(engine.submit(with(vec![])), Err(Error::EmptyPrompt)));
    let too_long = engine.submit(with(vec![65; 17]));
    assert!(matches!(too_long, Err(Error::PromptTooLong { n_prompt: 17, n_ctx: 16 })));
    let unknown = engine.submit(with(vec![65, 259]));
    assert!(matches!(unknown, Err(Error::TokenOutOfRange { id: 259, n_vocab: 259 })));
    let sampling = SamplingParams { top_p: 7.0, ..SamplingParams::greedy() };
    assert!(matches!(engine.submit(Request { sampling, ..good.clone() }), Err(Error::Sampling(_))));
    for _ in 0..MAX_WAITING {
        engine.submit(good.clone()).unwrap();
    }
    assert!(matches!(engine.submit(good), Err(Error::QueueFull { .. })));
}
