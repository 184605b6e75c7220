//! Real models on the device, against exact arithmetic and the tokens that another engine chooses.
//!
//! The device multiplies decoded weights with unrounded inputs, so its logits are nearer to exact arithmetic than those of
//! engines that round inputs to 8 bits. A software driver takes seconds for a few tokens: all prompts are for full runs.

use std::collections::HashMap;
use std::path::PathBuf;

use metallic::backend::KvType;
use metallic::gguf::GgufWriter;
use metallic::model::{Piece, Role};
use metallic::{GgmlType, GgufFile, GgufLoader, Model};
use serde::Deserialize;

use crate::gpu;
use crate::oracles::oracles;

/// Root mean square of the difference of logits to exact arithmetic: keys and values of 16 bits are what is rounded.
const MAX_ERROR: f64 = 0.02;

/// Below this margin to the runner-up the other engine's rounding may have chosen.
const SAFE_MARGIN: f32 = 0.5;

/// Of perplexity to that of the CPU with the same weights as floats, where it rounds no inputs: with inputs of 8 bits it is
/// itself up to 2.5 % off on so short a text.
const MAX_RATIO: f64 = 1.005;

#[derive(Deserialize)]
struct Answer {
    prompt: String,
    tokens: Vec<u32>,
    greedy: Vec<u32>,
    greedy_margin: Vec<f32>,
}

/// From the folder named by `METALLIC_MODELS` or from `target/models`.
pub(crate) fn model(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/models");
    let folder = std::env::var_os("METALLIC_MODELS").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let path = folder.join(name);
    if path.is_file() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "no {}", path.display());
    println!("skipped: no {}; CONTRIBUTING.md says how to get it", path.display());
    None
}

fn loader(path: &PathBuf) -> GgufLoader<'static> {
    let file = GgufFile::open(path).unwrap();
    GgufLoader::new(file).context_length(256).batch(64).kv_type(KvType::F16)
}

#[test]
fn smollm2_on_the_device() {
    check("SmolLM2-135M-Instruct.Q4_1.gguf");
}

#[test]
fn gemma3_on_the_device() {
    check("gemma-3-270m-q4_k_m.gguf");
}

fn check(name: &str) {
    let (Some(root), Some(path), Some(gpu)) = (oracles(), model(name), gpu()) else { return };
    let exact = include_str!("../../../metallic/tests/models/exact_logits.json");
    let mut exact: HashMap<String, Vec<Vec<(u32, f32)>>> = serde_json::from_str(exact).unwrap();
    let answers = std::fs::read(root.join("models.json")).unwrap();
    let mut answers: HashMap<String, Vec<Answer>> = serde_json::from_slice(&answers).unwrap();
    let (exact, answers) = (exact.remove(name).unwrap(), answers.remove(name).unwrap());
    let full = std::env::var_os("METALLIC_FULL").is_some();
    let mut on_device = loader(&path).place(gpu, |_| true).load().unwrap();
    let (mut sum, mut n) = (0.0, 0);
    for (answer, exact) in answers.iter().zip(&exact).take(if full { usize::MAX } else { 1 }) {
        let n_safe = answer.greedy_margin.iter().take_while(|margin| **margin >= SAFE_MARGIN).count();
        let (logits, chosen) = greedy(&mut on_device, &answer.tokens, n_safe);
        sum += exact.iter().map(|(id, exact)| f64::from(logits[*id as usize] - exact).powi(2)).sum::<f64>();
        n += exact.len();
        assert_eq!(chosen, answer.greedy[..n_safe], "{:?}", answer.prompt);
        println!("{name}: {:?}: {n_safe} greedy tokens as expected", answer.prompt);
    }
    let error = (sum / n as f64).sqrt();
    println!("{name}: error of the logits {error:.4}");
    assert!(error < MAX_ERROR, "{error}");
    if full {
        let text: Vec<u32> =
            answers.iter().flat_map(|answer| [&answer.tokens[..], &answer.greedy].concat()).collect();
        let text = &text[..text.len().min(200)];
        let floats = as_floats(&path);
        let expected = perplexity(&mut loader(&floats).load().unwrap(), text);
        std::fs::remove_file(floats).unwrap();
        let found = perplexity(&mut on_device, text);
        println!("{name}: perplexity {found:.4}, the CPU's {expected:.4}");
        assert!((found / expected).max(expected / found) <= MAX_RATIO);
    }
}

/// A copy of a model with all its weights as floats.
fn as_floats(path: &PathBuf) -> PathBuf {
    let file = GgufFile::open(path).unwrap();
    let (gguf, mut writer) = (file.gguf(), GgufWriter::new());
    for (name, value) in gguf.metadata().iter() {
        writer.set(name, value).unwrap();
    }
    for tensor in gguf.tensors() {
        writer.tensor(tensor.name(), GgmlType::F32, tensor.shape()).unwrap();
    }
    let copy = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(path.file_name().unwrap());
    let mut data = writer.begin(std::fs::File::create(&copy).unwrap()).unwrap();
    for tensor in gguf.tensors() {
        let bytes: Vec<u8> =
            file.floats(&tensor).unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
        data.write(tensor.name(), &bytes).unwrap();
    }
    data.finish().unwrap();
    copy
}

/// The logits after a prompt, and `n` tokens that greedy decoding chooses from there.
fn greedy(model: &mut Model, prompt: &[u32], n: usize) -> (Vec<f32>, Vec<u32>) {
    let sequence = model.create_sequence();
    let mut last = Vec::new();
    let mut pass = |start: usize, tokens: &[u32], role: Role| {
        let piece = Piece { sequence, start, tokens, role, logits: tokens.len() - 1..tokens.len() };
        let mut logits = Vec::new();
        model.forward(&[piece], &mut |_, row| logits = row.to_vec()).unwrap();
        logits
    };
    let first = pass(0, prompt, Role::Prompt { len: prompt.len() });
    let mut logits = first.clone();
    for start in prompt.len()..prompt.len() + n {
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
        last.push(best);
        logits = pass(start, &[best], Role::Generated);
    }
    model.release_sequence(sequence);
    (first, last)
}

fn perplexity(model: &mut Model, text: &[u32]) -> f64 {
    let mut sum = 0.0;
    model
        .evaluate(text, 0..text.len() - 1, &mut |position, logits| {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
            sum += total.ln() - f64::from(logits[text[position + 1] as usize] - largest);
        })
        .unwrap();
    (sum / (text.len() - 1) as f64).exp()
}
