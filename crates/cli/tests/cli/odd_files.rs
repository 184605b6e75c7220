//! Files with something wrong that no prompt needs: they run, and each thing is told once.

use metallic::testing::edited;
use metallic_gguf::{ArrayBuf, Value, ValueType};

use crate::alphabet::{self, Options};
use crate::sandbox::Sandbox;

#[test]
fn what_a_file_has_wrong_is_told_once() {
    let sandbox = Sandbox::new("odd-told-once");
    let merges = ArrayBuf::new(ValueType::String, ["no merge", "not_one"]).unwrap();
    let keys = [
        ("split.no", Some(0_u16.into())),
        ("split.count", Some(0_u16.into())),
        ("split.tensors.count", Some(7_i32.into())),
        ("tokenizer.ggml.eot_token_id", Some(u32::MAX.into())),
        ("tokenizer.ggml.eom_token_id", Some((-1_i32).into())),
        ("tokenizer.ggml.merges", Some(Value::Array(merges.as_array()))),
        ("llama.from_the_future", Some(1_u32.into())),
    ];
    let file = edited(&alphabet::model(), &keys, &[("blk.0.spare.weight", Some(&[4]))]).unwrap();
    sandbox.write("odd-00002-of-00003.gguf", file);
    let args = ["run", "-m", "odd-00002-of-00003.gguf", "--raw", "--temp", "0", "-n", "5", "abc"];
    let outcome = sandbox.run(&args).succeeds();
    assert_eq!(outcome.stdout, "defgh\n");
    for word in ["eot_token_id", "eom_token_id", "2 merge(s)", "llama.from_the_future", "blk.*.spare.weight"]
    {
        let lines: Vec<_> = outcome.stderr.lines().filter(|line| line.contains(word)).collect();
        let [line] = lines.as_slice() else { panic!("{word}: {}", outcome.stderr) };
        assert!(line.contains("WARN"), "{line}");
    }
}

#[test]
fn a_text_that_begins_with_bos_gets_no_second_one() {
    let sandbox = Sandbox::new("odd-bos");
    sandbox.write("a.gguf", alphabet::model_with(Options { add_bos: true, ..Options::default() }));
    let ids = |args: &[&str]| {
        let args = [&["tokenize", "a.gguf", "--ids"], args].concat();
        sandbox.run(&args).succeeds().stdout
    };
    assert_eq!(ids(&["hi"]), "[256, 104, 105]\n");
    assert_eq!(ids(&["<|im_start|>hi"]), "[256, 104, 105]\n");
    assert_eq!(ids(&["--no-bos", "hi"]), "[104, 105]\n");
    assert!(ids(&["--no-special", "<|im_start|>hi"]).starts_with("[256, 60, "), "as text it is no BOS");
    let outcome = sandbox.run(&["run", "-m", "a.gguf", "--raw", "-n", "1", "<|im_start|>hi"]).succeeds();
    assert!(outcome.stderr.contains("prefill 3 tokens"), "{}", outcome.stderr);
}

#[test]
fn inspect_names_keys_that_no_code_reads() {
    let sandbox = Sandbox::new("odd-inspect");
    let keys = [("llama.residual_scale", Some(0.5_f32.into()))];
    sandbox.write("a.gguf", edited(&alphabet::model(), &keys, &[]).unwrap());
    let text = sandbox.run(&["inspect", "--check", "a.gguf"]).succeeds().stdout;
    let told = "of its keys, no code reads 1 that may change what it computes:\n  llama.residual_scale\n";
    assert_eq!(text, format!("this model runs, and each of its 12 tensors is used\n{told}"));
}
