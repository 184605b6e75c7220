//! Real models against `models.json`: logits of prompts, and the tokens that greedy decoding chooses.
//!
//! Two engines that quantize activations to 8 bits differ from each other about as much as each differs from
//! exact arithmetic, for their rounding errors are soon unrelated. So logits are compared twice: with exact
//! arithmetic (`exact_logits.json`, made by `tools/reference.py` in 64-bit floats), from which we must be no
//! further than the other engine is, and with that engine, within what both errors can add up to.

use std::collections::HashMap;

use metallic::memory::MemoryBudget;
use metallic::model::{Piece, Role};
use metallic::{Error, GgufFile, GgufLoader, Model};
use serde::Deserialize;

use crate::oracles::{Oracles, is_full, model};

/// Largest difference of a logit between two engines. The other engine alone is up to 0.28 from exact
/// arithmetic on SmolLM2 and up to 0.62 on Gemma, and our own error adds to that.
const MAX_LOGIT_DIFFERENCE: f32 = 1.5;
/// Our error over the other engine's. Five prompts are few: two draws of the same rounding errors differ by
/// more than a factor of two in one case of twenty, and a sum in another order is another draw.
const MAX_ERROR_RATIO: f64 = 2.25;
/// Below this margin to the runner-up, engines may choose differently, and from there on say other things.
const SAFE_MARGIN: f32 = 0.5;
/// The same where both engines have read the same text for a while.
const SAFE_MARGIN_LATER: f32 = 1.5;

#[derive(Deserialize)]
struct Answer {
    prompt: String,
    tokens: Vec<u32>,
    last_logits_top20: Vec<(u32, f32)>,
    last_logsumexp: f32,
    greedy: Vec<u32>,
    greedy_margin: Vec<f32>,
}

#[test]
fn smollm2_answers_as_the_oracle() {
    check("SmolLM2-135M-Instruct.Q4_1.gguf");
}

#[test]
fn gemma3_answers_as_the_oracle() {
    check("gemma-3-270m-q4_k_m.gguf");
}

fn check(name: &str) {
    let (Some(oracles), Some(path)) = (Oracles::find(), model(name)) else { return };
    let mut exact: HashMap<String, Vec<Vec<(u32, f32)>>> =
        serde_json::from_str(include_str!("exact_logits.json")).expect("logits of exact arithmetic");
    let exact = exact.remove(name).expect("exact logits of this model");
    let mut answers: HashMap<String, Vec<Answer>> =
        serde_json::from_slice(&oracles.read("models.json")).expect("the oracle's answers");
    let answers = answers.remove(name).expect("answers of this model");
    let file = GgufFile::open(path).expect("a valid model");
    let mut model = GgufLoader::new(file).threads(2).context_length(512).load().expect("a model that runs");
    let (mut our_error, mut their_error) = (0.0, 0.0);
    for (answer, exact) in answers.iter().zip(&exact) {
        let logits = last_logits(&mut model, &answer.tokens);
        for &(id, expected) in &answer.last_logits_top20 {
            let found = logits[id as usize];
            let difference = (found - expected).abs();
            assert!(
                difference < MAX_LOGIT_DIFFERENCE,
                "{:?}: token {id}: {found} for {expected}",
                answer.prompt
            );
        }
        let difference = (log_sum_exp(&logits) - answer.last_logsumexp).abs();
        assert!(
            difference < MAX_LOGIT_DIFFERENCE,
            "{:?}: log-sum-exp differs by {difference}",
            answer.prompt
        );

        for (&(id, exact), &(_, theirs)) in exact.iter().zip(&answer.last_logits_top20) {
            our_error += f64::from(logits[id as usize] - exact).powi(2);
            their_error += f64::from(theirs - exact).powi(2);
        }

        let n_safe = answer.greedy_margin.iter().take_while(|margin| **margin >= SAFE_MARGIN).count();
        let found = greedy(&mut model, &answer.tokens, n_safe);
        assert_eq!(found, answer.greedy[..n_safe], "{:?}", answer.prompt);
        let n_later = check_along_the_answer(&mut model, answer);
        println!("{name}: {:?}: {n_safe} greedy tokens and {n_later} choices as expected", answer.prompt);
    }
    assert_eq!((answers.len(), exact.len()), (5, 5));
    let root_mean_square = |sum: f64| (sum / 100.0).sqrt();
    let (ours, theirs) = (root_mean_square(our_error), root_mean_square(their_error));
    println!("{name}: error of the logits {ours:.3}, of the oracle's {theirs:.3}");
    assert!(
        ours <= theirs * MAX_ERROR_RATIO,
        "our logits are {ours} from exact arithmetic, the oracle's {theirs}"
    );
}

