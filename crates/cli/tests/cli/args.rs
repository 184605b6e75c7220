//! What the command line accepts and how it refuses the rest.

use crate::alphabet;
use crate::sandbox::{Sandbox, outcome};

#[test]
fn help_shows_examples_exit_codes_and_environment() {
    let sandbox = Sandbox::new("args-help");
    let help = sandbox.run(&["--help"]).succeeds().stdout;
    for words in ["metallic run \"What is", "Exit codes:", "  130  ", "METALLIC_CACHE", "NO_COLOR"] {
        assert!(help.contains(words), "{words} is not in\n{help}");
    }
    for command in [
        "run",
        "chat",
        "inspect",
        "tokenize",
        "logits",
        "perplexity",
        "bench",
        "align",
        "pull",
        "models",
        "completions",
    ] {
        assert!(sandbox.run(&[command, "--help"]).succeeds().stdout.contains("Usage: "), "{command}");
    }
    assert!(sandbox.run(&["--version"]).succeeds().stdout.starts_with("metallic "));
}

#[test]
fn a_wrong_command_line_is_refused_with_code_2() {
    let sandbox = Sandbox::new("args-wrong");
    for (args, words) in [
        (&[][..], "Usage: "),
        (&["runn"], "run"),
        (&["run", "--no-such-flag"], "--no-such-flag"),
        (&["run", "-c", "0"], "--ctx-size"),
        (&["run", "-t", "0"], "--threads"),
        (&["run", "-b", "0"], "--batch-size"),
        (&["run", "-n", "-2"], "--n-predict"),
        (&["run", "-n", "0"], "--n-predict"),
        (&["run", "-n", "99999999999999999999"], "more than any context"),
        (&["run", "-s", "-2"], "--seed"),
        (&["run", "--temp", "-x"], "invalid value '-x' for '--temp"),
        (&["run", "--kv-type", "-x"], "invalid value '-x' for '--kv-type"),
        (&["run", "--logprobs", "3", "x"], "--json"),
        (&["chat", "a.gguf", "-m", "b.gguf"], "--model"),
        (&["run", "--temp", "-1"], "--temp"),
        (&["run", "--temp", "nan"], "--temp"),
        (&["run", "--top-p", "1.5"], "--top-p"),
        (&["run", "--min-p", "-0.1"], "--min-p"),
        (&["run", "--repeat-penalty", "0"], "--repeat-penalty"),
        (&["run", "--logit-bias", "x"], "--logit-bias"),
        (&["run", "--stop", ""], "--stop"),
        (&["run", "--raw", "--system", "x"], "--raw"),
        (&["run", "--raw", "--chat-template", "x"], "--raw"),
        (&["run", "--raw", "--tools", "x"], "--raw"),
        (&["chat", "--reasoning", "some"], "hide"),
        (&["run", "a", "-p", "b"], "--prompt"),
        (&["run", "-m", "hf:x"], "hf:OWNER/REPO/FILE"),
        (&["pull", "pypi:x"], "pypi:PACKAGE==VERSION"),
        (&["logits", "m", "--out", "f"], "--tokens"),
        (&["logits", "m", "--tokens", "1,-2", "--out", "f"], "--tokens"),
        (&["bench"], "MODEL"),
        (&["bench", "m", "-t", "0"], "--threads"),
        (&["bench", "m", "-r", "0"], "--repetitions"),
        (&["bench", "m", "--expert-policy", "best"], "static"),
        (&["bench", "m", "--pg", "512"], "two numbers"),
        (&["run", "x", "--isa", "mmx"], "this machine has scalar"),
        (&["run", "x", "--load", "disk"], "slab"),
        (&["run", "x", "--kv-type", "q9"], "q8_0"),
        (&["bench", "m", "-b", "0"], "--batch-size"),
        (&["bench", "m", "-p", "1,x"], "--n-prompt"),
        (&["bench", "m", "-n", "-1"], "-1"),
        (&["bench", "m", "-p", "0", "-n", "0"], "nothing to measure"),
        (&["bench", "m", "-d", "4294967295"], "smaller -d"),
        (&["align", "m"], "OUT"),
        (&["align", "m", "o", "--alignment", "100"], "power of two"),
        (&["align", "m", "o", "--alignment", "2MiB"], "power of two"),
        (&["align", "m", "o", "--alignment", "4 knots"], "a size, such as"),
        (&["models", "-v", "-q"], "--quiet"),
        (&["completions", "csh"], "bash"),
    ] {
        let outcome = sandbox.run(args);
        assert_eq!(outcome.code, Some(2), "{args:?} {outcome:?}");
        assert!(outcome.stderr.contains(words), "{args:?} {outcome:?}");
        assert_eq!(outcome.stdout, "", "{args:?}");
    }
}

