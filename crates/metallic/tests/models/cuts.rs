//! A model that is cut into segments, which are computed in more than one place, gives the bits of the whole.

use metallic::backend::Cpu;
use metallic::model::{Piece, Role};
use metallic::{GgufFile, GgufLoader, Isa, Model};

use crate::oracles::{Oracles, is_full};

/// The logits of a prompt in batches of 7, then of an answer to it.
fn logits(model: &mut Model, tokens: &[u32]) -> Vec<f32> {
    let (prompt, answer) = tokens.split_at(tokens.len() / 2);
    let sequence = model.create_sequence();
    let mut all = Vec::new();
    let mut pass = |start: usize, tokens: &[u32], role: Role| {
        let piece = Piece { sequence, start, tokens, role, logits: 0..tokens.len() };
        model.forward(&[piece], &mut |_, logits| all.extend_from_slice(logits)).expect("logits");
    };
    for (start, tokens) in (0..).step_by(7).zip(prompt.chunks(7)) {
        pass(start, tokens, Role::Prompt { len: prompt.len() });
    }
    for (start, token) in (prompt.len()..).zip(answer) {
        pass(start, &[*token], Role::Generated);
    }
    all
}

/// Whether a model is cut before each of its parts but the first: at one place, at all, and in a full run at any.
fn cuts(n_parts: usize) -> Vec<u32> {
    let n_places = n_parts as u32 - 1;
    let all = (1 << n_places) - 1;
    if is_full() && n_places <= 7 {
        return (0..=all).collect();
    }
    (0..n_places).map(|place| 1 << place).chain([0, all]).collect()
}

#[test]
fn a_model_cut_anywhere_has_the_bits_of_the_whole() {
    let Some(oracles) = Oracles::find() else { return };
    let tokens = oracles.tokens();
    for name in oracles.supported() {
        let path = oracles.path(&format!("{name}.gguf"));
        let loader = || {
            let file = GgufFile::open(&path).expect("an oracle");
            GgufLoader::new(file).threads(1).context_length(128).batch(32)
        };
        let mut whole = loader().load().expect("a model");
        let (n_parts, expected) = (2 * whole.config().layers.len() + 2, logits(&mut whole, &tokens));
        for cut in cuts(n_parts) {
            // Each segment is on the other of two backends.
            let is_other = move |part: usize| (cut & ((1 << part) - 1)).count_ones() % 2 == 1;
            let other = Cpu::new(2, Isa::best()).expect("threads");
            let loader = loader().place(other, is_other);
            let (config, plan) = loader.plan().expect("a plan");
            let mut model = loader.load_planned(config, &plan).expect("a model");
            assert_eq!(model.ram().used_bytes(), plan.total_bytes(), "{name}");
            assert!(logits(&mut model, &tokens) == expected, "{name}, cut at {cut:b}");
        }
    }
}
