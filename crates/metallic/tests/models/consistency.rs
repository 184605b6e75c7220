//! The same tokens give the same bits, however they are divided among batches, sequences and threads, as what they are
//! stays the same: a prompt's, or an answer's.

use std::cell::Cell;

use metallic::model::{LogitsOf, Piece, Role, SequenceId};
use metallic::{Error, GgmlType, GgufFile, GgufLoader, Isa, LoadMode, Model, testing};

use crate::oracles::{Oracles, is_full};

/// Every oracle of an architecture that runs.
fn for_each_model(check: impl Fn(&str, &dyn Fn() -> GgufLoader<'static>, &[u32])) {
    let Some(oracles) = Oracles::find() else { return };
    let tokens = oracles.tokens();
    for name in oracles.supported() {
        let path = oracles.path(&format!("{name}.gguf"));
        let loader = || GgufLoader::new(GgufFile::open(&path).expect("an oracle")).threads(2);
        check(&name, &loader, &tokens);
    }
}

/// Every such model on every instruction set, and a model of each type of weights: those of the oracles are floats.
fn for_each_model_and_isa(check: impl Fn(&str, &dyn Fn() -> GgufLoader<'static>, &[u32])) {
    let on_each_isa = |name: &str, loader: &dyn Fn() -> GgufLoader<'static>, tokens: &[u32]| {
        for isa in Isa::available() {
            check(&format!("{name} {isa}"), &|| loader().isa(isa), tokens);
        }
    };
    for_each_model(on_each_isa);
    let folder = tempfile::tempdir().expect("a folder");
    let tokens: Vec<u32> = (0..48).map(|i| i * i * 7 % 256).collect();
    for ggml_type in GgmlType::ALL.iter().filter(|ggml_type| ggml_type.block_len() > 1) {
        let path = folder.path().join(ggml_type.name());
        std::fs::write(&path, testing::tiny_model_of(*ggml_type).expect("a model")).expect("a file");
        let loader = || GgufLoader::new(GgufFile::open(&path).expect("a model")).threads(2);
        on_each_isa(ggml_type.name(), &loader, &tokens);
    }
}

fn at_once(model: &mut Model, tokens: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    model.evaluate(tokens, 0..tokens.len(), &mut |_, logits| all.extend_from_slice(logits)).expect("logits");
    all
}

/// The logits of all tokens, which follow each other in a new sequence.
fn alone(model: &mut Model, tokens: &[u32], role: Role) -> Vec<f32> {
    let mut all = Vec::new();
    let sequence = model.create_sequence();
    for (start, tokens) in (0..).zip(tokens.chunks(if role == Role::Generated { 1 } else { tokens.len() })) {
        let piece = Piece { sequence, start, tokens, role, logits: 0..tokens.len() };
        model.forward(&[piece], &mut |_, logits| all.extend_from_slice(logits)).expect("a forward pass");
    }
    model.release_sequence(sequence);
    all
}

#[test]
fn prompts_in_pieces_equal_prompts_at_once() {
    for_each_model_and_isa(|name, loader, tokens| {
        // One that is read in tiles, and one that is not.
        for tokens in [tokens, &tokens[..8]] {
            let expected = at_once(&mut loader().load().expect("a model"), tokens);
            for n_batch in [1, 7, 32] {
                let found = at_once(&mut loader().batch(n_batch).load().expect("a model"), tokens);
                assert!(found == expected, "{name}: {} in batches of {n_batch}", tokens.len());
            }
        }
    });
}

#[test]
fn answers_in_one_batch_equal_each_alone() {
    for_each_model_and_isa(|name, loader, tokens| {
        let mut model = loader().sequences(33).load().expect("a model");
        // Each answer is another part of the text.
        let texts: Vec<&[u32]> = (0..32).map(|i| &tokens[i % (tokens.len() - 3)..][..3]).collect();
        let expected: Vec<_> = texts.iter().map(|text| alone(&mut model, text, Role::Generated)).collect();
        for n in [1, 2, 3, 8, 17, 32] {
            let sequences: Vec<SequenceId> = (0..n).map(|_| model.create_sequence()).collect();
            let mut found = vec![Vec::new(); n];
            for start in 0..3 {
                let piece = |i: usize| {
                    let (sequence, tokens) = (sequences[i], &texts[i][start..start + 1]);
                    Piece { sequence, start, tokens, role: Role::Generated, logits: 0..1 }
                };
                let pieces: Vec<Piece<'_>> = (0..n).map(piece).collect();
                let sink = &mut |of: LogitsOf, logits: &mut [f32]| found[of.piece].extend_from_slice(logits);
                model.forward(&pieces, sink).expect("a forward pass");
            }
            assert!(found == expected[..n], "{name}: {n} at once");
            sequences.into_iter().for_each(|sequence| model.release_sequence(sequence));
        }
    });
}

#[test]
fn where_weights_lie_does_not_matter() {
    for_each_model(|name, loader, tokens| {
        let expected = at_once(&mut loader().mode(LoadMode::Map).load().expect("a model"), tokens);
        let found = at_once(&mut loader().mode(LoadMode::Slab).load().expect("a model"), tokens);
        assert!(found == expected, "{name}");
    });
}

#[test]
fn threads_do_not_matter() {
    for_each_model(|name, loader, tokens| {
        let expected = at_once(&mut loader().threads(1).load().expect("a model"), tokens);
        let found = at_once(&mut loader().threads(3).load().expect("a model"), tokens);
        assert!(found == expected, "{name}");
    });
}

#[test]
fn sequences_in_one_batch_equal_each_alone() {
    for_each_model_and_isa(|name, loader, tokens| {
        let mut model = loader().sequences(4).load().expect("a model");
        // Two prompts that are read in tiles, one that is not, and an answer.
        let texts = [&tokens[..20], &tokens[20..36], &tokens[36..44], &tokens[38..]];
        let prompt = |text: &[u32]| Role::Prompt { len: text.len() };
        let roles = [prompt(texts[0]), Role::Generated, prompt(texts[2]), prompt(texts[3])];
        let expected: Vec<_> = (0..4).map(|i| alone(&mut model, texts[i], roles[i])).collect();

        let sequences = texts.map(|_| model.create_sequence());
        let mut together = vec![Vec::new(); 4];
        // The first 5 tokens of each prompt, then one each for a while, then the rest, and of the answer always one.
        let (mut starts, mut n_tokens) = ([0; 4], 5);
        while starts.iter().zip(&texts).any(|(start, text)| *start < text.len()) {
            let running: Vec<usize> = (0..4).filter(|&i| starts[i] < texts[i].len()).collect();
            let piece = |&i: &usize| {
                let n_tokens = if roles[i] == Role::Generated { 1 } else { n_tokens };
                let tokens = &texts[i][starts[i]..texts[i].len().min(starts[i] + n_tokens)];
                let (sequence, start, role) = (sequences[i], starts[i], roles[i]);
                Piece { sequence, start, tokens, role, logits: 0..tokens.len() }
            };
            let pieces: Vec<Piece<'_>> = running.iter().map(piece).collect();
            let sink = &mut |of: LogitsOf, logits: &mut [f32]| {
                together[running[of.piece]].extend_from_slice(logits);
            };
            model.forward(&pieces, sink).expect("a forward pass");
            running.iter().zip(&pieces).for_each(|(&i, piece)| starts[i] += piece.tokens.len());
            n_tokens = if starts[0] < 9 { 1 } else { 48 };
        }
        for i in 0..4 {
            assert!(together[i] == expected[i], "{name}: sequence {i}");
        }
    });
}

#[test]
fn a_sequence_that_was_cut_back_goes_on_as_if_nothing_had_been() {
    for_each_model_and_isa(|name, loader, tokens| {
        let mut model = loader().load().expect("a model");
        let expected = at_once(&mut model, tokens);
        let (sequence, role) = (model.create_sequence(), Role::Prompt { len: tokens.len() });
        let other: Vec<u32> = tokens.iter().rev().copied().collect();
        let read = |model: &mut Model, start, tokens: &[u32]| {
            let mut all = Vec::new();
            let piece = Piece { sequence, start, tokens, role, logits: 0..tokens.len() };
            model.forward(&[piece], &mut |_, logits| all.extend_from_slice(logits)).expect("a forward pass");
            all
        };
        read(&mut model, 0, tokens);
        read(&mut model, 30, &other[..10]);
        model.truncate_sequence(sequence, 30);
        let found = read(&mut model, 30, &tokens[30..]);
        assert!(found == expected[expected.len() - found.len()..], "{name}");
    });
}

/// What can't be cut back is read again: each token as what it was before.
#[test]
fn an_answer_that_was_cut_back_goes_on_as_if_nothing_had_been() {
    for_each_model_and_isa(|name, loader, tokens| {
        let mut model = loader().sequences(2).load().expect("a model");
        let [whole, cut] = [(); 2].map(|()| model.create_sequence());
        let mut read = |sequence, start: usize, tokens: &[u32], role| {
            let mut all = Vec::new();
            let piece = Piece { sequence, start, tokens, role, logits: 0..tokens.len() };
            model.forward(&[piece], &mut |_, logits| all.extend_from_slice(logits)).expect("a forward pass");
            all
        };
        let mut last = [Vec::new(), Vec::new()];
        for (last, sequence) in last.iter_mut().zip([whole, cut]) {
            read(sequence, 0, &tokens[..20], Role::Prompt { len: 20 });
            (20..26).for_each(|i| drop(read(sequence, i, &tokens[i..i + 1], Role::Generated)));
            if sequence == cut {
                read(cut, 26, &[1, 2, 3], Role::Generated);
            }
            *last = read(sequence, 26, &tokens[26..27], Role::Generated);
        }
        assert!(last[0] == last[1], "{name}");
    });
}

/// Half way through a prompt and an answer beside it, before whichever part of the model: both go on as if nothing had been,
/// so does another sequence on the same pages, and who interrupts waits for no part more.
#[test]
fn sequences_go_on_after_an_interrupted_pass_as_if_nothing_had_been() {
    for_each_model(|name, loader, tokens| {
        let n_ctx = tokens.len();
        let mut model = loader().context_length(n_ctx).sequences(2).load().expect("a model");
        let n_parts = 2 * model.config().layers.len() + 2;
        let (prompt, answer) = (Role::Prompt { len: tokens.len() }, Role::Generated);
        let other: Vec<u32> = tokens.iter().rev().copied().collect();
        let expected =
            [alone(&mut model, tokens, prompt), alone(&mut model, &other[..23], answer)].map(|all| {
                let n_vocab = model.config().n_vocab;
                all[20 * n_vocab..].to_vec()
            });
        let last = n_parts - 1;
        let places = if is_full() { (0..n_parts).collect() } else { vec![0, 1, last / 2, last] };
        for n_before in places {
            let sequences = [(); 2].map(|()| model.create_sequence());
            let piece = |i: usize, range: std::ops::Range<usize>| {
                let (tokens, role) = [(tokens, prompt), (&other[..], answer)][i];
                let (sequence, start) = (sequences[i], range.start);
                Piece { sequence, start, tokens: &tokens[range.clone()], role, logits: 0..range.len() }
            };
            model.forward(&[piece(0, 0..20)], &mut |_, _| {}).expect("a prompt's beginning");
            (0..20).for_each(|i| model.forward(&[piece(1, i..i + 1)], &mut |_, _| {}).expect("an answer's"));

            // Other tokens than those that follow.
            let [mut lost, answer] = [piece(0, 20..n_ctx), piece(1, 20..21)];
            lost.tokens = &other[..n_ctx - 20];
            let n_looks = Cell::new(0);
            let is_interrupted = || n_looks.replace(n_looks.get() + 1) == n_before;
            let passed =
                model.forward_unless(&is_interrupted, None, &[lost, answer], &mut |_, _| panic!("logits"));
            assert!(matches!(passed, Err(Error::Interrupted)), "{name}: {passed:?}");
            assert_eq!(n_looks.get(), n_before + 1, "{name}");

            let mut found = [Vec::new(), Vec::new()];
            let mut pass = |pieces: &[Piece<'_>]| {
                let sink = &mut |of: LogitsOf, logits: &mut [f32]| {
                    found[of.piece].extend_from_slice(logits);
                };
                model.forward(pieces, sink).expect("a forward pass");
            };
            pass(&[piece(0, 20..30), piece(1, 20..21)]);
            pass(&[piece(0, 30..n_ctx), piece(1, 21..22)]);
            model
                .forward(&[piece(1, 22..23)], &mut |_, logits| found[1].extend_from_slice(logits))
                .expect("one more");
            for (found, expected) in found.iter().zip(&expected) {
                assert!(found == expected, "{name}: interrupted before part {n_before}");
            }
            sequences.into_iter().for_each(|sequence| model.release_sequence(sequence));
        }
    });
}

/// Also where a pass reads a sequence again before its own tokens, and is interrupted in that.
#[test]
fn what_is_read_again_can_be_interrupted() {
    for_each_model(|name, loader, tokens| {
        let mut model = loader().batch(8).load().expect("a model");
        let role = Role::Prompt { len: tokens.len() };
        let expected = at_once(&mut model, tokens);
        let sequence = model.create_sequence();
        let piece = |range: std::ops::Range<usize>| {
            let (start, n) = (range.start, range.len());
            Piece { sequence, start, tokens: &tokens[range], role, logits: 0..n }
        };
        for start in (0..24).step_by(8) {
            model.forward(&[piece(start..start + 8)], &mut |_, _| {}).expect("a forward pass");
        }
        let n_parts = 2 * model.config().layers.len() + 2;
        let (n_looks, n_before) = (Cell::new(0), n_parts + n_parts / 2);
        let is_interrupted = || n_looks.replace(n_looks.get() + 1) == n_before;
        let mut found = Vec::new();
        // From position 22 on, which some have come past.
        let mut pass = |model: &mut Model, is_interrupted: &dyn Fn() -> bool| {
            found.clear();
            model.forward_unless(is_interrupted, None, &[piece(22..24)], &mut |_, logits| {
                found.extend_from_slice(logits)
            })
        };
        let again = !model.config().can_be_cut_back();
        let passed = pass(&mut model, &is_interrupted);
        assert_eq!(matches!(passed, Err(Error::Interrupted)), again, "{name}: {passed:?}");
        pass(&mut model, &|| false).expect("a forward pass");
        let n_vocab = model.config().n_vocab;
        assert!(found == expected[22 * n_vocab..24 * n_vocab], "{name}");
    });
}
