//! Guesses change how many passes an answer takes, and nothing else.

use metallic::engine::{Draft, Grammar, Grammars, Lookup, Proposer, Speculation, Unfinished};
use metallic::sampling::{DryParams, MirostatParams};

use super::*;

/// Guesses what is known to come, but for every so many tokens.
struct Told {
    /// Prompts with their answers.
    all: Vec<Vec<u32>>,
    /// Which guesses are wrong: each `n`-th position, if any.
    wrong: Option<usize>,
}

impl Proposer for Told {
    fn propose(&mut self, sequences: &mut [Unfinished<'_>]) -> metallic::Result<()> {
        for Unfinished { tokens, n_wanted, guesses, .. } in sequences {
            let known = self.all.iter().find(|all| all.starts_with(tokens));
            let rest = known.map_or(&[][..], |all| &all[tokens.len()..]);
            let is_wrong = |i: usize| self.wrong.is_some_and(|n| (tokens.len() + i).is_multiple_of(n));
            let guess = |(i, token): (usize, &u32)| if is_wrong(i) { (token + 1) % 256 } else { *token };
            guesses.extend(rest.iter().take(n_wanted[0]).enumerate().map(guess));
        }
        Ok(())
    }

    fn description(&self) -> String {
        "what was told".to_owned()
    }
}

/// Requests that are answered in as many ways as there are to choose tokens.
fn requests(engine: &Engine) -> Vec<Request> {
    let ways: [fn(&mut SamplingParams); 6] = [
        |params| *params = SamplingParams::greedy(),
        |params| params.temperature = 1.5,
        |params| (params.repeat_penalty, params.frequency_penalty) = (1.3, 0.5),
        |params| params.dry = Some(DryParams::default()),
        |params| params.mirostat = Some(MirostatParams { tau: 3.0, eta: 0.2 }),
        |params| (params.xtc_probability, params.xtc_threshold, params.top_k) = (0.5, 0.05, 0),
    ];
    let prompts = ["abc abc abc", "a prompt that is longer than a batch", "x"];
    let all = ways.iter().zip(prompts.iter().cycle()).enumerate().map(|(i, (way, prompt))| {
        let mut sampling = SamplingParams { seed: Some(i as u64), ..SamplingParams::default() };
        way(&mut sampling);
        Request { sampling, exact: true, logprobs: Some(2), ..request(engine, prompt, 50) }
    });
    let grammars = Grammars::new(engine.tokenizer()).unwrap();
    let regex = Grammar::Regex("(ab|ba){3,20}c".to_owned());
    let form = grammars.compile(&regex).unwrap();
    let sampling = SamplingParams { seed: Some(9), temperature: 1.0, ..SamplingParams::default() };
    let formed = Request { sampling, form: Some(form), exact: true, ..request(engine, "ab", 60) };
    let stopped =
        Request { stop: vec!["e".to_owned(), "a".to_owned()], exact: true, ..request(engine, "stop", 60) };
    all.chain([formed, stopped]).collect()
}

/// However long a pass takes here.
fn always(proposer: impl Proposer + 'static) -> Speculation {
    Speculation { n_max: 8, adapts: false, ..Speculation::new(Box::new(proposer)) }
}

fn answers(engine: &mut Engine, requests: &[Request]) -> Vec<Answer> {
    let mut heard = Heard::default();
    let ids: Vec<_> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
    while engine.step(&mut |event| heard.take(event)) {}
    ids.iter().map(|id| heard.0[id].clone()).collect()
}

fn check(found: &[Answer], expected: &[Answer]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((&found.tokens, &found.logprobs), (&expected.tokens, &expected.logprobs));
        assert_eq!((&found.text, found.end.unwrap().0), (&expected.text, expected.end.unwrap().0));
    }
}

/// To the last bit, however many guesses there are, right or wrong, and whoever else is answered.
#[test]
fn an_answer_is_the_same_with_guesses() {
    for bytes in [testing::tiny_model().unwrap(), testing::tiny_mixture().unwrap()] {
        let mut plain = engine_of(&bytes, 128, 1);
        let requests = requests(&plain);
        let expected: Vec<_> = requests.iter().map(|request| heard(&mut plain, request.clone())).collect();
        let all = || {
            let all = requests.iter().zip(&expected);
            all.map(|(request, answer)| [&request.prompt[..], &answer.tokens].concat()).collect()
        };
        for wrong in [None, Some(1), Some(2), Some(5)] {
            for n_slots in [1, 3] {
                let mut engine = engine_of(&bytes, 128, n_slots);
                engine.speculate(always(Told { all: all(), wrong })).unwrap();
                let found = answers(&mut engine, &requests);
                check(&found, &expected);
                let stats: Vec<Stats> = found.iter().map(|answer| answer.end.unwrap().1).collect();
                let sum = |of: fn(&Stats) -> usize| stats.iter().map(of).sum::<usize>();
                assert!(sum(|stats| stats.n_guessed) > 100, "{wrong:?}");
                match wrong {
                    // Only those after an end were for nothing.
                    None => assert!(
                        sum(|stats| stats.n_guessed) < sum(|stats| stats.n_accepted) + 8 * found.len()
                    ),
                    Some(1) => assert_eq!(sum(|stats| stats.n_accepted), 0),
                    Some(_) => assert!(sum(|stats| stats.n_accepted) > 10),
                }
                for Stats { n_generated, n_passes, n_rows, n_guessed, n_accepted, .. } in stats {
                    assert!(
                        n_passes + n_accepted == n_generated - 1,
                        "{n_passes} {n_accepted} {n_generated}"
                    );
                    assert_eq!(n_rows, n_passes + n_guessed);
                }
            }
        }
    }
}

