//! Of a row of logits the device hands over those that a choice depends on, and all where one is no number.

use metallic::backend::Backend;
use metallic::engine::{Engine, Event, Request};
use metallic::sampling::SamplingParams;
use metallic::text::Tokenizer;
use metallic::{GgufFile, GgufLoader};

use crate::gpu;

/// Some floats of both signs, with equals among them: a linear congruential generator (Numerical Recipes).
fn numbers(n: usize) -> Vec<f32> {
    let mut state = n as u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 4096.0 - 2048.0
    };
    (0..n).map(|_| next().round()).collect()
}

/// Those that are largest, the first of equals, and negative infinity.
fn best(values: &[f32], n_best: usize) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    let mut best = vec![f32::NEG_INFINITY; values.len()];
    order.into_iter().take(n_best).for_each(|i| best[i] = values[i]);
    best
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn the_largest_are_found_and_the_first_of_equals() {
    let Some(mut gpu) = gpu() else { return };
    gpu.reserve_inputs(1, 80_000).unwrap();
    for n in [1, 1000, 1024, 1025, 2048, 4099, 32_000, 151_936] {
        let values = numbers(n);
        let mut buffer = gpu.buffer("values", n + 5).unwrap();
        gpu.write(&[&[1e9; 5], &values[..]].concat(), &mut buffer).unwrap();
        for n_best in [1, 2, 40, 128] {
            let mut found = vec![f32::NAN; n];
            gpu.read_best(&buffer, 5, n_best, &mut found).unwrap();
            // Few are read as they are.
            let expected = if n <= 1024 { values.clone() } else { best(&values, n_best) };
            assert_eq!(bits(&found), bits(&expected), "{n_best} of {n}");
        }
        let mut found = vec![f32::NAN; n];
        gpu.read_best(&buffer, 5, 129, &mut found).unwrap();
        assert_eq!(bits(&found), bits(&values), "too many of {n}");
    }
}

#[test]
fn what_is_infinite_or_no_number_is_handed_over_with_all() {
    let Some(mut gpu) = gpu() else { return };
    gpu.reserve_inputs(1, 80_000).unwrap();
    let n = 5000;
    let mut buffer = gpu.buffer("values", n).unwrap();
    let mut read = |values: &[f32]| {
        gpu.write(values, &mut buffer).unwrap();
        let mut found = vec![0.0; n];
        gpu.read_best(&buffer, 0, 3, &mut found).unwrap();
        found
    };
    for broken in [f32::NAN, -f32::NAN, f32::INFINITY] {
        let mut values = numbers(n);
        values[4321] = broken;
        assert_eq!(bits(&read(&values)), bits(&values), "{broken}");
    }
    // Where few are possible, the others are not.
    let mut values = vec![f32::NEG_INFINITY; n];
    (values[17], values[4000]) = (-0.0, 0.0);
    assert_eq!(bits(&read(&values)), bits(&values));
}

#[test]
fn no_room_for_the_search_means_all() {
    let Some(mut gpu) = gpu() else { return };
    let values = numbers(3000);
    let mut buffer = gpu.buffer("values", values.len()).unwrap();
    gpu.write(&values, &mut buffer).unwrap();
    let mut found = vec![0.0; values.len()];
    gpu.read_best(&buffer, 0, 3, &mut found).unwrap();
    assert_eq!(found, values);
}

/// Log probabilities want all logits: with them and without, an answer is the same.
#[test]
fn an_answer_is_the_same_whatever_is_read_back() {
    let Some(path) = crate::real_models::model("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let Some(gpu) = gpu() else { return };
    let file = GgufFile::open(&path).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file.gguf()).unwrap();
    let model = GgufLoader::new(file).context_length(64).batch(32).place(gpu, |_| true).load().unwrap();
    let mut engine = Engine::new(model, tokenizer);
    for temperature in [0.0, 0.9] {
        let mut answer = |logprobs| {
            let sampling = SamplingParams { temperature, seed: Some(3), ..SamplingParams::default() };
            let request = Request {
                sampling,
                logprobs,
                max_tokens: Some(6),
                ..Request::new((100..108).collect::<Vec<u32>>())
            };
            let mut tokens = Vec::new();
            let note = |event| match event {
                Event::Token { token, .. } => tokens.push(token),
                Event::Failed { error, .. } => panic!("{error}"),
                _ => {}
            };
            engine.generate(request, note).unwrap();
            tokens
        };
        let all = answer(Some(1));
        assert_eq!(answer(None), all, "{temperature}");
    }
}
