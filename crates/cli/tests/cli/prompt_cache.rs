//! `run --prompt-cache`: what was read once is not read again, with the same answer.

use std::fs;

use crate::sandbox::{Outcome, Sandbox};

const PROMPT: &str = "a prompt that is kept, because it is long";

fn sandbox(test: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write("tiny.gguf", metallic::testing::tiny_model().unwrap());
    sandbox
}

fn run(sandbox: &Sandbox, prompt: &str, more: &[&str]) -> Outcome {
    let args =
        ["run", "-m", "tiny.gguf", "--raw", "--temp", "0", "-n", "12", "-c", "128", "--prompt-cache", "kept"];
    sandbox.run(&[&args[..], more, &["--", prompt]].concat())
}

/// Tokens that were cached.
fn n_cached(outcome: &Outcome) -> usize {
    let line = outcome.stderr.lines().find(|line| line.starts_with("prefill ")).unwrap();
    let cached = line.split_once('(').and_then(|(_, rest)| rest.split_once(" more were cached"));
    cached.map_or(0, |(number, _)| number.parse().unwrap())
}

#[test]
fn a_prompt_is_read_once() {
    let sandbox = sandbox("prompt-cache");
    let n_prompt = PROMPT.len() + 1;
    let first = run(&sandbox, PROMPT, &[]).succeeds();
    assert!(first.stderr.contains(&format!("kept {n_prompt} tokens in kept")), "{first:?}");
    let kept = fs::read(sandbox.path("kept")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(sandbox.path("kept")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "its owner's alone");
    }
    let again = run(&sandbox, PROMPT, &["--exact"]).succeeds();
    assert_eq!((&again.stdout, n_cached(&again)), (&first.stdout, n_prompt - 1));
    assert_eq!(fs::read(sandbox.path("kept")).unwrap(), kept, "nothing new, so it stays as it is");

    let longer = format!("{PROMPT} and longer");
    let plain = ["run", "-m", "tiny.gguf", "--raw", "--temp", "0", "-n", "12", "-c", "128", "--", &longer];
    let expected = sandbox.run(&plain).succeeds().stdout;
    let read_only = run(&sandbox, &longer, &["--prompt-cache-ro", "--exact"]).succeeds();
    assert_eq!(read_only.stdout, expected);
    assert_eq!(fs::read(sandbox.path("kept")).unwrap(), kept);
    let updated = run(&sandbox, &longer, &[]).succeeds();
    assert_eq!((&updated.stdout, n_cached(&updated)), (&expected, n_prompt));
    assert!(updated.stderr.contains(&format!("kept {} tokens", longer.len() + 1)), "{updated:?}");

    let all = run(&sandbox, PROMPT, &["--prompt-cache-all"]).succeeds();
    assert!(all.stderr.contains(&format!("kept {} tokens", n_prompt + 11)), "{all:?}");
    let on = run(&sandbox, &longer, &["--prompt-cache-ro"]).succeeds();
    assert_eq!(n_cached(&on), n_prompt, "the answer was another text");
    assert_eq!(sandbox.names(".").iter().filter(|name| name.contains("partial")).count(), 0);
}

#[test]
fn a_file_that_does_not_fit_is_an_error_and_stays() {
    let sandbox = sandbox("prompt-cache-unfit");
    let plain = run(&sandbox, PROMPT, &[]).succeeds().stdout;
    let kept = fs::read(sandbox.path("kept")).unwrap();
    let fails = |more: &[&str], said: &str| {
        let outcome = run(&sandbox, PROMPT, more);
        let error = outcome.fails(2);
        assert!(error.contains(said) && error.contains("--prompt-cache-lenient"), "{error}");
    };
    fails(&["--kv-type", "q8_0"], "has keys and values of type");
    fails(&["--isa", "scalar"], "is computed by");
    let mut damaged = kept.clone();
    damaged[5000] ^= 1;
    fs::write(sandbox.path("kept"), &damaged).unwrap();
    fails(&[], "it is damaged");
    assert_eq!(fs::read(sandbox.path("kept")).unwrap(), damaged);
    let lenient = run(&sandbox, PROMPT, &["--prompt-cache-lenient"]).succeeds();
    assert!(lenient.stderr.contains("the prompt is read anew: kept can't be gone on from"), "{lenient:?}");
    assert_eq!((lenient.stdout, n_cached(&run(&sandbox, PROMPT, &[]).succeeds())), (plain, PROMPT.len()));

    // Another's file is not taken for one, nor written over.
    sandbox.write("kept", "notes");
    fails(&[], "it has been cut short");
    assert_eq!(fs::read(sandbox.path("kept")).unwrap(), b"notes");

    fs::remove_file(sandbox.path("kept")).unwrap();
    let outcome = run(&sandbox, PROMPT, &["--prompt-cache-ro"]);
    assert!(outcome.fails(2).contains("there is no kept"));
    assert!(!sandbox.path("kept").exists());
    let onto = ["run", "-m", "tiny.gguf", "--raw", "--prompt-cache", "tiny.gguf", "--", "a"];
    assert!(sandbox.run(&onto).fails(2).contains("tiny.gguf"));
}

/// A disk that is full costs the file alone, which was told, and leaves no piece of it.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_piece_of_a_file() {
    let sandbox = sandbox("prompt-cache-full");
    let args = [
        "run",
        "-m",
        "tiny.gguf",
        "--raw",
        "-n",
        "4",
        "-c",
        "128",
        "--prompt-cache",
        "small/kept",
        "--",
        "a",
    ];
    let setup = "head -c 1040000 /dev/zero > small/other";
    let Some(outcome) = sandbox.run_on_a_small_disk(setup, &args, "small") else {
        println!("skipped: no file system can be made here");
        return;
    };
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("can't write small/kept"), "{outcome:?}");
    assert!(!outcome.stderr.contains("partial"), "{outcome:?}");
}
