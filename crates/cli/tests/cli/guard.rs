//! What can go wrong with memory and with the file while a model runs, and what is told of both.

use serde_json::Value;

use crate::sandbox::Sandbox;

/// A sandbox with a mixture of experts, and a budget in bytes within which some of its experts are cached.
fn sandbox(test: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new(test);
    sandbox.write("m.gguf", metallic::testing::tiny_mixture().unwrap());
    let error = sandbox.run(&["plan", "m.gguf", "-c", "64", "-b", "8", "--ram", "1MiB"]).fails(1).to_owned();
    let floor: u64 = error.split('(').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    (sandbox, (floor + (1 << 20)).to_string())
}

const RUN: [&str; 12] = ["run", "-m", "m.gguf", "--raw", "--temp", "0", "-n", "12", "-c", "64", "-b", "8"];

/// The line of `--stats` that begins so.
fn line<'a>(stderr: &'a str, beginning: &str) -> &'a str {
    stderr.lines().find(|line| line.starts_with(beginning)).unwrap_or_else(|| panic!("{beginning}: {stderr}"))
}

#[test]
fn stats_tell_of_disk_experts_and_memory() {
    let (sandbox, ram) = sandbox("guard-stats");
    let within = sandbox.run(&[&RUN[..], &["--ram", &ram, "--stats", "abc"]].concat()).succeeds();
    assert!(line(&within.stderr, "disk: ").contains(" s spent waiting for it"), "{within:?}");
    assert!(line(&within.stderr, "experts: ").contains(" % of their bytes were in memory; "), "{within:?}");
    assert!(line(&within.stderr, "memory: ").contains("peak "), "{within:?}");
    let all = sandbox.run(&[&RUN[..], &["--stats", "abc"]].concat()).succeeds();
    assert_eq!(line(&all.stderr, "disk: "), "disk: all weights are in memory");
    assert_eq!(all.stdout, within.stdout);
    let quiet = sandbox.run(&[&RUN[..], &["--ram", &ram, "abc"]].concat()).succeeds();
    assert!(!quiet.stderr.contains("disk: ") && !quiet.stderr.contains("experts: "), "{quiet:?}");
}

#[test]
fn a_benchmark_has_what_streaming_took() {
    let (sandbox, ram) = sandbox("guard-bench");
    let args = ["bench", "m.gguf", "--json", "-p", "0", "-n", "56", "-r", "1", "-t", "1", "--ram", &ram];
    let bench = |policy: &str| {
        let args = [&args[..], &["-b", "8", "--expert-policy", policy]].concat();
        let rows: Vec<Value> = serde_json::from_str(&sandbox.run(&args).succeeds().stdout).unwrap();
        rows[0].clone()
    };
    let row = bench("lru");
    let number = |field: &str| row[field].as_f64().unwrap_or_else(|| panic!("no {field} in {row}"));
    for field in
        ["expert_hits", "expert_misses", "disk_gb_s", "peak_memory_bytes", "streamed_bytes_per_token"]
    {
        assert!(number(field) > 0.0, "{field} in {row}");
    }
    assert!(number("major_faults") >= 0.0 && (0.0..1.0).contains(&number("expert_hit_rate")), "{row}");
    assert!((number("disk_share") * number("disk_gb_s") / number("streamed_gb_s") - 1.0).abs() < 1e-6);
    assert!(row["stream_reader"].is_string() && row["stream_direct"].is_boolean(), "{row}");
    // The same uses: the policy makes the difference.
    assert_ne!(bench("static")["expert_hits"], row["expert_hits"]);
}

/// Also where the file is lost at once and no engine can look: while a benchmark runs.
#[cfg(unix)]
#[test]
fn a_mapped_file_that_is_cut_short_is_named_and_has_its_exit_code() {
    use std::io::{BufRead as _, BufReader, Read as _};

    let (sandbox, _) = sandbox("guard-cut");
    let args = ["bench", "m.gguf", "-v", "-p", "0", "-n", "64", "-r", "1000000", "-t", "1", "--load", "map"];
    let mut child = sandbox.spawn(&args);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("loaded") {
        assert!(stderr.read_line(&mut seen).unwrap() > 0, "{seen}");
    }
    std::fs::File::options().write(true).open(sandbox.path("m.gguf")).unwrap().set_len(0).unwrap();
    stderr.read_to_string(&mut seen).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5), "{seen}");
    let last = seen.lines().next_back().unwrap();
    assert!(last.contains("error: ") && last.contains("m.gguf was cut short while it was in use"), "{seen}");
}

