//! A model small enough to make on the spot, whose every answer is known beforehand.
//!
//! One token a byte, whose id is the byte, and two special tokens. Layers add nothing to the hidden
//! state, embeddings are unit vectors, and the head gives the token's successor the logit [`LOGIT`] and
//! every other token 0. So it goes on with the alphabet, ends after `z`, and starts at `T` on a new line.

use metallic_gguf::{ArrayBuf, GgmlType, GgufWriter, ValueType};

/// Logit of the successor; all others are 0.
pub(crate) const LOGIT: f32 = 10.0;
pub(crate) const N_VOCAB: usize = 258;
const IM_START: u32 = 256;
const IM_END: u32 = 257;
const N_EMBD: usize = 288;
const N_FF: usize = 32;
pub(crate) const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
     message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// What the model says after a token.
pub(crate) fn successor(token: u32) -> u32 {
    match token {
        0x0a => b'T'.into(),
        0x7a => IM_END,
        0..256 => token + 1,
        _ => 0x0a,
    }
}

/// What distinguishes one file from another.
pub(crate) struct Options {
    pub(crate) architecture: &'static str,
    pub(crate) template: Option<&'static str>,
    /// Templates with names.
    pub(crate) named: &'static [(&'static str, &'static str)],
    pub(crate) add_bos: bool,
    /// Bytes whose tokens have another text. One in `<|` and `|>` is a control token's.
    pub(crate) spelled: &'static [(u8, &'static str)],
}

impl Default for Options {
    fn default() -> Self {
        Options { architecture: "llama", template: Some(TEMPLATE), named: &[], add_bos: false, spelled: &[] }
    }
}

/// The model's file.
pub(crate) fn model() -> Vec<u8> {
    model_with(Options::default())
}

/// The file of a variant.
pub(crate) fn model_with(options: Options) -> Vec<u8> {
    let Options { architecture, template, named, add_bos, spelled } = options;
    let mut file = GgufWriter::new();
    let strings =
        |items: &[String]| ArrayBuf::new(ValueType::String, items.iter().map(String::as_str)).unwrap();
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_character(byte).to_string()).collect();
    tokens.extend(["<|im_start|>".to_owned(), "<|im_end|>".to_owned()]);
    for (byte, text) in spelled {
        tokens[usize::from(*byte)] = text.bytes().map(byte_character).collect();
    }
    let is_control = |text: &String| text.starts_with("<|") && text.ends_with("|>");
    let types: Vec<i32> = tokens.iter().map(|text| if is_control(text) { 3 } else { 1 }).collect();
    file.set("general.architecture", architecture).unwrap();
    file.set("general.name", "Alphabet").unwrap();
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 2048),
        ("embedding_length", N_EMBD as u32),
        ("feed_forward_length", N_FF as u32),
        ("attention.head_count", 9),
        ("rope.dimension_count", 32),
    ] {
        file.set(&format!("{architecture}.{key}"), value).unwrap();
    }
    file.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-9_f32).unwrap();
    file.set("tokenizer.ggml.model", "gpt2").unwrap();
    file.set("tokenizer.ggml.pre", "gpt-2").unwrap();
    file.set("tokenizer.ggml.tokens", &strings(&tokens)).unwrap();
    file.set("tokenizer.ggml.token_type", &ArrayBuf::new(ValueType::I32, types).unwrap()).unwrap();
    file.set("tokenizer.ggml.merges", &strings(&[])).unwrap();
    file.set("tokenizer.ggml.bos_token_id", IM_START).unwrap();
    file.set("tokenizer.ggml.eos_token_id", IM_END).unwrap();
    file.set("tokenizer.ggml.add_bos_token", add_bos).unwrap();
    if let Some(template) = template {
        file.set("tokenizer.chat_template", template).unwrap();
    }
    for (name, template) in named {
        file.set(&format!("tokenizer.chat_template.{name}"), *template).unwrap();
    }
    write_tensors(file)
}

fn write_tensors(mut file: GgufWriter) -> Vec<u8> {
    let matrices = [
        ("token_embd.weight", N_EMBD, N_VOCAB),
        ("output.weight", N_EMBD, N_VOCAB),
        ("blk.0.attn_q.weight", N_EMBD, N_EMBD),
        ("blk.0.attn_k.weight", N_EMBD, N_EMBD),
        ("blk.0.attn_v.weight", N_EMBD, N_EMBD),
        ("blk.0.attn_output.weight", N_EMBD, N_EMBD),
        ("blk.0.ffn_gate.weight", N_EMBD, N_FF),
        ("blk.0.ffn_up.weight", N_EMBD, N_FF),
        ("blk.0.ffn_down.weight", N_FF, N_EMBD),
    ];
    let norms = ["output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"];
    for (name, row_len, n_rows) in matrices {
        file.tensor(name, GgmlType::F32, &[row_len as u64, n_rows as u64]).unwrap();
    }
    for name in norms {
        file.tensor(name, GgmlType::F32, &[N_EMBD as u64]).unwrap();
    }
    let mut data = file.begin(Vec::new()).unwrap();
    let bytes = |floats: &[f32]| floats.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    for (name, row_len, n_rows) in matrices {
        let mut matrix = vec![0.0; row_len * n_rows];
        match name {
            "token_embd.weight" => (0..N_VOCAB).for_each(|token| matrix[token * N_EMBD + token] = 1.0),
            // The norm makes a unit vector √N_EMBD long.
            "output.weight" => (0..N_VOCAB).for_each(|token| {
                let row = successor(token as u32) as usize;
                matrix[row * N_EMBD + token] = LOGIT / (N_EMBD as f32).sqrt();
            }),
            _ => {}
        }
        data.write(name, &bytes(&matrix)).unwrap();
    }
    for name in norms {
        data.write(name, &bytes(&[1.0; N_EMBD])).unwrap();
    }
    data.finish().unwrap()
}

/// The character that stands for a byte in GPT-2's vocabulary: itself if printable, else one from 256 on.
fn byte_character(byte: u8) -> char {
    let is_printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if is_printable(byte) {
        return byte.into();
    }
    let n_before = (0..byte).filter(|b| !is_printable(*b)).count() as u32;
    char::from_u32(256 + n_before).unwrap()
}
