//! `metallic align`: the same model with its tensors elsewhere in the file.

use std::fs;

use metallic_gguf::{ArrayBuf, GgmlType, Gguf, GgufWriter, Value, ValueType};

use crate::alphabet;
use crate::sandbox::Sandbox;
#[cfg(unix)]
use crate::sandbox::{kill, outcome, wait_for};

/// Tensors of awkward sizes, in two shards of which each has metadata of its own.
pub(crate) fn shards() -> [Vec<u8>; 2] {
    let mut file = GgufWriter::new();
    file.set("general.architecture", "llama").unwrap();
    for (name, len) in [("one", 3), ("two", 1500), ("none", 0), ("three", 1024)] {
        file.tensor(name, GgmlType::F32, &[len]).unwrap();
    }
    let mut shards: Vec<_> = file.split(8000).unwrap();
    assert_eq!(shards.len(), 2);
    shards[1].set("of.the.second", 2_u8).unwrap();
    let mut shards = shards.into_iter().map(|shard| shard.begin(Vec::new()).unwrap());
    let (mut first, mut second) = (shards.next().unwrap(), shards.next().unwrap());
    first.write("one", &[1; 3 * 4]).unwrap();
    first.write("two", &[2; 1500 * 4]).unwrap();
    second.write("three", &[3; 1024 * 4]).unwrap();
    [first.finish().unwrap(), second.finish().unwrap()]
}

/// Checks that `found` differs from `expected` in nothing but its alignment.
#[track_caller]
fn assert_aligned(expected: &[u8], found: &[u8], alignment: u64) {
    let (expected, found) = (Gguf::parse(expected).unwrap(), Gguf::parse(found).unwrap());
    assert_eq!(found.alignment(), alignment);
    let metadata = |gguf: &Gguf<'_>| -> Vec<String> {
        let metadata = gguf.metadata();
        let others = metadata.iter().filter(|(key, _)| *key != "general.alignment");
        others.map(|(key, value)| format!("{key} {} {value:?}", value.value_type())).collect()
    };
    assert_eq!(metadata(&expected), metadata(&found));
    assert_eq!(expected.tensors().len(), found.tensors().len());
    for (a, b) in expected.tensors().zip(found.tensors()) {
        assert_eq!((a.name(), a.ggml_type(), a.shape()), (b.name(), b.ggml_type(), b.shape()));
        assert!(a.data() == b.data(), "{}", a.name());
        assert!(b.n_bytes() == 0 || b.file_offset().is_multiple_of(alignment), "{b:?}");
    }
}

#[test]
fn an_aligned_model_says_the_same() {
    let sandbox = Sandbox::new("align");
    sandbox.write("a.gguf", alphabet::model());
    fs::create_dir(sandbox.path("out")).unwrap();
    let outcome = sandbox.run(&["align", "a.gguf", "out/b.gguf"]).succeeds();
    assert_eq!(outcome.stdout, "");
    assert!(outcome.stderr.contains("aligned to 4096 bytes"), "{outcome:?}");
    assert_aligned(&alphabet::model(), &fs::read(sandbox.path("out/b.gguf")).unwrap(), 4096);
    for (model, logits) in [("a.gguf", "a.f32"), ("out/b.gguf", "b.f32")] {
        sandbox.run(&["logits", model, "--tokens", "97,10,122", "--out", logits]).succeeds();
    }
    assert_eq!(fs::read(sandbox.path("a.f32")).unwrap(), fs::read(sandbox.path("b.f32")).unwrap());

    // And back: the stated alignment changes where it stands.
    sandbox.run(&["align", "out/b.gguf", "out/c.gguf", "--alignment", "32B"]).succeeds();
    assert_aligned(&alphabet::model(), &fs::read(sandbox.path("out/c.gguf")).unwrap(), 32);
    assert_eq!(sandbox.names("out"), ["b.gguf", "c.gguf"]);
}