/// A text that repeats itself takes fewer passes.
#[test]
fn look_up_finds_what_came_before() {
    let mut plain = engine(256, 1);
    let request = Request { exact: true, ..request(&plain, "one two three ", 120) };
    let expected = heard(&mut plain, request.clone());
    let mut engine = engine(256, 1);
    let lookup = Lookup::new(engine.model()).unwrap();
    engine.speculate(always(lookup)).unwrap();
    let found = heard(&mut engine, request.clone());
    check(slice::from_ref(&found), slice::from_ref(&expected));
    // The next answer, of which there is no more than the prompt to look in.
    check(&[heard(&mut engine, request)], &[expected]);
}

/// A model guesses all that it will say itself, random numbers included.
#[test]
fn a_draft_of_the_same_model_is_always_right() {
    let bytes = testing::tiny_model().unwrap();
    let mut plain = engine_of(&bytes, 128, 1);
    // But for the form, of which a draft knows nothing.
    let requests: Vec<_> = requests(&plain).into_iter().filter(|request| request.form.is_none()).collect();
    let expected: Vec<_> = requests.iter().map(|request| heard(&mut plain, request.clone())).collect();
    for n_slots in [1, 3] {
        let mut engine = engine_of(&bytes, 128, n_slots);
        let (model, tokenizer) = load(&bytes, 128, n_slots);
        let draft = Draft::new(model, &tokenizer, engine.tokenizer(), 0.0).unwrap();
        engine.speculate(always(draft)).unwrap();
        let found = answers(&mut engine, &requests);
        check(&found, &expected);
        let stats = found.iter().map(|answer| answer.end.unwrap().1);
        let (guessed, accepted) = stats.fold((0, 0), |(guessed, accepted), stats| {
            (guessed + stats.n_guessed, accepted + stats.n_accepted)
        });
        // What it read as a prompt has other roundings.
        assert!(guessed > 50 && accepted * 10 > guessed * 9, "{accepted} of {guessed}");
    }
}

#[test]
fn a_draft_has_to_have_the_same_vocabulary() {
    let (model, own) = load(&testing::tiny_model().unwrap(), 64, 1);
    let mut bytes = testing::tiny_model().unwrap();
    let at = bytes.windows(7).position(|text| text == b"<|bos|>").unwrap();
    bytes[at + 2..at + 5].copy_from_slice(b"BOS");
    let (_, other) = load(&bytes, 64, 1);
    let error = Draft::new(model, &own, &other, 0.0).err().unwrap();
    assert!(matches!(error, Error::DraftVocabulary { id: 256, .. }), "{error}");
}

#[test]
fn a_pass_with_guesses_that_is_given_up_has_never_been() {
    let mut plain = engine(128, 1);
    let request = Request { exact: true, ..request(&plain, "abc", 40) };
    let expected = heard(&mut plain, request.clone());
    let mut engine = engine(128, 1);
    let all = vec![[&request.prompt[..], &expected.tokens].concat()];
    engine.speculate(always(Told { all, wrong: Some(3) })).unwrap();
    let mut heard = Heard::default();
    let id = engine.submit(request).unwrap();
    for i in 0.. {
        let n_asked = std::cell::Cell::new(0);
        let gives_up = |_: &[RequestId]| i % 2 == 0 && n_asked.replace(n_asked.get() + 1) == 2;
        if !engine.step_unless(&gives_up, &mut |event| heard.take(event)) {
            break;
        }
    }
    check(&[heard.0[&id].clone()], &[expected]);
}

/// Whoever makes room for more asks how much is left before each step.
#[test]
fn no_pass_goes_past_the_end_of_the_context() {
    let mut plain = engine(64, 1);
    let request = Request { exact: true, ..request(&plain, "abc", 100) };
    let expected = heard(&mut plain, request.clone());
    let mut engine = engine(64, 1);
    let all = vec![[&request.prompt[..], &expected.tokens].concat()];
    engine.speculate(always(Told { all, wrong: None })).unwrap();
    let mut heard = Heard::default();
    let id = engine.submit(request).unwrap();
    let mut is_seen = false;
    while engine.step(&mut |event| heard.take(event)) {
        is_seen |= engine.room(id) == Some(0);
    }
    assert!(is_seen);
    check(&[heard.0[&id].clone()], &[expected]);
}