#[test]
fn a_misspelt_short_name_is_put_right() {
    let sandbox = Sandbox::new("args-typo");
    for command in ["pull", "inspect", "tokenize"] {
        let outcome = sandbox.run(&[command, "smolm2"]);
        assert!(outcome.fails(4).ends_with("did you mean smollm2?"), "{outcome:?}");
    }
    let outcome = sandbox.run(&["run", "-m", "no/such.gguf", "hello"]);
    assert!(outcome.fails(4).contains("no/such.gguf"), "{outcome:?}");
}

#[test]
fn completions_know_the_commands() {
    let sandbox = Sandbox::new("args-completions");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = sandbox.run(&["completions", shell]).succeeds().stdout;
        assert!(
            script.contains("perplexity") && script.contains("top-k") && script.contains("chat-template"),
            "{shell}"
        );
    }
}

#[test]
fn models_are_listed_with_how_to_get_them() {
    let sandbox = Sandbox::new("args-models");
    let empty = sandbox.run(&["models"]).succeeds().stdout;
    assert!(empty.contains("smollm2") && empty.contains("not downloaded"), "{empty}");
}

#[test]
fn colours_only_where_they_are_wanted() {
    let sandbox = Sandbox::new("args-colour");
    let list = |args: &[&str], no_color: &str| {
        outcome(sandbox.command(args).env("NO_COLOR", no_color).output().unwrap()).stdout
    };
    assert!(!list(&["models"], "").contains('\x1b'), "output is not a terminal");
    assert!(list(&["models", "--color", "always"], "").contains("\x1b[1m"));
    assert!(list(&["models", "--color", "always"], "1").contains("\x1b[1m"), "the flag is stronger");
    assert!(!list(&["models", "--color", "never"], "").contains('\x1b'));
}

