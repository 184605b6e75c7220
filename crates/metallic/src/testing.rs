//! A small model of random weights, for tests that must not depend on a download, and models made wrong.
//!
//! It babbles, but it has everything that a real model's file has: a byte-level vocabulary, a chat template,
//! attention with grouped heads, a gated network. The same every time.

use metallic_gguf::{ArrayBuf, GgmlType, Gguf, GgufWriter, Result, Value, ValueType};

const N_HEAD: u32 = 4;
const N_HEAD_KV: u32 = 2;
/// The control tokens that follow the 256 bytes.
const CONTROL: [&str; 3] = ["<|bos|>", "<|im_start|>", "<|im_end|>"];

/// Id of the token that ends an answer.
pub const END_OF_TURN: u32 = 258;

/// The model as a GGUF file: architecture `llama`, 259 tokens (one for each byte, then `<|bos|>`,
/// `<|im_start|>`, `<|im_end|>`), a context of 512.
///
/// # Errors
/// None that does not mean a defect of this crate.
pub fn tiny_model() -> Result<Vec<u8>> {
    model(TINY)
}

/// The same as a mixture of 64 experts, of which 4 are used for a token.
///
/// # Errors
/// None that does not mean a defect of this crate.
pub fn tiny_mixture() -> Result<Vec<u8>> {
    model(Shape { experts: Some(Experts { n: 64, n_used: 4 }), ..TINY })
}

/// The same, wider, with matrices of a type whose blocks have any bytes that make ordinary numbers: what it computes means
/// nothing, but is the same wherever it is computed in the same way.
///
/// # Errors
/// None that does not mean a defect of this crate.
pub fn tiny_model_of(ggml_type: GgmlType) -> Result<Vec<u8>> {
    model(Shape { n_embd: 256, ggml_type, ..TINY })
}

/// A larger mixture, with four layers of 64 experts that take 100 MB: more than a process takes beside them.
///
/// # Errors
/// None that does not mean a defect of this crate.
pub fn small_mixture() -> Result<Vec<u8>> {
    model(Shape { n_embd: 128, n_layers: 4, experts: Some(Experts { n: 64, n_used: 4 }), ..TINY })
}

/// What the models differ in.
#[derive(Clone, Copy)]
struct Shape {
    /// Width of the hidden state. Networks are twice as wide.
    n_embd: u64,
    n_layers: u32,
    experts: Option<Experts>,
    /// Of matrices.
    ggml_type: GgmlType,
}

const TINY: Shape = Shape { n_embd: 32, n_layers: 2, experts: None, ggml_type: GgmlType::F32 };

#[derive(Clone, Copy)]
struct Experts {
    n: u64,
    n_used: u32,
}

fn model(shape: Shape) -> Result<Vec<u8>> {
    let Shape { n_embd, n_layers, experts, ggml_type } = shape;
    let mut file = GgufWriter::new();
    file.set("general.architecture", "llama")?;
    file.set("general.name", "Tiny, of random weights")?;
    file.set("llama.context_length", 512_u32)?;
    file.set("llama.embedding_length", n_embd as u32)?;
    file.set("llama.block_count", n_layers)?;
    file.set("llama.feed_forward_length", 2 * n_embd as u32)?;
    file.set("llama.attention.head_count", N_HEAD)?;
    file.set("llama.attention.head_count_kv", N_HEAD_KV)?;
    file.set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)?;

    if let Some(Experts { n, n_used }) = experts {
        file.set("llama.expert_count", n as u32)?;
        file.set("llama.expert_used_count", n_used)?;
    }

    let tokens: Vec<String> = (0..=255).map(byte_name).chain(CONTROL.map(str::to_owned)).collect();
    let kinds = (0..tokens.len()).map(|id| if id < 256 { 1_i32 } else { 3 });
    file.set("tokenizer.ggml.model", "gpt2")?;
    file.set("tokenizer.ggml.pre", "gpt-2")?;
    file.set("tokenizer.ggml.tokens", &ArrayBuf::new(ValueType::String, tokens.iter().map(String::as_str))?)?;
    file.set("tokenizer.ggml.token_type", &ArrayBuf::new(ValueType::I32, kinds)?)?;
    file.set("tokenizer.ggml.merges", &ArrayBuf::new(ValueType::String, [] as [&str; 0])?)?;
    file.set("tokenizer.ggml.bos_token_id", 256_u32)?;
    file.set("tokenizer.ggml.eos_token_id", END_OF_TURN)?;
    file.set("tokenizer.ggml.add_bos_token", true)?;
    file.set(
        "tokenizer.chat_template",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )?;

    let tensors = tensors(tokens.len() as u64, shape);
    let type_of = |name: &str| if name.ends_with("norm.weight") { GgmlType::F32 } else { ggml_type };
    for (name, shape) in &tensors {
        file.tensor(name, type_of(name), shape)?;
    }
    let mut data = file.begin(Vec::new()).expect("a vector takes all that is written");
    let mut random = Random(1);
    for (name, shape) in &tensors {
        let n: u64 = shape.iter().product();
        let norm = name.ends_with("norm.weight");
        if type_of(name) != GgmlType::F32 {
            let n_bytes = n as usize / ggml_type.block_len() * ggml_type.block_bytes();
            let bytes: Vec<u8> = (0..n_bytes).map(|_| ordinary_byte(&mut random)).collect();
            data.write(name, &bytes).expect("as many blocks as the shape has");
            continue;
        }
        let scale = 1.7 / (shape[0] as f32).sqrt(); // uniform values of variance 1 / row length
        for _ in 0..n {
            let value = if norm { 1.0 } else { scale * random.next() };
            data.write(name, &value.to_le_bytes()).expect("as many values as the shape has");
        }
    }
    Ok(data.finish().expect("every tensor was written"))
}

