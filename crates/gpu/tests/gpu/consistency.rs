//! The same tokens give the same bits on the device, however they are divided among batches and sequences, as what they are
//! stays the same: a prompt's, or an answer's.

use metallic::backend::KvType;
use metallic::model::{LogitsOf, Piece, Role};
use metallic::{GgufFile, GgufLoader, Model};

use crate::gpu;
use crate::oracles::{oracles, tokens};

/// One with attention, three with states, and three with mixtures; and keys and values as Q8_0, of which two adjacent
/// positions share a word, whichever passes store them.
const MODELS: [(&str, KvType); 8] = [
    ("llama-dense", KvType::F16),
    ("lfm2-dense", KvType::F16),
    ("mamba2-dense", KvType::F16),
    ("qwen3next-moe", KvType::F16),
    ("deepseek2-moe", KvType::F16),
    ("gpt-oss-moe", KvType::F16),
    ("llama-dense", KvType::Q8_0),
    ("deepseek2-moe", KvType::Q8_0),
];

/// The logits of all tokens of a new sequence, so many tokens a pass.
fn in_pieces(model: &mut Model, tokens: &[u32], len: usize, role: Role) -> Vec<f32> {
    let mut all = Vec::new();
    let sequence = model.create_sequence();
    for (start, tokens) in (0..).step_by(len).zip(tokens.chunks(len)) {
        let piece = Piece { sequence, start, tokens, role, logits: 0..tokens.len() };
        model.forward(&[piece], &mut |_, logits| all.extend_from_slice(logits)).expect("a forward pass");
    }
    model.release_sequence(sequence);
    all
}

/// The logits of texts in sequences of their own, together, each in pieces of its own length.
fn together(model: &mut Model, texts: &[(&[u32], usize, Role)]) -> Vec<Vec<f32>> {
    let sequences: Vec<_> = texts.iter().map(|_| model.create_sequence()).collect();
    let (mut found, mut starts) = (vec![Vec::new(); texts.len()], vec![0; texts.len()]);
    loop {
        let running: Vec<usize> = (0..texts.len()).filter(|i| starts[*i] < texts[*i].0.len()).collect();
        if running.is_empty() {
            break;
        }
        let piece = |i: &usize| {
            let ((text, len, role), start) = (texts[*i], starts[*i]);
            let tokens = &text[start..text.len().min(start + len)];
            Piece { sequence: sequences[*i], start, tokens, role, logits: 0..tokens.len() }
        };
        let pieces: Vec<Piece<'_>> = running.iter().map(piece).collect();
        let sink = &mut |of: LogitsOf, logits: &mut [f32]| found[running[of.piece]].extend_from_slice(logits);
        model.forward(&pieces, sink).expect("a forward pass");
        running.iter().zip(&pieces).for_each(|(i, piece)| starts[*i] += piece.tokens.len());
    }
    sequences.into_iter().for_each(|sequence| model.release_sequence(sequence));
    found
}

#[test]
fn bits_do_not_depend_on_pieces_or_company() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    for (name, kv_type) in MODELS {
        let Some(gpu) = gpu() else { return };
        let file = GgufFile::open(root.join(format!("archs2/{name}.gguf"))).unwrap();
        let loader = GgufLoader::new(file).kv_type(kv_type).sequences(5).context_length(256).batch(64);
        let mut model = loader.place(gpu, |_| true).load().unwrap();

        let prompt = Role::Prompt { len: tokens.len() };
        let whole = in_pieces(&mut model, &tokens, tokens.len(), prompt);
        for len in [1, 7] {
            assert!(
                in_pieces(&mut model, &tokens, len, prompt) == whole,
                "{name}: a prompt in pieces of {len}"
            );
        }

        let text = |range: std::ops::Range<usize>, len, role| (&tokens[range], len, role);
        let texts = [
            text(0..tokens.len(), 5, prompt),
            text(20..36, 1, Role::Generated),
            text(10..18, 3, Role::Prompt { len: 8 }),
            text(5..20, 1, Role::Generated),
            text(21..36, 1, Role::Generated),
        ];
        let alone = texts.map(|(text, len, role)| match role {
            Role::Generated => in_pieces(&mut model, text, len, role),
            role => in_pieces(&mut model, text, text.len(), role),
        });
        for (i, found) in together(&mut model, &texts).into_iter().enumerate() {
            assert!(found == alone[i], "{name}: text {i} in company");
        }
    }
}
