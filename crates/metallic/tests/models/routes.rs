//! Long prompts may have networks computed elsewhere than answers have them. Each token then has the bits of a model that
//! computes all of its kind in that place.

use metallic::backend::Cpu;
use metallic::model::{Piece, Role, SequenceId};
use metallic::{GgufFile, GgufLoader, Isa, Model};

use crate::oracles::Oracles;

/// From so many tokens on a prompt is long.
const LONG: usize = 20;

/// Another backend, whose sums have another order.
fn other() -> Cpu {
    Cpu::new(1, Isa::Scalar).expect("threads")
}

fn forward(model: &mut Model, pieces: &[Piece<'_>]) -> Vec<Vec<f32>> {
    let mut found = vec![Vec::new(); pieces.len()];
    model.forward(pieces, &mut |of, logits| found[of.piece].extend_from_slice(logits)).expect("logits");
    found
}

fn piece(sequence: SequenceId, start: usize, tokens: &[u32], role: Role) -> Piece<'_> {
    Piece { sequence, start, tokens, role, logits: 0..tokens.len() }
}

/// The logits of a prompt, in batches of 7, and of an answer to it.
fn alone(model: &mut Model, prompt: &[u32], answer: &[u32]) -> [Vec<f32>; 2] {
    let sequence = model.create_sequence();
    let role = Role::Prompt { len: prompt.len() };
    let mut found = [Vec::new(), Vec::new()];
    for (start, tokens) in (0..).step_by(7).zip(prompt.chunks(7)) {
        found[0].extend(forward(model, &[piece(sequence, start, tokens, role)]).concat());
    }
    for (start, token) in (prompt.len()..).zip(answer) {
        let token = std::slice::from_ref(token);
        found[1].extend(forward(model, &[piece(sequence, start, token, Role::Generated)]).concat());
    }
    model.release_sequence(sequence);
    found
}

#[test]
fn each_token_has_the_bits_of_its_route() {
    let Some(oracles) = Oracles::find() else { return };
    let tokens = oracles.tokens();
    for name in oracles.supported() {
        let path = oracles.path(&format!("{name}.gguf"));
        let loader = || {
            let loader = GgufLoader::new(GgufFile::open(&path).expect("an oracle"));
            loader.threads(1).context_length(64).batch(32).sequences(2)
        };
        let layers = loader().plan().expect("a plan").0.layers;
        let n_layers = layers.len();
        // The last layer, and the head.
        let is_last = move |part: usize| part > 2 * (n_layers - 1);
        let is_network = |part: usize| part > 0 && part.is_multiple_of(2);

        let mut usual = loader().place(other(), is_last).load().expect("a model");
        let mut of_prompts =
            loader().place(other(), move |part| is_last(part) || is_network(part)).load().expect("a model");
        let lending = loader().place(other(), is_last).lend_for_prompts(Some(LONG));
        let (config, plan) = lending.plan().expect("a plan");
        let mut model = lending.load_planned(config, &plan).expect("a model");
        assert_eq!(model.ram().used_bytes(), plan.total_bytes(), "{name}");
        let lends = layers[..n_layers - 1].iter().any(|layer| layer.ffn.is_some());
        assert_eq!(plan.long_prompts_from(), lends.then_some(LONG), "{name}");

        let (short, answer) = (&tokens[..LONG - 1], &tokens[40..44]);
        assert!(
            alone(&mut model, short, answer) == alone(&mut usual, short, answer),
            "{name}: a short prompt"
        );
        let long = &tokens[..LONG + 1];
        let [prompt, of_answer] = alone(&mut model, long, answer);
        assert!(prompt == alone(&mut of_prompts, long, &[])[0], "{name}: a long prompt");

        // Both in one batch, and the answer after the long prompt.
        let [generated, read] = [model.create_sequence(), model.create_sequence()];
        let role = Role::Prompt { len: short.len() };
        forward(&mut model, &[piece(generated, 0, short, role)]);
        let role = Role::Prompt { len: long.len() };
        let found = forward(
            &mut model,
            &[piece(generated, short.len(), &answer[..1], Role::Generated), piece(read, 0, long, role)],
        );
        assert!(found[0] == alone(&mut usual, short, &answer[..1])[1], "{name}: a token in company");
        assert!(found[1] == prompt, "{name}: a long prompt in company");
        let next = (0..answer.len()).flat_map(|i| {
            forward(&mut model, &[piece(read, long.len() + i, &answer[i..=i], Role::Generated)]).concat()
        });
        assert!(next.collect::<Vec<_>>() == of_answer, "{name}: an answer to a long prompt");
    }
}