#[cfg(unix)]
#[test]
fn a_mapped_file_that_changes_between_answers_is_told_and_the_chat_goes_on() {
    use std::io::{BufRead as _, BufReader, Write as _};

    let sandbox = Sandbox::new("guard-chat");
    sandbox.write("a.gguf", crate::alphabet::model());
    let mut child = sandbox.spawn(&["chat", "-m", "a.gguf", "--temp", "0", "-q", "--load", "map"]);
    let (mut typed, mut said) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut ask = || {
        writeln!(typed, "hi").unwrap();
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{}\n", crate::run::ANSWER));
    };
    ask();
    let path = sandbox.path("a.gguf");
    let model = std::fs::read(&path).unwrap();
    std::fs::rename(&path, sandbox.path("b.gguf")).unwrap();
    std::fs::write(&path, model).unwrap();
    writeln!(typed, "hi").unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut error = String::new();
    errors.read_line(&mut error).unwrap();
    assert!(error.starts_with("error: ") && error.contains("a.gguf was replaced by another"), "{error}");
    std::fs::rename(sandbox.path("b.gguf"), &path).unwrap();
    writeln!(typed, "hi").unwrap();
    drop(typed);
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, format!("{}\n", crate::run::ANSWER));
    assert_eq!(child.wait().unwrap().code(), Some(5), "a turn failed");
}

#[test]
fn a_streamed_file_that_is_cut_short_has_the_same_exit_code() {
    let (sandbox, ram) = sandbox("guard-streamed");
    let args = ["bench", "m.gguf", "-v", "-p", "0", "-n", "64", "-r", "1000000", "-t", "1", "-b", "8"];
    let mut child = sandbox.spawn(&[&args[..], &["--ram", &ram, "--expert-policy", "static"]].concat());
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("loaded") {
        assert!(std::io::BufRead::read_line(&mut stderr, &mut seen).unwrap() > 0, "{seen}");
    }
    std::fs::File::options().write(true).open(sandbox.path("m.gguf")).unwrap().set_len(0).unwrap();
    std::io::Read::read_to_string(&mut stderr, &mut seen).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5), "{seen}");
    assert!(seen.lines().next_back().unwrap().contains("m.gguf"), "{seen}");
}

/// Changes a file in place, as `dd conv=notrunc` does, and nothing of what lies about it.
#[cfg(unix)]
fn overwrite(path: &std::path::Path) {
    use std::os::unix::fs::FileExt as _;

    let n_bytes = std::fs::metadata(path).unwrap().len();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&vec![0; n_bytes as usize / 2], n_bytes / 2).unwrap();
}

/// Runs a command until `begins` says that it is at work, overwrites its model and waits for its end.
#[cfg(unix)]
fn overwritten(sandbox: &Sandbox, args: &[&str], begins: &str) -> crate::sandbox::Outcome {
    use std::io::{BufRead as _, BufReader, Read as _};

    let mut child = sandbox.spawn(args);
    drop(child.stdin.take());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let (mut seen, mut stdout) = (String::new(), vec![0; 1]);
    if begins.is_empty() {
        child.stdout.as_mut().unwrap().read_exact(&mut stdout).unwrap();
    }
    while !seen.contains(begins) {
        assert!(stderr.read_line(&mut seen).unwrap() > 0, "{seen}");
    }
    overwrite(&sandbox.path("m.gguf"));
    let mut outcome = crate::sandbox::outcome(child.wait_with_output().unwrap());
    stderr.read_to_string(&mut seen).unwrap();
    outcome.stderr = seen;
    outcome
}

