//! `metallic inspect` and `metallic logits` on a model whose content is known.

use std::fs;

use serde_json::Value;

use crate::alphabet;
use crate::sandbox::Sandbox;

#[test]
fn tables_show_header_metadata_tensors_and_types() {
    let sandbox = Sandbox::new("inspect-text");
    let n_bytes = alphabet::model().len();
    sandbox.write("a.gguf", alphabet::model());
    let text = sandbox.run(&["inspect", "a.gguf"]).succeeds().stdout;
    for line in [
        "format    GGUF 3, little-endian, aligned to 32 bytes".to_owned(),
        format!("({n_bytes} bytes in 1 file)"),
        "general.name                            string       \"Alphabet\"".to_owned(),
        "tokenizer.ggml.tokens                   string[258]  [".to_owned(),
        "tokenizer.ggml.merges                   string[0]    []".to_owned(),
        "llama.attention.layer_norm_rms_epsilon  f32          0.000000001".to_owned(),
        "token_embd.weight         F32   288 x 258  297216  ".to_owned(),
        "blk.0.ffn_down.weight     F32   32 x 288    36864  ".to_owned(),
        "output_norm.weight        F32   288          1152  ".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() < 160), "long values are cut");
    let summary = text.lines().next_back().unwrap();
    assert!(summary.starts_with("F32        12  "), "{summary}");
}