#[test]
fn odd_values_survive_to_the_bit() {
    let mut file = GgufWriter::new();
    file.set("nan", f32::from_bits(0x7fc0_1234)).unwrap().set("bytes", Value::String(b"\xff\x00")).unwrap();
    let nans = ArrayBuf::new(ValueType::F64, [f64::from_bits(0xfff8_0000_0000_0001), -0.0]).unwrap();
    file.set("nested", &ArrayBuf::new(ValueType::Array, [&nans, &nans]).unwrap()).unwrap();
    file.set("general.alignment", 64_u32).unwrap().set("last", true).unwrap();
    let sandbox = Sandbox::new("align-odd");
    let bytes = file.begin(Vec::new()).unwrap().finish().unwrap();
    sandbox.write("a.gguf", &bytes);
    sandbox.run(&["align", "a.gguf", "b.gguf"]).succeeds();
    // Nothing but the four bytes of the alignment and the padding may differ.
    let mut expected = bytes.clone();
    let at = bytes.windows(17).position(|w| w == b"general.alignment").unwrap() + 17 + 4;
    expected[at..at + 4].copy_from_slice(&4096_u32.to_le_bytes());
    let written = fs::read(sandbox.path("b.gguf")).unwrap();
    let end = at + 4 + 8 + 4 + 4 + 1;
    assert_eq!(written[..end], expected[..end]);
    assert!(written.len() == 4096 && written[end..].iter().all(|byte| *byte == 0));
}

#[test]
fn all_shards_are_aligned() {
    let sandbox = Sandbox::new("align-shards");
    let shards = shards();
    sandbox.write("m-00001-of-00002.gguf", &shards[0]);
    sandbox.write("m-00002-of-00002.gguf", &shards[1]);
    fs::create_dir(sandbox.path("out")).unwrap();
    for out in ["out/x.gguf", "out/y-00002-of-00002.gguf"] {
        sandbox.run(&["align", "m-00002-of-00002.gguf", out]).succeeds();
    }
    let names = sandbox.names("out");
    let expected = ["x-00001-of-00002", "x-00002-of-00002", "y-00001-of-00002", "y-00002-of-00002"];
    assert_eq!(names, expected.map(|name| format!("{name}.gguf")));
    for (name, shard) in names.iter().zip(shards.iter().cycle()) {
        assert_aligned(shard, &fs::read(sandbox.path("out").join(name)).unwrap(), 4096);
    }
    assert!(sandbox.run(&["inspect", "out/x-00001-of-00002.gguf"]).succeeds().stdout.contains("in 2 files"));

    let other_count = sandbox.run(&["align", "m-00001-of-00002.gguf", "z-00001-of-00003.gguf"]);
    assert!(other_count.fails(2).contains("name of a shard"), "{other_count:?}");
    let taken = sandbox.run(&["align", "m-00001-of-00002.gguf", "out/x.gguf"]);
    assert!(taken.fails(2).contains("x-00001-of-00002.gguf exists"), "{taken:?}");
    let itself = sandbox.run(&["align", "m-00001-of-00002.gguf", "m.gguf"]);
    assert!(itself.fails(2).contains("is the model itself"), "{itself:?}");
    fs::remove_file(sandbox.path("m-00002-of-00002.gguf")).unwrap();
    let half = sandbox.run(&["align", "m-00001-of-00002.gguf", "z.gguf"]);
    assert!(half.fails(4).contains("m-00002-of-00002.gguf"), "{half:?}");
}

#[test]
fn what_is_there_is_not_overwritten_unless_asked_for() {
    let sandbox = Sandbox::new("align-exists");
    sandbox.write("a.gguf", alphabet::model());
    sandbox.write("b.gguf", "mine");
    let taken = sandbox.run(&["align", "a.gguf", "b.gguf"]);
    assert!(taken.fails(2).contains("b.gguf exists already"), "{taken:?}");
    assert_eq!(fs::read(sandbox.path("b.gguf")).unwrap(), b"mine");
    fs::create_dir(sandbox.path("folder")).unwrap();
    for itself in ["a.gguf", "folder/../a.gguf"] {
        for force in [&[][..], &["--force"]] {
            let outcome = sandbox.run(&[&["align", "a.gguf", itself], force].concat());
            assert!(outcome.fails(2).contains("is the model itself"), "{outcome:?}");
        }
    }
    assert_eq!(fs::read(sandbox.path("a.gguf")).unwrap(), alphabet::model());
    sandbox.run(&["align", "a.gguf", "b.gguf", "--force"]).succeeds();
    assert_aligned(&alphabet::model(), &fs::read(sandbox.path("b.gguf")).unwrap(), 4096);
    sandbox.run(&["align", "a.gguf", "folder"]).fails(2);
    let nowhere = sandbox.run(&["align", "a.gguf", "no/folder/b.gguf"]);
    assert!(nowhere.fails(1).contains("no/folder/b.gguf"), "{nowhere:?}");
}