#[cfg(unix)]
#[test]
fn an_answer_from_a_file_that_is_overwritten_meanwhile_is_void() {
    let (sandbox, _) = sandbox("guard-overwritten");
    let args = ["run", "-m", "m.gguf", "--raw", "--temp", "0", "-n", "400", "-c", "512", "-b", "8", "abc"];
    let args = [&args[..], &["-t", "1", "--logit-bias", "257-inf"]].concat();
    let floor = sandbox.run(&[&args[..], &["--ram", "1MiB"]].concat()).fails(1).to_owned();
    let floor = floor.split('(').nth(1).unwrap().split(' ').next().unwrap();
    for how in [["--load", "map"], ["--ram", floor]] {
        sandbox.write("m.gguf", metallic::testing::tiny_mixture().unwrap());
        let outcome = overwritten(&sandbox, &[&args[..], &how].concat(), "");
        let line = outcome.fails(5);
        assert!(
            line.contains("m.gguf was written to") && line.ends_with("what was printed is void"),
            "{line}"
        );
    }
    // What was copied whole needs its file no more.
    sandbox.write("m.gguf", metallic::testing::tiny_mixture().unwrap());
    let expected = sandbox.run(&args).succeeds().stdout;
    let copied = overwritten(&sandbox, &[&args[..], &["--load", "slab"]].concat(), "").succeeds();
    assert!(expected.ends_with(&copied.stdout), "{copied:?}");
}

#[cfg(unix)]
#[test]
fn whatever_evaluates_tells_of_a_file_that_is_overwritten_meanwhile() {
    let (sandbox, ram) = sandbox("guard-evaluates");
    let tokens = vec!["97"; 1500].join(",");
    sandbox.write("text", "abcdefgh".repeat(20_000));
    let commands: [&[&str]; 3] = [
        &["logits", "m.gguf", "--tokens", &tokens, "-o", "out/l.f32", "--load", "map"],
        &["perplexity", "m.gguf", "--text", "text", "-c", "64", "--ram", &ram, "-b", "8"],
        &["bench", "m.gguf", "-p", "0", "-n", "64", "-r", "1000000", "--load", "map"],
    ];
    std::fs::create_dir(sandbox.path("out")).unwrap();
    for command in commands {
        sandbox.write("m.gguf", metallic::testing::tiny_mixture().unwrap());
        let outcome = overwritten(&sandbox, &[command, &["-v", "-t", "1"]].concat(), "loaded");
        assert!(outcome.fails(5).contains("m.gguf was written to"), "{outcome:?}");
        assert_eq!(outcome.stdout, "");
    }
    assert_eq!(sandbox.names("out"), [""; 0]);
}

#[cfg(unix)]
#[test]
fn the_last_answer_of_a_chat_is_looked_at_too() {
    let sandbox = Sandbox::new("guard-last");
    sandbox.write("m.gguf", crate::alphabet::model());
    let args = ["chat", "-m", "m.gguf", "--temp", "0", "-q", "--load", "map", "-n", "600"];
    let args = [&args[..], &["--logit-bias", "257-inf", "-c", "1000", "-t", "1"]].concat();
    let mut child = sandbox.spawn(&args);
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"hi\n").unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    overwrite(&sandbox.path("m.gguf"));
    let outcome = crate::sandbox::outcome(child.wait_with_output().unwrap());
    assert!(outcome.fails(5).ends_with("what was printed is void"), "{outcome:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_locked_or_a_warning_says_what_would_help() {
    use std::process::Command;

    use crate::sandbox::outcome;

    let (sandbox, _) = sandbox("guard-mlock");
    let expected = sandbox.run(&[&RUN[..], &["abc"]].concat()).succeeds().stdout;
    let free = sandbox.run(&[&RUN[..], &["--mlock", "-v", "abc"]].concat()).succeeds();
    assert_eq!(free.stdout, expected);
    assert!(free.stderr.contains("memory is locked") || free.stderr.contains("ulimit -l"), "{free:?}");
    // In a user namespace nobody is above the limit.
    let mut confined = Command::new("unshare");
    confined.args(["--user", "--map-root-user", "sh", "-c", "ulimit -l 64; exec \"$0\" \"$@\""]);
    confined.arg(env!("CARGO_BIN_EXE_metallic")).args(RUN).args(["--mlock", "abc"]);
    let confined = confined.current_dir(sandbox.path("")).output().map(outcome);
    match confined {
        Ok(confined) if !confined.stderr.contains("unshare") => {
            let confined = confined.succeeds();
            assert!(confined.stderr.contains("memory is not locked: "), "{confined:?}");
            assert!(confined.stderr.contains("`ulimit -l` to at least "), "{confined:?}");
            assert_eq!(confined.stdout, expected);
        }
        _ => println!("skipped: no user namespaces"),
    }
}