#[test]
fn json_is_whole() {
    let sandbox = Sandbox::new("inspect-json");
    sandbox.write("a.gguf", alphabet::model());
    let json: Value =
        serde_json::from_str(&sandbox.run(&["inspect", "--json", "a.gguf"]).succeeds().stdout).unwrap();
    assert_eq!(json["version"], 3);
    assert_eq!(json["n_bytes"], alphabet::model().len());
    assert_eq!(json["metadata"]["general.name"]["value"], "Alphabet");
    assert_eq!(json["metadata"]["llama.block_count"]["type"], "u32");
    let tokens = &json["metadata"]["tokenizer.ggml.tokens"];
    assert_eq!((tokens["type"].as_str(), tokens["element_type"].as_str()), (Some("array"), Some("string")));
    assert_eq!(tokens["value"].as_array().unwrap().len(), alphabet::N_VOCAB);
    assert_eq!(tokens["value"][97], "a");
    let tensors = json["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 12);
    assert_eq!(tensors[0]["name"], "token_embd.weight");
    assert_eq!(tensors[0]["shape"], serde_json::json!([288, 258]));
    assert_eq!(tensors[0]["type"], "F32");
    let offset = tensors[0]["offset"].as_u64().unwrap() as usize;
    assert_eq!(alphabet::model()[offset..offset + 4], 1_f32.to_le_bytes());
}

#[test]
fn check_names_tensors_that_no_code_uses() {
    let sandbox = Sandbox::new("inspect-check");
    sandbox.write("a.gguf", alphabet::model());
    let all = sandbox.run(&["inspect", "--check", "a.gguf"]).succeeds().stdout;
    assert_eq!(all, "this model runs, and each of its 12 tensors is used\n");

    let spare = ("blk.0.spare.weight", Some(&[4][..]));
    let file = metallic::testing::edited(&alphabet::model(), &[], &[spare]).unwrap();
    sandbox.write("spare.gguf", file);
    let spare = sandbox.run(&["inspect", "--check", "spare.gguf"]).succeeds().stdout;
    assert_eq!(spare, "this model runs; of its 13 tensors, no code uses 1:\n  blk.0.spare.weight\n");

    let lacking = [("blk.0.attn_q.weight", None), ("blk.0.ffn_up.weight", None)];
    let file = metallic::testing::edited(&alphabet::model(), &[], &lacking).unwrap();
    sandbox.write("lacking.gguf", file);
    let outcome = sandbox.run(&["inspect", "--check", "lacking.gguf"]);
    let message = outcome.fails(3);
    assert!(message.contains("missing, blk.0.attn_q.weight, blk.0.ffn_up.weight:"), "{message}");
}

#[test]
fn hostile_names_and_values_stay_on_their_line() {
    let mut file = metallic_gguf::GgufWriter::new();
    file.set("general.name", "a\nb\x1b[2J").unwrap();
    file.set("bytes", metallic_gguf::Value::String(b"\xff\x00")).unwrap();
    file.set("nan", f32::NAN).unwrap();
    let sandbox = Sandbox::new("inspect-hostile");
    sandbox.write("a.gguf", file.begin(Vec::new()).unwrap().finish().unwrap());
    let text = sandbox.run(&["inspect", "a.gguf"]).succeeds().stdout;
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.contains(r#""a\nb\u{1b}[2J""#) && text.contains(r#"b"\xff\x00""#), "{text}");
    let json: Value =
        serde_json::from_str(&sandbox.run(&["inspect", "--json", "a.gguf"]).succeeds().stdout).unwrap();
    assert_eq!(json["metadata"]["general.name"]["value"], "a\nb\x1b[2J");
    assert_eq!(json["metadata"]["bytes"]["value"]["hex"], "ff00");
    assert_eq!(json["metadata"]["nan"]["value"], Value::Null);
}

#[test]
fn shards_are_shown_together_or_alone() {
    let mut file = metallic_gguf::GgufWriter::new();
    for name in ["one", "two"] {
        file.tensor(name, metallic_gguf::GgmlType::F32, &[8]).unwrap();
    }
    let sandbox = Sandbox::new("inspect-shards");
    for (shard, name) in file.split(32).unwrap().into_iter().zip(["one", "two"]) {
        let no = if name == "one" { 1 } else { 2 };
        let mut data = shard.begin(Vec::new()).unwrap();
        data.write(name, &[0; 32]).unwrap();
        sandbox.write(&format!("m-0000{no}-of-00002.gguf"), data.finish().unwrap());
    }
    let whole = sandbox.run(&["inspect", "m-00002-of-00002.gguf"]).succeeds();
    assert!(whole.stdout.contains("in 2 files") && whole.stdout.contains("2 tensors"), "{whole:?}");
    fs::remove_file(sandbox.path("m-00001-of-00002.gguf")).unwrap();
    let alone = sandbox.run(&["inspect", "m-00002-of-00002.gguf"]).succeeds();
    assert!(alone.stdout.contains("1 tensors") && alone.stderr.contains("this shard alone"), "{alone:?}");
}

#[test]
fn logits_are_raw_floats_in_order() {
    let sandbox = Sandbox::new("logits");
    sandbox.write("a.gguf", alphabet::model());
    // A batch smaller than the number of tokens must not change their order.
    sandbox
        .run(&["logits", "a.gguf", "--tokens", "97,10,122", "--out", "l.f32", "-b", "2", "-t", "1"])
        .succeeds();
    let bytes = fs::read(sandbox.path("l.f32")).unwrap();
    let (floats, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty() && floats.len() == 3 * alphabet::N_VOCAB);
    for (row, token) in floats.chunks(alphabet::N_VOCAB).zip([97, 10, 122]) {
        for (id, logit) in row.iter().enumerate() {
            let expected = if id as u32 == alphabet::successor(token) { alphabet::LOGIT } else { 0.0 };
            assert!((f32::from_le_bytes(*logit) - expected).abs() < 1e-3, "{token} {id}");
        }
    }
}

#[test]
fn logits_refuse_what_they_cannot_do() {
    let sandbox = Sandbox::new("logits-wrong");
    sandbox.write("a.gguf", alphabet::model());
    let outside = sandbox.run(&["logits", "a.gguf", "--tokens", "1,258", "--out", "l.f32"]);
    assert!(outside.fails(1).contains("258"), "{outside:?}");
    let nowhere = sandbox.run(&["logits", "a.gguf", "--tokens", "1", "--out", "no/folder/l.f32"]);
    assert!(nowhere.fails(1).contains("no/folder/l.f32"), "{nowhere:?}");
    let too_many = sandbox.run(&["logits", "a.gguf", "--tokens", "1,2,3", "-c", "2", "--out", "l.f32"]);
    too_many.fails(1);
}
