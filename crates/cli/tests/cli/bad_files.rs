//! Files that are no models: each command that reads one says so in a line and ends with its code.

use crate::alphabet::{self, Options};
use crate::sandbox::Sandbox;

/// The commands that read a model; the file's name goes at the end.
const COMMANDS: [&[&str]; 3] = [&["inspect"], &["tokenize", "--ids"], &["run", "-p", "a", "-n", "1", "-m"]];

fn all_fail(sandbox: &Sandbox, file: &str, code: i32, words: &str) {
    for command in COMMANDS {
        let outcome = sandbox.run(&[command, &[file]].concat());
        let line = outcome.fails(code);
        assert!(line.contains(words) && line.contains(file), "{command:?}: {line}");
        assert_eq!(outcome.stdout, "", "{command:?}");
    }
}

#[test]
fn files_of_another_kind() {
    let sandbox = Sandbox::new("bad-kind");
    sandbox.write("image.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0");
    all_fail(&sandbox, "image.png", 3, "not a GGUF file");
    sandbox.write("text.gguf", "GGUF is a format\n".repeat(100));
    all_fail(&sandbox, "text.gguf", 3, "text.gguf");
    sandbox.write("empty.gguf", "");
    all_fail(&sandbox, "empty.gguf", 3, "empty.gguf");
    std::fs::create_dir(sandbox.path("folder")).unwrap();
    all_fail(&sandbox, "folder", 3, "directory");
    all_fail(&sandbox, "no-such-file.gguf", 4, "no-such-file.gguf");
    #[cfg(unix)]
    {
        // Nobody writes to it: to open it would wait for ever.
        std::process::Command::new("mkfifo").arg(sandbox.path("pipe.gguf")).status().unwrap();
        all_fail(&sandbox, "pipe.gguf", 3, "a pipe");
    }
}

#[test]
fn files_cut_short_anywhere() {
    let sandbox = Sandbox::new("bad-cut");
    let whole = alphabet::model();
    for n_bytes in [1, 4, 8, 23, 24, 100, 2000, 8000, 9000, 20_000, whole.len() / 2, whole.len() - 33] {
        sandbox.write("cut.gguf", &whole[..n_bytes]);
        all_fail(&sandbox, "cut.gguf", 3, "cut.gguf");
    }
}

#[test]
fn flipped_bits_in_the_header() {
    let sandbox = Sandbox::new("bad-header");
    let whole = alphabet::model();
    // Magic, version, number of tensors and number of metadata keys, 24 bytes in all.
    for bit in 0..24 * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        sandbox.write("flipped.gguf", &flipped);
        // Version 2 and 3 differ in nothing but byte order: that flip makes another valid file.
        if bit / 8 == 4 && flipped[4] == 2 {
            continue;
        }
        for command in COMMANDS {
            let outcome = sandbox.run(&[command, &["flipped.gguf"]].concat());
            // With fewer tensors it is well-formed, though not as a language model.
            let fewer_tensors = (8..16).contains(&(bit / 8)) && flipped[bit / 8] < whole[bit / 8];
            if fewer_tensors && command[0] != "run" {
                outcome.succeeds();
            } else {
                outcome.fails(3);
            }
        }
    }
}

#[test]
fn flipped_bits_in_metadata_and_directory() {
    let sandbox = Sandbox::new("bad-directory");
    let whole = alphabet::model();
    let model = metallic_gguf::Gguf::parse(&whole).unwrap();
    let data_start = model.tensors().map(|tensor| tensor.file_offset()).min().unwrap() as usize;
    let mut n_refused = 0;
    for at in (24..data_start).step_by(61) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x80;
        sandbox.write("flipped.gguf", &flipped);
        for command in COMMANDS {
            let outcome = sandbox.run(&[command, &["flipped.gguf"]].concat());
            match outcome.code {
                // The flip is in a text that this command has no use for.
                Some(0) => {}
                // A context length or a batch that is now enormous is a well-formed wish.
                Some(1 | 3) => {
                    let line = outcome.fails(outcome.code.unwrap());
                    n_refused += 1;
                    assert!(!line.contains("a bug in metallic"), "{at}: {line}");
                }
                _ => panic!("{at} {command:?}: {outcome:?}"),
            }
        }
    }
    assert!(n_refused > 20, "only {n_refused} of the flips were noticed");
}

#[test]
fn architectures_nobody_knows() {
    let sandbox = Sandbox::new("bad-architecture");
    sandbox
        .write("other.gguf", alphabet::model_with(Options { architecture: "nosuch", ..Options::default() }));
    sandbox.run(&["inspect", "other.gguf"]).succeeds();
    let outcome = sandbox.run(&["run", "-m", "other.gguf", "a"]);
    let line = outcome.fails(3);
    assert!(line.contains("\"nosuch\" is not supported") && line.contains("llama"), "{line}");
}
