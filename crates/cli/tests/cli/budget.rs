//! What `--ram` and the system's own limits allow: nothing takes more, and what is refused is told in a line.

use serde_json::Value;

use crate::sandbox::Sandbox;

fn sandbox(test: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write("tiny.gguf", metallic::testing::tiny_model().unwrap());
    sandbox
}

const RUN: [&str; 6] = ["run", "-m", "tiny.gguf", "--raw", "-n", "2"];

/// More than any machine has.
const TOO_MUCH: &str = "1000TiB";

#[test]
fn measuring_takes_no_more_than_the_budget() {
    let args = ["bench", "tiny.gguf", "-p", "8", "-n", "0", "-r", "1", "--json", "--ram", "64MiB"];
    let rows: Value = serde_json::from_str(&sandbox("budget-bench").run(&args).succeeds().stdout).unwrap();
    let peak = rows[0]["peak_memory_bytes"].as_u64();
    // What is mapped of the program itself is more where it is not optimised.
    assert!(peak.is_none_or(|peak| peak < 128 << 20), "{rows}");
    assert!(rows[0]["read_gb_s"].as_f64().unwrap() > 0.0, "{rows}");
}

#[cfg(target_os = "linux")]
#[test]
fn planning_takes_no_more_than_the_budget() {
    let args = ["plan", "tiny.gguf", "-t", "1", "--json", "--ram", "64MiB"];
    let outcome = sandbox("budget-plan").run_limited("-d 131072", &args).succeeds();
    let plan: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert!(plan["prediction"]["memory_gb_s"].as_f64().unwrap() > 0.0, "{plan}");
}

#[test]
fn what_there_is_no_room_to_measure_is_unknown() {
    let sandbox = sandbox("budget-floor");
    let args = ["plan", "tiny.gguf", "-t", "1", "-c", "64", "-b", "8"];
    let plan = |more: &[&str]| sandbox.run(&[&args[..], more].concat());
    let error = plan(&["--ram", "1MiB"]).fails(1).to_owned();
    let floor = error.split('(').nth(1).unwrap().split(' ').next().unwrap();
    let text = plan(&["--ram", floor]).succeeds().stdout;
    for line in ["prefill ", "decode "] {
        let line = text.lines().find(|found| found.starts_with(line)).unwrap();
        assert!(line.contains(" unknown ") && line.contains("unknown GB/s"), "{text}");
    }
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    let plan: Value = serde_json::from_str(&plan(&["--ram", floor, "--json"]).succeeds().stdout).unwrap();
    let prediction = &plan["prediction"];
    assert!(
        ["memory_gb_s", "prefill", "decode"].iter().all(|name| prediction[name].is_null()),
        "{prediction}"
    );
    assert!(prediction["decode_gop_s"].as_f64().unwrap() > 0.0, "what was measured is told: {prediction}");
}

#[test]
fn a_budget_beyond_what_the_system_allows_is_lowered_unless_one_insists() {
    let sandbox = sandbox("budget-lowered");
    let run = |more: &[&str]| sandbox.run(&[&RUN[..], more, &["ab"]].concat());
    let lowered = run(&["--ram", TOO_MUCH]).succeeds().stderr;
    let warning = lowered.lines().find(|line| line.contains("--ram 1000.0 TiB is lowered to ")).unwrap();
    assert!(warning.contains("iB; ") && warning.contains("--overcommit"), "{warning}");
    for more in [&["--ram", TOO_MUCH, "--overcommit"][..], &["--ram", "200MiB"], &[]] {
        assert!(!run(more).succeeds().stderr.contains("lowered"), "{more:?}");
    }
    assert_eq!(run(&["--overcommit"]).code, Some(2));
    for args in [
        &["bench", "tiny.gguf", "-p", "8", "-n", "0", "-r", "1", "-t", "1,2"][..],
        &["logits", "tiny.gguf", "--tokens", "65", "-o", "out"],
    ] {
        let outcome = sandbox.run(&[args, &["--ram", TOO_MUCH]].concat()).succeeds();
        assert_eq!(outcome.stderr.matches("is lowered to").count(), 1, "{outcome:?}");
    }
}

