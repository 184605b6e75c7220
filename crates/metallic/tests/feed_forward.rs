//! The example's network, against values computed by hand.

#[path = "../examples/feed_forward.rs"]
mod example;

use metallic::GgufFile;

const HIDDEN: &[f32] = &[1.0, 2.0, -1.0, 0.5, 0.0, -3.0];
const HIDDEN_BIAS: &[f32] = &[0.0, 1.0, 0.5];
const OUTPUT: &[f32] = &[0.5, 1.0, -1.0, 2.0, 0.0, 4.0];
const OUTPUT_BIAS: &[f32] = &[0.25, -1.0];

#[test]
fn weights_biases_and_outputs_are_as_computed_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.gguf");
    example::write(
        &path,
        &[
            ("layer one: W", &[2, 3], HIDDEN),
            ("layer one: b", &[3], HIDDEN_BIAS),
            ("层.2", &[3, 2], OUTPUT),
            ("bias of the second", &[2], OUTPUT_BIAS),
        ],
    )
    .unwrap();

    let file = GgufFile::open(&path).unwrap();
    let gguf = file.gguf();
    for (name, expected) in [
        ("layer one: W", HIDDEN),
        ("layer one: b", HIDDEN_BIAS),
        ("层.2", OUTPUT),
        ("bias of the second", OUTPUT_BIAS),
    ] {
        assert_eq!(file.floats(&gguf.tensor(name).unwrap()).unwrap(), expected, "{name}");
    }
    assert_eq!(gguf.tensor("layer one: W").unwrap().shape(), [2, 3]);

    let names = [("layer one: W", "layer one: b"), ("层.2", "bias of the second")];
    let mut network = example::FeedForward::load(&path, &names).unwrap();
    // Hidden for (2, 3): 1·2 + 2·3 + 0 = 8; −1·2 + 0.5·3 + 1 = 0.5; −3·3 + 0.5 = −8.5, cut to 0.
    // Output: 0.5·8 + 1·0.5 − 0 + 0.25 = 4.75; 2·8 + 0 + 0 − 1 = 15.
    assert_eq!(network.run(&[2.0, 3.0]).unwrap(), [4.75, 15.0]);
    // Hidden for (−1, 0): −1, cut to 0; 1 + 1 = 2; 0.5. Output: 2 − 0.5 + 0.25 = 1.75; 0 + 0 + 2 − 1 = 1.
    assert_eq!(network.run(&[-1.0, 0.0]).unwrap(), [1.75, 1.0]);
}

#[test]
fn a_missing_name_is_an_error_that_says_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.gguf");
    example::write(&path, &[("w", &[1, 1], &[1.0])]).unwrap();
    let error = example::FeedForward::load(&path, &[("w", "b")]).err().unwrap();
    assert_eq!(error.to_string(), "no tensor b");
}