/// Reads prompt and answer at once and compares what would be chosen after each token of the answer.
fn check_along_the_answer(model: &mut Model, answer: &Answer) -> usize {
    let (n_prompt, n) = (answer.tokens.len(), answer.greedy.len());
    let text = [&answer.tokens[..], &answer.greedy[..n - 1]].concat();
    let mut chosen = Vec::new();
    model
        .evaluate(&text, n_prompt - 1..text.len(), &mut |_, logits| chosen.push(argmax(logits)))
        .expect("logits");
    let choices = chosen.iter().zip(&answer.greedy).zip(&answer.greedy_margin);
    let clear = choices.filter(|(_, margin)| **margin >= SAFE_MARGIN_LATER);
    clear.map(|((found, expected), _)| assert_eq!(found, expected, "{:?}", answer.prompt)).count()
}

fn last_logits(model: &mut Model, tokens: &[u32]) -> Vec<f32> {
    let mut last = Vec::new();
    let n = tokens.len();
    model.evaluate(tokens, n - 1..n, &mut |_, logits| last = logits.to_vec()).expect("logits");
    last
}

/// The logits that greedy decoding chooses each token of an answer by, after a prompt that is read in whole batches.
fn logits_of_answer(loader: GgufLoader<'_>, prompt: &[u32], n: usize) -> Vec<f32> {
    let mut model = loader.load().expect("a model that runs");
    let (sequence, role) = (model.create_sequence(), Role::Prompt { len: prompt.len() });
    let (mut all, n_batch) = (Vec::new(), model.n_batch());
    for (i, tokens) in prompt.chunks(n_batch).enumerate() {
        let start = i * n_batch;
        let last = tokens.len() - usize::from(start + tokens.len() == prompt.len());
        let piece = Piece { sequence, start, tokens, role, logits: last..tokens.len() };
        model.forward(&[piece], &mut |_, logits| all.extend_from_slice(logits)).expect("a forward pass");
    }
    for start in prompt.len()..prompt.len() + n {
        let tokens = [argmax(&all[all.len() - model.config().n_vocab..])];
        let piece = Piece { sequence, start, tokens: &tokens, role: Role::Generated, logits: 0..1 };
        model.forward(&[piece], &mut |_, logits| all.extend_from_slice(logits)).expect("a forward pass");
    }
    all
}

#[test]
fn an_answer_has_the_same_bits_whatever_the_batch_and_the_budget() {
    for path in ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"].into_iter().filter_map(model)
    {
        let loader =
            || GgufLoader::new(GgufFile::open(&path).expect("a valid model")).threads(2).context_length(128);
        let (long, short): (Vec<u32>, Vec<u32>) = ((100..140).collect(), (200..207).collect());
        let within = |ram| loader().budget(MemoryBudget::given(ram));
        let Err(Error::BudgetTooSmall { floor_bytes, .. }) = within(0).plan() else { panic!("no floor") };
        let everything = loader().plan().expect("a plan").1.total_bytes();
        let n_budgets = if is_full() { 8 } else { 2 };
        for prompt in [&long, &short] {
            let expected = logits_of_answer(loader().batch(512), prompt, 5);
            for n_batch in [1, 7, 32] {
                let found = logits_of_answer(loader().batch(n_batch), prompt, 5);
                assert!(found == expected, "{}: in batches of {n_batch}", path.display());
            }
            for i in 0..n_budgets {
                let ram = floor_bytes + everything.saturating_sub(floor_bytes) * i / n_budgets;
                let found = logits_of_answer(within(ram), prompt, 5);
                assert!(found == expected, "{}: within {ram} bytes", path.display());
            }
        }
    }
}

/// Reads the prompt in one piece, then decodes token by token from the cache.
fn greedy(model: &mut Model, prompt: &[u32], n: usize) -> Vec<u32> {
    let sequence = model.create_sequence();
    let (mut tokens, mut start) = (prompt.to_vec(), 0);
    while tokens.len() < prompt.len() + n {
        let new = &tokens[start..];
        let role = if start == 0 { Role::Prompt { len: prompt.len() } } else { Role::Generated };
        let piece = Piece { sequence, start, tokens: new, role, logits: new.len() - 1..new.len() };
        let mut chosen = 0;
        model.forward(&[piece], &mut |_, logits| chosen = argmax(logits)).expect("a forward pass");
        start = tokens.len();
        tokens.push(chosen);
    }
    model.release_sequence(sequence);
    tokens.split_off(prompt.len())
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(id, _)| id as u32)
}

fn log_sum_exp(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
    largest + sum.ln() as f32
}