#[test]
fn verbose_tells_more_and_quiet_less() {
    let sandbox = Sandbox::new("args-verbose");
    let usual = sandbox.run(&["pull", "hf:a/b/c"]);
    assert!(usual.stderr.starts_with("downloading "), "{usual:?}");
    let quiet = sandbox.run(&["pull", "-q", "hf:a/b/c"]);
    assert_eq!(quiet.stderr.lines().count(), 1, "{quiet:?}");
    let verbose = sandbox.run(&["pull", "-v", "smollm2"]);
    assert!(verbose.stderr.contains("INFO"), "{verbose:?}");
    assert!(!sandbox.run(&["pull", "smollm2"]).stderr.contains("INFO"));
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_quietly() {
    let sandbox = Sandbox::new("args-pipe");
    let script =
        format!("('{}' completions bash; echo \"code $?\" >&2) | true", env!("CARGO_BIN_EXE_metallic"));
    let mut shell = std::process::Command::new("sh");
    let result = outcome(shell.args(["-c", &script]).current_dir(sandbox.path("")).output().unwrap());
    assert_eq!(result.stderr, "code 0\n");
}

/// A sandbox with the alphabet's model in a file of this name.
fn alphabet(test: &str, name: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write(name, alphabet::model());
    sandbox
}

#[test]
fn what_follows_a_flag_is_its_value_even_with_a_dash() {
    let sandbox = alphabet("args-dashes", "-m");
    sandbox.write("-f", "--abc");
    sandbox.write("-j", alphabet::TEMPLATE);
    sandbox.write("-t", "[]");
    let base = ["run", "-m", "-m", "--temp", "0", "-n", "5"];
    for (args, expected) in [
        (&["--raw", "-p", "-ab"][..], "cdefg\n"),
        (&["--raw", "-p", "--raw"], "xyz\n"),
        (&["--raw", "-f", "-f"], "defgh\n"),
        (&["--system", "- be terse", "hi"], "TUVWX\n"),
        (&["--chat-template", "-j", "hi"], "TUVWX\n"),
        (&["--tools", "-t", "hi"], "TUVWX\n"),
        (&["--raw", "--stop", "-", "-p", "+"], ",\n"),
        (&["--raw", "-r", "--", "-p", "+"], ",-./0\n"),
        (&["--raw", "--dry-multiplier", "8", "--dry-sequence-breaker", "-", "-p", "ab"], "cdefg\n"),
        (&["-s", "-1", "hi"], "TUVWX\n"),
        (&["--raw", "--", "--raw"], "xyz\n"),
    ] {
        assert_eq!(sandbox.run(&[&base[..], args].concat()).succeeds().stdout, expected, "{args:?}");
    }
    sandbox.run(&["perplexity", "./-m", "--text", "-m"]).fails(1);
    sandbox.run(&["logits", "./-m", "--tokens", "1", "-o", "-o"]).succeeds();
    assert!(sandbox.path("-o").is_file());
}

#[test]
fn of_a_repeated_flag_the_last_counts() {
    let sandbox = alphabet("args-repeated", "a.gguf");
    let run = ["run", "-m", "no.gguf", "-m", "a.gguf", "--raw", "--raw", "--temp", "9", "--temperature", "0"];
    let more = ["--stop", "f", "--stop", "e", "-n", "99999999999", "-n", "5", "-p", "x", "-p", "abc"];
    let outcome = sandbox.run(&[&run[..], &more].concat()).succeeds();
    assert_eq!(outcome.stdout, "d\n", "texts to stop at collect");
    sandbox.run(&["models", "--color", "never", "--color", "always"]).succeeds();
}

#[cfg(unix)]
#[test]
fn paths_need_not_be_utf_8() {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt as _;
    let name = |start: &str| -> OsString {
        [start.as_bytes(), b"\xff.gguf"].map(OsStr::from_bytes).join(OsStr::new(""))
    };
    let sandbox = Sandbox::new("args-bytes");
    let files: [(&str, &[u8]); 4] = [
        ("model", &alphabet::model()),
        ("text", b"abcdefgh"),
        ("tools", b"[]"),
        ("jinja", alphabet::TEMPLATE.as_bytes()),
    ];
    for (start, content) in files {
        std::fs::write(sandbox.path("").join(name(start)), content).unwrap();
    }
    let run = |args: &[&str]| {
        // What is in angle brackets stands for a file.
        let args = args.iter().map(|arg| match arg.strip_prefix('<') {
            Some(start) => name(start.trim_end_matches('>')),
            None => arg.into(),
        });
        outcome(sandbox.command(&[]).args(args).stdin(std::process::Stdio::null()).output().unwrap())
            .succeeds()
            .stdout
    };
    let short = ["--temp", "0", "-n", "2"];
    assert_eq!(run(&[&["run", "<model>", "hi"], &short[..]].concat()), "TU\n");
    assert_eq!(run(&[&["run", "-m", "<model>", "--raw", "-f", "<text>"], &short[..]].concat()), "ij\n");
    assert_eq!(run(&[&["run", "-m", "<model>", "--tools", "<tools>", "hi"], &short[..]].concat()), "TU\n");
    assert_eq!(
        run(&[&["run", "-m", "<model>", "--chat-template", "<jinja>", "hi"], &short[..]].concat()),
        "TU\n"
    );
    assert_eq!(run(&["chat", "<model>"]), "");
    assert!(run(&["inspect", "<model>"]).contains("Alphabet"));
    assert_eq!(run(&["tokenize", "<model>", "--ids", "a"]), "[97]\n");
    assert!(run(&["perplexity", "<model>", "--text", "<text>", "-c", "4"]).contains("2 chunks"));
    run(&["logits", "<model>", "--tokens", "1", "-o", "<out>"]);
    run(&["align", "<model>", "<aligned>"]);
    assert!([name("out"), name("aligned")].iter().all(|name| sandbox.path("").join(name).is_file()));
}

#[test]
fn quiet_and_colour_hold_for_warnings_and_usage_errors() {
    let sandbox = alphabet("args-quiet", "a.gguf");
    let run = ["run", "-m", "a.gguf", "--temp", "0", "-n", "1", "-c", "3000", "hi"];
    let with = |args: &[&str]| sandbox.run(&[&run[..], args].concat()).succeeds().stderr;
    let usual = with(&[]);
    assert!(
        usual.contains(" WARN ") && usual.contains("trained") && usual.contains("-n 1 allows"),
        "{usual}"
    );
    assert!(!usual.contains('\x1b'), "{usual}");
    assert_eq!(with(&["-q"]), "");
    assert!(with(&["--color", "always"]).contains("\x1b[33m WARN"));

    for args in [
        &["--color", "always", "run", "--no-such-flag"][..],
        &["run", "--no-such-flag", "--color", "always"],
        &["run", "--color=never", "--no-such-flag", "--color=always"],
        &["--color=always", "--help"],
    ] {
        let outcome = sandbox.run(args);
        assert!(outcome.stderr.contains('\x1b') != outcome.stdout.contains('\x1b'), "{args:?} {outcome:?}");
    }
    let forced =
        |args: &[&str]| outcome(sandbox.command(args).env("CLICOLOR_FORCE", "1").output().unwrap()).stderr;
    assert!(forced(&["run", "--no-such-flag"]).contains('\x1b'));
    assert!(!forced(&["run", "--no-such-flag", "--color", "never"]).contains('\x1b'));
    assert!(
        !forced(&["run", "--no-such-flag", "--color", "never", "--", "--color", "always"]).contains('\x1b')
    );
}

#[test]
fn help_is_wrapped_once_at_any_width() {
    let sandbox = Sandbox::new("args-wrap");
    let commands =
        ["run", "chat", "inspect", "tokenize", "logits", "perplexity", "bench", "plan", "align", "pull"];
    for args in commands.map(|command| vec![command, "--help"]).into_iter().chain([vec!["--help"]]) {
        for width in [60, 80, 100] {
            let output = sandbox.command(&args).env("COLUMNS", width.to_string()).output().unwrap();
            let help = outcome(output).succeeds().stdout;
            // clap leaves that line alone.
            let lines: Vec<&str> = help.lines().filter(|line| !line.starts_with("Usage: ")).collect();
            for pair in lines.windows(2) {
                let length = pair[0].chars().count();
                assert!(length <= width || !pair[0].trim().contains(' '), "{args:?} {width}: {}", pair[0]);
                // A line that goes on in lower case, with an indent of the same depth, was broken for want of room.
                let indent = |line: &str| line.len() - line.trim_start().len();
                let is_text = |line: &str| !line.trim().contains("  ") && indent(line) != 2;
                let word = pair[1].split_whitespace().next().unwrap_or("");
                let goes_on = is_text(pair[0]) && is_text(pair[1]) && indent(pair[0]) == indent(pair[1]);
                if goes_on && !pair[0].is_empty() && word.starts_with(|c: char| c.is_lowercase()) {
                    assert!(
                        length + 1 + word.chars().count() > width,
                        "{args:?} {width}:\n{}\n{}",
                        pair[0],
                        pair[1]
                    );
                }
            }
        }
    }
}