#[test]
fn a_plan_may_be_for_a_larger_machine() {
    let args = ["plan", "tiny.gguf", "-t", "1", "--ram", TOO_MUCH];
    let sandbox = sandbox("budget-larger");
    let outcome = sandbox.run(&args).succeeds();
    assert!(!outcome.stderr.contains("lowered"), "{outcome:?}");
    let total = outcome.stdout.lines().find(|line| line.starts_with("total ")).unwrap().to_owned();
    assert!(total.contains("of a budget of 1000.0 TiB, more than "), "{total}");
    let plan = |ram| -> Value {
        serde_json::from_str(
            &sandbox.run(&[&args[..4], &["--json", "--ram", ram]].concat()).succeeds().stdout,
        )
        .unwrap()
    };
    let (larger, small) = (plan(TOO_MUCH), plan("100MiB"));
    assert_eq!(larger["ram_bytes"], 1000_u64 << 40);
    assert!(larger["allowed_ram_bytes"].as_u64().unwrap() < 1000 << 40, "{larger}");
    assert!(small["allowed_ram_bytes"].is_null(), "{small}");
}

/// A limit of threads does not hold for root, so the program runs as a user without other processes; only root can do that.
#[cfg(target_os = "linux")]
#[test]
fn threads_that_can_not_start_are_one_error() {
    let sandbox = sandbox("budget-threads");
    let with = |n_threads: u32, args: &[&str]| {
        let script = format!(
            "PATH=/usr/bin:/bin
             [ $(id -u) = 0 ] && setpriv --reuid 54321 --clear-groups \"$0\" --version >&2 || exit 77
             exec setpriv --reuid 54321 --clear-groups prlimit --nproc={n_threads} \"$0\" \"$@\""
        );
        sandbox.run_in_shell(&script, args)
    };
    for args in [
        &["plan", "tiny.gguf"][..],
        &["plan", "tiny.gguf", "--memory-gb-s", "1"],
        &["bench", "tiny.gguf", "-p", "8", "-n", "0", "-r", "1"],
        &["run", "-m", "tiny.gguf", "--raw", "-n", "1", "ab"],
    ] {
        let outcome = with(20, &[args, &["-t", "100"]].concat());
        if outcome.code == Some(77) {
            println!("skipped: not root, or no setpriv");
            return;
        }
        let error = outcome.fails(1);
        assert!(error.starts_with("error: can't start 100 threads: "), "{error}");
        assert!(error.ends_with(": choose fewer with -t"), "{error}");
    }
    let one = with(1, &["run", "-m", "tiny.gguf", "--raw", "-n", "1", "-t", "1", "ab"]);
    assert!(one.fails(1).contains("ulimit -u"), "{one:?}");
    // Readers of files make do with fewer threads of their own, beside the one that waits for Ctrl-C; and standard input
    // is waited for without a limit of time.
    with(2, &["run", "-m", "tiny.gguf", "--raw", "-n", "1", "-t", "1", "ab"]).succeeds();
    with(3, &["run", "-m", "tiny.gguf", "--raw", "-n", "1", "-t", "1", "--load", "slab", "ab"]).succeeds();
}

#[cfg(target_os = "linux")]
#[test]
fn a_map_without_room_does_not_blame_the_path() {
    let sandbox = sandbox("budget-map");
    let large = std::fs::File::options().write(true).open(sandbox.path("tiny.gguf")).unwrap();
    large.set_len(8 << 30).unwrap();
    let outcome = sandbox.run_limited("-v 1000000", &["inspect", "tiny.gguf"]);
    let error = outcome.fails(1);
    assert!(error.contains("ulimit -v") && !error.contains("check the path"), "{error}");
}

/// What its bandwidth would be measured with is no reason for a plan to fail.
#[cfg(target_os = "linux")]
#[test]
fn a_bandwidth_that_there_is_no_memory_to_measure_is_unknown() {
    let sandbox = sandbox("budget-address-space");
    for args in [
        &["plan", "tiny.gguf", "-t", "1"][..],
        &["bench", "tiny.gguf", "-t", "1", "-p", "8", "-n", "1", "-r", "1"],
    ] {
        let outcome = sandbox.run_limited("-v 200000", args).succeeds();
        assert!(!outcome.stdout.contains("NaN"), "{outcome:?}");
    }
    assert!(sandbox.run_limited("-v 200000", &["plan", "tiny.gguf", "-t", "1"]).stdout.contains("unknown"));
}

