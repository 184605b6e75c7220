//! The same tokens give the same logits, however they are divided among batches, sequences and threads.
//!
//! Many rows of a batch meet the weights in tiles, where sums have another order than for a few. So what
//! divides tokens otherwise is compared bit by bit on the instruction set without tiles, and within the
//! rounding of floats on the fastest.

use metallic::backend::KvType;
use metallic::model::Piece;
use metallic::{GgufFile, GgufLoader, Isa, LoadMode, Model};

use crate::oracles::Oracles;

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

/// Every such model on plain loops and on the fastest instruction set. Logits are to be compared with
/// [`same`] on either; where there are roundings, keys and values are kept as they are, for rounding them to fewer bits
/// makes of a last bit one that counts.
fn for_each_model_and_isa(check: impl Fn(&str, Isa, &dyn Fn() -> GgufLoader<'static>, &[u32])) {
    for_each_model(|name, loader, tokens| {
        for isa in [Isa::Scalar, Isa::best()] {
            let loader = || match isa {
                Isa::Scalar => loader().isa(isa),
                _ => loader().isa(isa).kv_type(KvType::F32),
            };
            check(name, isa, &loader, tokens);
        }
    });
}

/// Whether logits have the same bits, or differ by roundings where an instruction set has tiles.
fn same(isa: Isa, found: &[f32], expected: &[f32]) -> bool {
    let power = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let error = power(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
    let bound = if isa == Isa::Scalar { 0.0 } else { 1e-11 };
    found.len() == expected.len() && error <= bound * power(&mut expected.iter().copied())
}

fn at_once(model: &mut Model, tokens: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    model.evaluate(tokens, 0..tokens.len(), &mut |_, logits| all.extend_from_slice(logits)).expect("logits");
    all
}

#[test]
fn prompts_in_pieces_equal_prompts_at_once() {
    for_each_model_and_isa(|name, isa, loader, tokens| {
        let expected = at_once(&mut loader().load().expect("a model"), tokens);
        for n_batch in [1, 7, 32] {
            let found = at_once(&mut loader().batch(n_batch).load().expect("a model"), tokens);
            assert!(same(isa, &found, &expected), "{name} {isa} in batches of {n_batch}");
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
    for_each_model_and_isa(|name, isa, loader, tokens| {
        let mut model = loader().sequences(3).load().expect("a model");
        let texts = [&tokens[..20], &tokens[20..33], &tokens[33..]];
        let alone = texts.map(|text| at_once(&mut model, text));

        let sequences = texts.map(|_| model.create_sequence());
        let mut together = [const { Vec::new() }; 3];
        // The first 10 tokens of each, then one each until the shortest ends, then the rest.
        let mut starts = [0; 3];
        let mut n_tokens = 10;
        while starts.iter().zip(&texts).any(|(start, text)| *start < text.len()) {
            let pieces: Vec<(usize, Piece<'_>)> = (0..3)
                .filter(|&i| starts[i] < texts[i].len())
                .map(|i| {
                    let end = (starts[i] + n_tokens).min(texts[i].len());
                    let tokens = &texts[i][starts[i]..end];
                    (i, Piece { sequence: sequences[i], start: starts[i], tokens, logits: 0..tokens.len() })
                })
                .collect();
            let batch: Vec<Piece<'_>> = pieces.iter().map(|(_, piece)| piece.clone()).collect();
            let sink = &mut |of: metallic::model::LogitsOf, logits: &mut [f32]| {
                together[pieces[of.piece].0].extend_from_slice(logits);
            };
            model.forward(&batch, sink).expect("a forward pass");
            for (i, piece) in &pieces {
                starts[*i] += piece.tokens.len();
            }
            n_tokens = if starts[0] < 14 { 1 } else { 48 };
        }
        for i in 0..3 {
            assert!(same(isa, &together[i], &alone[i]), "{name} {isa}: sequence {i}");
        }
    });
}

#[test]
fn a_sequence_that_was_cut_back_goes_on_as_if_nothing_had_been() {
    for_each_model_and_isa(|name, isa, loader, tokens| {
        let mut model = loader().load().expect("a model");
        let expected = at_once(&mut model, tokens);
        let sequence = model.create_sequence();
        let other: Vec<u32> = tokens.iter().rev().copied().collect();
        let mut found = Vec::new();
        let whole = Piece { sequence, start: 0, tokens, logits: 0..0 };
        model.forward(&[whole], &mut |_, _| {}).expect("a forward pass");
        let wrong = Piece { sequence, start: 30, tokens: &other[..10], logits: 0..0 };
        model.forward(&[wrong], &mut |_, _| {}).expect("a forward pass");
        model.truncate_sequence(sequence, 30);
        let right = Piece { sequence, start: 30, tokens: &tokens[30..], logits: 0..tokens.len() - 30 };
        model.forward(&[right], &mut |_, logits| found.extend_from_slice(logits)).expect("a forward pass");
        let expected = &expected[expected.len() - found.len()..];
        assert!(same(isa, &found, expected), "{name} {isa}");
    });
}