/// A model file with some keys and tensors changed: a key has another value or none; a tensor has another shape, and then
/// zeros for values, or is left out, or is new and has floats.
///
/// # Errors
/// What is wrong with the file, or with a change.
pub fn edited(
    bytes: &[u8],
    keys: &[(&str, Option<Value<'_>>)],
    tensors: &[(&str, Option<&[u64]>)],
) -> Result<Vec<u8>> {
    let gguf = Gguf::parse(bytes)?;
    let mut writer = GgufWriter::new();
    for (name, value) in gguf.metadata().iter().filter(|(name, _)| keys.iter().all(|(key, _)| key != name)) {
        writer.set(name, value)?;
    }
    for (key, value) in keys {
        if let Some(value) = value {
            writer.set(key, *value)?;
        }
    }
    let change = |name: &str| tensors.iter().find(|(changed, _)| *changed == name).map(|(_, shape)| *shape);
    let kept = || gguf.tensors().filter(|tensor| change(tensor.name()) != Some(None));
    for tensor in kept() {
        let shape = change(tensor.name()).flatten().unwrap_or(tensor.shape());
        writer.tensor(tensor.name(), tensor.ggml_type(), shape)?;
    }
    let added = || {
        let absent = tensors.iter().filter(|(name, _)| gguf.tensor(name).is_none());
        absent.filter_map(|(name, shape)| Some((*name, (*shape)?)))
    };
    for (name, shape) in added() {
        writer.tensor(name, GgmlType::F32, shape)?;
    }
    let mut data = writer.begin(Vec::new()).expect("a vector takes all that is written");
    for tensor in kept() {
        let written = match change(tensor.name()).flatten() {
            None => data.write(tensor.name(), tensor.data()),
            Some(shape) => {
                let n: u64 = shape.iter().product::<u64>() / tensor.ggml_type().block_len() as u64;
                data.write(tensor.name(), &vec![0; n as usize * tensor.ggml_type().block_bytes()])
            }
        };
        written.expect("as many bytes as the shape has");
    }
    for (name, shape) in added() {
        let n: u64 = shape.iter().product();
        data.write(name, &vec![0; n as usize * size_of::<f32>()]).expect("as many bytes as the shape has");
    }
    Ok(data.finish().expect("every tensor was written"))
}

/// Names and shapes.
fn tensors(n_vocab: u64, shape: Shape) -> Vec<(String, Vec<u64>)> {
    let Shape { n_embd, n_layers, experts, .. } = shape;
    let n_ff = 2 * n_embd;
    let kv = n_embd * u64::from(N_HEAD_KV) / u64::from(N_HEAD);
    let mut shapes = vec![
        ("token_embd.weight".to_owned(), vec![n_embd, n_vocab]),
        ("output_norm.weight".to_owned(), vec![n_embd]),
        ("output.weight".to_owned(), vec![n_embd, n_vocab]),
    ];
    for layer in 0..n_layers {
        let mut of_layer = vec![
            ("attn_norm", vec![n_embd]),
            ("attn_q", vec![n_embd, n_embd]),
            ("attn_k", vec![n_embd, kv]),
            ("attn_v", vec![n_embd, kv]),
            ("attn_output", vec![n_embd, n_embd]),
            ("ffn_norm", vec![n_embd]),
        ];
        of_layer.extend(match experts {
            None => vec![
                ("ffn_gate", vec![n_embd, n_ff]),
                ("ffn_up", vec![n_embd, n_ff]),
                ("ffn_down", vec![n_ff, n_embd]),
            ],
            Some(Experts { n, .. }) => vec![
                ("ffn_gate_inp", vec![n_embd, n]),
                ("ffn_gate_exps", vec![n_embd, n_ff, n]),
                ("ffn_up_exps", vec![n_embd, n_ff, n]),
                ("ffn_down_exps", vec![n_ff, n_embd, n]),
            ],
        });
        shapes
            .extend(of_layer.into_iter().map(|(name, shape)| (format!("blk.{layer}.{name}.weight"), shape)));
    }
    shapes
}

/// A byte that makes numbers from 0.008 to 0.11 of scales of 16 bits, and any of other fields.
fn ordinary_byte(random: &mut Random) -> u8 {
    0x20 | ((8.0 + 8.0 * random.next()) as u8).min(15)
}

/// GPT-2's name of a byte: itself where it is printable, a character from U+0100 on otherwise.
fn byte_name(byte: u8) -> String {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = if printable(&byte) {
        u32::from(byte)
    } else {
        256 + (0..byte).filter(|b| !printable(b)).count() as u32
    };
    char::from_u32(code).map(String::from).unwrap_or_default()
}

/// Numerical Recipes' linear congruential generator: enough for weights that mean nothing.
struct Random(u32);

impl Random {
    /// From −1 to 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}