#[test]
fn a_benchmark_without_room_advises_its_own_flags() {
    let sandbox = sandbox("budget-advice");
    let error = sandbox.run(&["bench", "tiny.gguf", "-n", "9999", "--ram", "1MiB"]).fails(1).to_owned();
    assert!(
        error.contains("--ram") && error.contains("shorter tests (-p, ") && !error.contains("-c"),
        "{error}"
    );
}

/// It would take 44 bytes for each of its own to find out how many tokens it has.
#[cfg(target_os = "linux")]
#[test]
fn a_prompt_far_too_long_is_refused_before_it_takes_memory() {
    let sandbox = sandbox("budget-prompt");
    sandbox.write("long.txt", "a".repeat(10_000_000));
    let script = "ulimit -d 65536; exec \"$0\" \"$@\" < long.txt";
    let args = [&RUN[..], &["-t", "1", "-c", "64", "--load", "map"]].concat();
    let outcome = sandbox.run_in_shell(script, &args);
    let error = outcome.fails(1);
    assert!(error.contains("the prompt has at least ") && error.contains("the context holds 64"), "{error}");
}

/// Of a budget of 64 MiB, a text has at most a share. 48 MiB would hold neither these texts nor what is made of them.
#[cfg(target_os = "linux")]
#[test]
fn texts_beyond_their_share_of_the_budget_are_not_read() {
    let sandbox = sandbox("budget-texts");
    sandbox.write("long.txt", "b".repeat(60_000_000));
    sandbox.write("word.txt", "b".repeat(3_000_000));
    let limited = |args: &[&str]| {
        let script = "ulimit -d 49152; exec \"$0\" \"$@\" < long.txt";
        let outcome =
            sandbox.run_in_shell(script, &[args, &["-t", "1", "-c", "64", "--ram", "64MiB"]].concat());
        outcome.fails(1).to_owned()
    };
    let run = ["run", "-m", "tiny.gguf", "--load", "map", "--raw"];
    let perplexity = ["perplexity", "tiny.gguf", "--load", "map", "--text"];
    for (args, expected) in [
        ([&run[..], &["-f", "long.txt"]].concat(), "long.txt is longer than the 2.0 MiB (2097152 bytes)"),
        (run.to_vec(), "standard input is longer than the 2.0 MiB (2097152 bytes)"),
        ([&perplexity[..], &["long.txt"]].concat(), "long.txt is longer than the 4.0 MiB (4194304 bytes)"),
        ([&perplexity[..], &["word.txt"]].concat(), "word.txt has a word of 3000000 bytes"),
    ] {
        let error = limited(&args);
        assert!(error.contains(expected) && error.contains("--ram"), "{args:?}: {error}");
    }
    let error = limited(&[&run[..5], &["--chat-template", "long.txt", "ab"]].concat());
    assert!(error.contains("long.txt is longer than the 256.0 KiB"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn of_an_entry_beyond_its_share_the_chat_keeps_nothing() {
    let sandbox = sandbox("budget-entry");
    let long = "b".repeat(30_000_000);
    let lines = "b\n".repeat(15_000_000);
    for entry in [format!("{long}\n"), format!("\"\"\"{long}\"\"\"\n"), format!("\"\"\"\n{lines}\"\"\"\n")] {
        sandbox.write("entries", entry + "/help\n");
        let args = ["chat", "tiny.gguf", "--chat-template", "chatml", "--load", "map", "-t", "1", "-c", "64"];
        let script = "ulimit -d 49152; exec \"$0\" \"$@\" < entries";
        let outcome = sandbox.run_in_shell(script, &[&args[..], &["--ram", "64MiB"]].concat());
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let told = outcome.stderr.matches("the entry is longer than the 2.0 MiB").count();
        assert!(told == 1 && outcome.stderr.contains("/reset"), "what follows is done: {outcome:?}");
    }
}