#[test]
fn what_is_no_model_is_refused() {
    let sandbox = Sandbox::new("align-bad");
    let whole = alphabet::model();
    sandbox.write("cut.gguf", &whole[..whole.len() - 33]);
    sandbox.write("text.gguf", "GGUF is a format");
    let big: &[u8] = include_bytes!("../../../gguf/tests/data/python_big.bin");
    sandbox.write("big.gguf", big);
    for (file, words) in [("cut.gguf", "cut.gguf"), ("text.gguf", "not"), ("big.gguf", "big-endian")] {
        let outcome = sandbox.run(&["align", file, "out.gguf"]);
        assert!(outcome.fails(3).contains(words), "{outcome:?}");
    }
    sandbox.run(&["align", "no.gguf", "out.gguf"]).fails(4);
    assert_eq!(sandbox.names(""), ["big.gguf", "bin", "cut.gguf", "text.gguf"]);
}

/// A file system of one megabyte, where the machine lets us make one.
#[cfg(unix)]
#[test]
fn a_full_disk_is_one_error_and_leaves_nothing() {
    let sandbox = Sandbox::new("align-full");
    let mut file = GgufWriter::new();
    file.tensor("large", GgmlType::F32, &[1 << 20]).unwrap();
    let mut data = file.begin(Vec::new()).unwrap();
    data.write("large", &vec![1; 4 << 20]).unwrap();
    sandbox.write("a.gguf", data.finish().unwrap());
    let Some(outcome) = sandbox.run_on_a_small_disk("", &["align", "a.gguf", "small/b.gguf"], "small") else {
        println!("skipped: this machine doesn't let a test mount a small file system");
        return;
    };
    assert!(outcome.fails(1).contains("free some space"), "{outcome:?}");
}

#[cfg(unix)]
#[test]
fn signals_leave_nothing() {
    let sandbox = Sandbox::new("align-signals");
    write_huge(&sandbox, 16 << 30);
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let child = sandbox.spawn(&["align", "a.gguf", "out/b.gguf"]);
        wait_for("the temporary file", || !sandbox.names("out").is_empty());
        kill(signal, &child);
        let outcome = outcome(child.wait_with_output().unwrap());
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert_eq!(sandbox.names("out"), [""; 0], "{signal}");
    }
}

/// A model of a hole, which takes time to copy and no room on the disk; and a folder for the copy.
#[cfg(unix)]
fn write_huge(sandbox: &Sandbox, n_bytes: u64) {
    let mut file = GgufWriter::new();
    file.tensor("huge", GgmlType::F32, &[n_bytes / 4]).unwrap();
    let mut header = Vec::new();
    file.begin(&mut header).unwrap();
    let path = sandbox.write("a.gguf", &header);
    fs::File::options().append(true).open(path).unwrap().set_len(header.len() as u64 + n_bytes).unwrap();
    fs::create_dir(sandbox.path("out")).unwrap();
}

/// Read again, a copy of a mixture of the old and the new would be the same as the new.
#[cfg(unix)]
#[test]
fn a_file_that_is_overwritten_meanwhile_is_not_copied() {
    use std::os::unix::fs::FileExt as _;

    let sandbox = Sandbox::new("align-overwritten");
    write_huge(&sandbox, 1 << 30);
    let child = sandbox.spawn(&["align", "a.gguf", "out/b.gguf"]);
    wait_for("the temporary file", || !sandbox.names("out").is_empty());
    let file = fs::File::options().write(true).open(sandbox.path("a.gguf")).unwrap();
    file.write_at(&[7; 4096], (1 << 30) - 4096).unwrap();
    let outcome = outcome(child.wait_with_output().unwrap());
    assert!(outcome.fails(5).contains("a.gguf was written to"), "{outcome:?}");
    assert_eq!(sandbox.names("out"), [""; 0]);
}
