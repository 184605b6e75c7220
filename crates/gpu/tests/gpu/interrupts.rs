//! A pass that is given up half way leaves nothing behind on the device.

use std::cell::Cell;

use metallic::model::{Piece, Role};
use metallic::{Error, GgufFile, GgufLoader};

use crate::gpu;
use crate::oracles::{logits, oracles, tokens};

/// One with attention, two with states, and one with experts.
const MODELS: [&str; 4] = ["llama-dense", "lfm2-dense", "mamba2-dense", "qwen3next-moe"];

/// All on the device, and every other part, so that the device is read and written between parts.
#[test]
fn a_sequence_goes_on_after_an_interrupted_pass_as_if_nothing_had_been() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    let other: Vec<u32> = tokens.iter().rev().copied().collect();
    let role = Role::Prompt { len: tokens.len() };
    for (name, every) in MODELS.iter().flat_map(|name| [(name, 1), (name, 2)]) {
        let Some(gpu) = gpu() else { return };
        let counters = gpu.counters();
        let file = GgufFile::open(root.join(format!("archs2/{name}.gguf"))).unwrap();
        let loader = GgufLoader::new(file).context_length(256).batch(64).sequences(1);
        let mut model = loader.place(gpu, move |part| part % every == 0).load().unwrap();
        let expected = logits(&mut model, &tokens).unwrap();
        let n_parts = 2 * model.config().layers.len() + 2;

        for n_before in [0, 1, n_parts / 2, n_parts - 1] {
            let sequence = model.create_sequence();
            let piece = |start: usize, tokens, logits| Piece { sequence, start, tokens, role, logits };
            // Nobody asks for logits, so the end of this pass waits on the host for the next one.
            model.forward(&[piece(0, &tokens[..20], 0..0)], &mut |_, _| {}).unwrap();
            let n_looks = Cell::new(0);
            let is_interrupted = || n_looks.replace(n_looks.get() + 1) == n_before;
            let before = counters.stats();
            let lost = piece(20, &other[20..], 0..1);
            let passed = model.forward_unless(&is_interrupted, None, &[lost], &mut |_, _| panic!("logits"));
            assert!(matches!(passed, Err(Error::Interrupted)), "{name}: {passed:?}");
            let waits = counters.stats().since(before).n_waits;
            assert!(every > 1 || waits == 0, "{name}: waited {waits} times for what nobody wants");

            let (rest, mut found) = (piece(20, &tokens[20..], 0..tokens.len() - 20), Vec::new());
            model.forward(&[rest], &mut |_, logits| found.extend_from_slice(logits)).unwrap();
            assert!(found == expected[expected.len() - found.len()..], "{name}, {every}: before {n_before}");
            model.release_sequence(sequence);
        }
    }
}
