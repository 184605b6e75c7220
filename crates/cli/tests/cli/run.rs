//! `metallic run`.

use crate::alphabet::{self, Options};
use crate::sandbox::{Outcome, Sandbox, smollm2};

/// What the model says to every question put into its template.
pub(crate) const ANSWER: &str = "TUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz";

fn sandbox(test: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write("a.gguf", alphabet::model());
    sandbox
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    sandbox.run(&[&["run", "-m", "a.gguf"], args].concat())
}

#[test]
fn a_prompt_is_put_into_the_template_and_answered_to_its_end() {
    let sandbox = sandbox("run-template");
    assert_eq!(run(&sandbox, &["--temp", "0", "hi"]).succeeds().stdout, format!("{ANSWER}\n"));
    assert_eq!(run(&sandbox, &["--temp", "0", "-p", "hi"]).succeeds().stdout, format!("{ANSWER}\n"));
}

#[test]
fn raw_continues_the_prompt() {
    let sandbox = sandbox("run-raw");
    assert_eq!(run(&sandbox, &["--raw", "--temp", "0", "-n", "5", "abc"]).succeeds().stdout, "defgh\n");
    assert_eq!(
        run(&sandbox, &["--raw", "--temp", "0", "abc"]).succeeds().stdout,
        "defghijklmnopqrstuvwxyz\n"
    );
    sandbox.write("a.gguf", alphabet::model_with(Options { template: None, ..Options::default() }));
    assert_eq!(run(&sandbox, &["--temp", "0", "-n", "2", "abc"]).succeeds().stdout, "de\n");
    run(&sandbox, &["--system", "x", "abc"]).fails(2);
}

#[test]
fn a_pipe_gives_the_prompt_without_its_last_line_feed() {
    let sandbox = sandbox("run-pipe");
    let args = ["run", "-m", "a.gguf", "--raw", "--temp", "0", "-n", "2"];
    assert_eq!(sandbox.run_with_input(&args, "x\nabc\n").succeeds().stdout, "de\n");
    assert_eq!(sandbox.run_with_input(&args, "abc\r\n").succeeds().stdout, "de\n");
}

/// The rates line's number before a word.
pub(crate) fn count_before(stderr: &str, word: &str) -> Option<usize> {
    let line = stderr.lines().rfind(|line| line.contains("prefill "))?;
    let words: Vec<&str> = line.split([' ', '(', ')', ',']).filter(|word| !word.is_empty()).collect();
    words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok())
}

#[test]
fn rates_and_peak_memory_close_the_run() {
    let sandbox = sandbox("run-rates");
    let outcome = run(&sandbox, &["--temp", "0", "hi"]).succeeds();
    let line = outcome.stderr.lines().next_back().unwrap();
    // <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n
    let n_prompt = 1 + "user\nhi".len() + 1 + 1 + 1 + "assistant\n".len();
    assert!(line.starts_with(&format!("prefill {n_prompt} tokens at ")), "{line}");
    assert!(line.contains(" tokens/s, decode ") && line.contains("peak memory "), "{line}");
    let with_system = run(&sandbox, &["--temp", "0", "--system", "be brief", "hi"]).succeeds();
    let n_system = 1 + "system\nbe brief".len() + 1 + 1;
    assert_eq!(count_before(&with_system.stderr, "tokens"), Some(n_prompt + n_system), "{with_system:?}");
    assert_eq!(run(&sandbox, &["--temp", "0", "-q", "hi"]).succeeds().stderr, "");
}

#[test]
fn stop_texts_end_the_answer_before_them() {
    let sandbox = sandbox("run-stop");
    let stopped = run(&sandbox, &["--raw", "--temp", "0", "--stop", "xx", "--stop", "hi", "abc"]).succeeds();
    assert_eq!(stopped.stdout, "defg\n");
}

#[test]
fn a_full_context_is_told() {
    let sandbox = sandbox("run-context");
    let full = run(&sandbox, &["--raw", "--temp", "0", "-c", "8", "abc"]);
    assert!(full.stdout.starts_with("defgh"), "{full:?}");
    assert!(full.fails(1).contains("-c"), "{full:?}");
    let too_long = run(&sandbox, &["--raw", "-c", "4", "abcdefgh"]);
    assert!(too_long.fails(1).contains("8 tokens"), "{too_long:?}");
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let sandbox = sandbox("run-seed");
    let any = ["--raw", "-n", "40", "--temp", "50", "--top-k", "0", "--top-p", "1", "--min-p", "0", "a"];
    let text = |seed| run(&sandbox, &[&["--seed", seed][..], &any].concat()).succeeds().stdout;
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
}

#[test]
fn each_filter_leaves_the_likeliest_only() {
    let sandbox = sandbox("run-filters");
    let flags = [["--temp", "50"], ["--top-k", "0"], ["--top-p", "1"], ["--min-p", "0"], ["--seed", "1"]];
    let text = |changed: [&str; 2]| {
        let kept = flags.iter().filter(|flag| flag[0] != changed[0]).flatten();
        let args: Vec<&str> = kept.chain(&changed).chain(&["--raw", "-n", "10", "abc"]).copied().collect();
        run(&sandbox, &args).succeeds().stdout
    };
    let likeliest = "defghijklm\n";
    assert_ne!(text(["--seed", "1"]), likeliest, "without a filter it is chance");
    // The likeliest token has 0.988 of the probability, each of the others 0.00004.
    for filter in [
        ["--temp", "0"],
        ["--top-k", "1"],
        ["--top-p", "0.9"],
        ["--min-p", "0.5"],
        ["--typical", "0.5"],
        ["--top-n-sigma", "3"],
        ["--top-nsigma", "3"],
    ] {
        assert_eq!(text(filter), likeliest, "{filter:?}");
    }
}

#[test]
fn xtc_and_mirostat_change_the_choice() {
    let sandbox = sandbox("run-xtc");
    let text = |flags: &str| {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let base = ["--raw", "-n", "1", "--logit-bias", "122+9", "--seed", "1", "-p", "a"];
        run(&sandbox, &[&base[..], &flags].concat()).succeeds().stdout
    };
    // b gets 0.73 of the probability, z 0.27.
    assert_eq!(text("--temp 0.01"), "b\n");
    assert_eq!(text("--temp 0.01 --xtc-probability 1"), "z\n");
    assert_eq!(text("--temp 0.01 --xtc-probability 1 --xtc-threshold 0.3"), "b\n");
    // Flat, all 258 tokens have 8 bits; Mirostat drops what has more than twice its target.
    let flat = "--temp 50 --top-k 0 --top-p 1 --min-p 0 --logit-bias 98+200 --mirostat 2 --mirostat-ent";
    assert_eq!(text(&format!("{flat} 1")), "b\n");
    assert_ne!(text(&format!("{flat} 9")), "b\n");
    let both = ["--raw", "-n", "1", "--mirostat", "2", "--top-k", "1", "--dry-multiplier", "1", "a"];
    let warned = run(&sandbox, &both).succeeds().stderr;
    assert!(warned.contains("--mirostat takes the place of --top-k, --dry-multiplier"), "{warned}");
    assert!(run(&sandbox, &["--mirostat", "1", "hi"]).stderr.contains("version 1 is not there"));
}

#[test]
fn an_answer_goes_on_past_its_end_if_it_is_to() {
    let sandbox = sandbox("run-ignore-eos");
    let args = ["--raw", "--temp", "0", "-n", "5", "--ignore-eos", "xy"];
    let text = run(&sandbox, &args).succeeds().stdout;
    assert!(text.starts_with('z') && text.len() == 6, "{text:?}");
}

#[test]
fn the_name_of_a_special_token_stops_the_answer_at_it() {
    let sandbox = sandbox("run-stop-token");
    // After \n, which <|im_start|> is followed by, comes T: the token has no text of its own.
    let base = ["--raw", "--temp", "0", "-n", "5", "--logit-bias", "256+20", "abc"];
    assert_eq!(run(&sandbox, &base).succeeds().stdout, "\n");
    let args = [&["--stop", "<|im_start|>"][..], &base].concat();
    let outcome = run(&sandbox, &args).succeeds();
    assert_eq!((outcome.stdout.as_str(), count_before(&outcome.stderr, "tokens,")), ("\n", None));
    assert!(outcome.stderr.contains("decode 1 tokens"), "{outcome:?}");
}

#[test]
fn numbers_that_are_none_are_an_error_and_no_answer() {
    let sandbox = sandbox("run-nan");
    let whole = alphabet::model();
    let gguf = metallic_gguf::Gguf::parse(&whole).unwrap();
    let tensor = gguf.tensor("output_norm.weight").unwrap();
    let start = tensor.data().as_ptr() as usize - whole.as_ptr() as usize;
    let mut broken = whole.clone();
    for value in [f32::NAN, f32::INFINITY] {
        for at in (start..start + tensor.data().len()).step_by(4) {
            broken[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        sandbox.write("a.gguf", &broken);
        sandbox.write("text", "abcdefgh");
        for args in [
            &["run", "-m", "a.gguf", "hi"][..],
            &["logits", "a.gguf", "--tokens", "1,2", "--out", "l.f32"],
            &["perplexity", "a.gguf", "--text", "text", "-c", "4"],
        ] {
            let outcome = sandbox.run(args);
            assert!(outcome.fails(3).contains("the model's numbers are broken"), "{outcome:?}");
            assert_eq!(outcome.stdout, "");
        }
    }
}

#[test]
fn biases_and_penalties_change_the_choice() {
    let sandbox = sandbox("run-penalties");
    // z gets 5 where the successor has 10 less its penalty.
    for (prompt, flags, expected) in [
        ("ba", "", "b"),
        ("ba", "--logit-bias 98-inf", "z"),
        ("ba", "--logit-bias 98-4", "b"),
        ("ba", "--repeat-penalty 4", "z"),
        ("ba", "--repeat-penalty 4 --repeat-last-n 1", "b"),
        ("ba", "--repeat-penalty 4 --repeat-last-n -1", "z"),
        ("ba", "--presence-penalty 6", "z"),
        ("ba", "--presence-penalty 4", "b"),
        ("ba", "--frequency-penalty 3", "b"),
        ("bba", "--frequency-penalty 3", "z"),
        // abc was followed by d before: a repetition of three tokens would become longer.
        ("abcd abc", "--dry-multiplier 8", "z"),
        ("abcd abc", "--dry-multiplier 0", "d"),
        ("abcd abc", "--dry-multiplier 3 --dry-base 1", "d"),
        ("abcd abc", "--dry-multiplier 3 --dry-base 2", "z"),
        ("abcd abc", "--dry-multiplier 8 --dry-allowed-length 5", "d"),
        ("abcd abc", "--dry-multiplier 8 --dry-penalty-last-n 3", "d"),
        ("abcd abc", "--dry-multiplier 8 --dry-penalty-last-n -1", "z"),
        ("abcd abc", "--dry-multiplier 8 --dry-sequence-breaker c", "d"),
        ("a:cd a:c", "--dry-multiplier 8", "d"),
        ("a:cd a:c", "--dry-multiplier 8 --dry-sequence-breaker none", "z"),
    ] {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let base = ["--raw", "--temp", "0", "-n", "1", "--logit-bias", "122+5", "-p", prompt];
        let text = run(&sandbox, &[&base[..], &flags].concat()).succeeds().stdout;
        assert_eq!(text.trim_end(), expected, "{prompt} {flags:?}");
    }
}

#[test]
fn a_bias_on_no_token_is_refused() {
    let error = run(&sandbox("run-bias"), &["--logit-bias", "258+1", "hi"]).fails(2).to_owned();
    assert!(error.contains("258") && error.contains("vocabulary"), "{error}");
}

#[test]
fn an_answer_that_is_cut_is_told() {
    let sandbox = sandbox("run-cut");
    assert!(
        run(&sandbox, &["--temp", "0", "-n", "3", "hi"]).succeeds().stderr.contains("-n 3 allows no more")
    );
    assert!(!run(&sandbox, &["--temp", "0", "-n", "99999999999", "hi"]).succeeds().stderr.contains("allows"));
}

#[test]
fn a_seed_of_minus_one_is_a_new_one() {
    let sandbox = sandbox("run-new-seed");
    let any = ["--raw", "-n", "40", "--temp", "50", "--top-k", "0", "--top-p", "1", "--min-p", "0", "a"];
    for flag in ["-s", "--seed"] {
        let text = || run(&sandbox, &[&["-s", "1", flag, "-1"], &any[..]].concat()).succeeds().stdout;
        assert_ne!(text(), text());
    }
}

#[test]
fn threads_and_batches_do_not_change_the_text() {
    let sandbox = sandbox("run-threads");
    for args in [["-t", "1", "-b", "512"], ["-t", "3", "-b", "1"], ["-t", "2", "-b", "7"]] {
        assert_eq!(
            run(&sandbox, &[&args[..], &["--temp", "0", "hello there"]].concat()).succeeds().stdout,
            format!("{ANSWER}\n")
        );
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_run_with_what_there_is() {
    use std::io::Read as _;
    let sandbox = sandbox("run-interrupt");
    // Without an end of turn it would go on for a hundred thousand tokens.
    let endless = ["run", "-m", "a.gguf", "--temp", "0", "--logit-bias", "257-inf", "-c", "100000", "hi"];
    let mut child = sandbox.spawn(&endless);
    let mut first = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let outcome = crate::sandbox::outcome(child.wait_with_output().unwrap());
    assert_eq!((&first, outcome.code), (b"TUV", Some(130)), "{outcome:?}");
    assert!(outcome.stderr.contains("prefill "), "{outcome:?}");
}

/// One answer, and a conversation, of which Ctrl-C would stop the answer alone.
#[cfg(unix)]
#[test]
fn sigterm_and_sighup_end_the_program() {
    use std::io::{Read as _, Write as _};
    let sandbox = sandbox("run-signals");
    let endless = ["-m", "a.gguf", "--temp", "0", "--logit-bias", "257-inf", "-c", "100000"];
    for command in ["run", "chat"] {
        for (signal, code) in [("-TERM", 143), ("-HUP", 129)] {
            let mut child = sandbox.spawn(&[&[command], &endless[..]].concat());
            let mut typed = child.stdin.take().unwrap();
            typed.write_all(b"hi\n").unwrap();
            // A chat would wait for more.
            let typed = (command == "chat").then_some(typed);
            let mut first = [0; 3];
            child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
            crate::sandbox::kill(signal, &child);
            let outcome = crate::sandbox::outcome(child.wait_with_output().unwrap());
            drop(typed);
            assert_eq!((&first, outcome.code), (b"TUV", Some(code)), "{command} {outcome:?}");
        }
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_wait_for_a_prompt() {
    use std::io::Write as _;
    let sandbox = sandbox("run-wait");
    let mut child = sandbox.spawn(&["run", "-m", "a.gguf"]);
    // The program reads as much as a pipe holds, so once this is written it is at it.
    child.stdin.as_mut().unwrap().write_all(&[b'x'; 200_000]).unwrap();
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_ends_the_run_quietly() {
    let sandbox = sandbox("run-pipe-closed");
    let script = format!(
        "('{}' run -q -m a.gguf --temp 0 --logit-bias 257-inf -c 100000 hi; echo \"code $?\" >&2) | head -c 3",
        env!("CARGO_BIN_EXE_metallic")
    );
    let mut shell = std::process::Command::new("sh");
    let outcome =
        crate::sandbox::outcome(shell.args(["-c", &script]).current_dir(sandbox.path("")).output().unwrap());
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("TUV", "code 0\n"));
}

/// The issue's own example, where the model is at hand.
#[test]
fn the_default_model_knows_the_capital_of_france() {
    let Some(path) = smollm2() else { return };
    let sandbox = Sandbox::new("run-france");
    let stored = sandbox.stored("catalogue/smollm2").join(path.file_name().unwrap());
    std::fs::create_dir_all(stored.parent().unwrap()).unwrap();
    std::fs::hard_link(&path, &stored).or_else(|_| std::fs::copy(&path, &stored).map(|_| ())).unwrap();
    // No Python and no hub in the sandbox: the store must do.
    let outcome = sandbox.run(&["run", "-v", "What is the capital of France?"]).succeeds();
    assert!(outcome.stdout.contains("Paris"), "{outcome:?}");
    assert!(outcome.stderr.contains("its own defaults: temperature 0"), "{outcome:?}");
    // Cut short, it is no longer the catalogue's model.
    std::fs::remove_file(&stored).unwrap();
    std::fs::write(&stored, &std::fs::read(&path).unwrap()[..1_000_000]).unwrap();
    sandbox.run(&["run", "What is the capital of France?"]).fails(4);
}

#[test]
fn an_answer_may_have_to_keep_to_a_form() {
    let sandbox = sandbox("run-form");
    let answer = |form: &[&str]| run(&sandbox, &[&["--temp", "0", "-n", "60"], form, &["hi"]].concat());
    assert_eq!(answer(&["--regex", "(no|yes)!"]).succeeds().stdout.len(), "no!\n".len());
    let schema = r#"{"type": "object", "properties": {"x": {"const": 7}}, "required": ["x"], "additionalProperties": false,
        "x-guidance": {"whitespace_flexible": false}}"#;
    sandbox.write("schema.json", schema);
    for given in [schema, "schema.json"] {
        assert_eq!(answer(&["--json-schema", given]).succeeds().stdout, "{\"x\":7}\n");
    }
    sandbox.write(
        "answer.gbnf",
        "# Either\nroot ::= (\"no\" | \"yes\") more\nmore ::= \"!\" | \"(\" more \")\"\n",
    );
    sandbox.write("wrong.gbnf", "# Or\nroot ::= x\n");
    let answered = answer(&["--grammar", "answer.gbnf"]).succeeds().stdout;
    let inner =
        answered.trim_end().trim_start_matches("no").trim_start_matches("yes").trim_start_matches('(');
    assert!(
        inner.starts_with('!') && answered.matches('(').count() == inner.matches(')').count(),
        "{answered}"
    );
    for (form, said) in [
        (["--json-schema", "{"], "--json-schema is not JSON"),
        (["--json-schema", "no-such-file.json"], "no-such-file.json"),
        (["--json-schema", r#"{"type": "shape"}"#], "the form of the answer can't be kept to"),
        (["--regex", "("], "the form of the answer can't be kept to"),
        (["--grammar", "no-such-file.gbnf"], "no-such-file.gbnf"),
        (["--grammar", "wrong.gbnf"], "line 2, column 10: there is no rule `x`"),
    ] {
        let refused = answer(&form);
        assert!(
            refused.code != Some(0) && refused.stdout.is_empty() && refused.stderr.contains(said),
            "{refused:?}"
        );
    }
    for other in [["--json-schema", "{}"], ["--grammar", "answer.gbnf"]] {
        let both = run(&sandbox, &[&["--regex", "a"], &other[..], &["hi"]].concat());
        assert!(both.code == Some(2) && both.stderr.contains("cannot be used with"), "{both:?}");
    }
}

#[test]
fn an_empty_prompt_is_refused() {
    let sandbox = sandbox("run-empty");
    for prompt in ["", " \n"] {
        assert!(run(&sandbox, &[prompt]).fails(2).contains("the prompt is empty"));
    }
}

#[test]
fn more_threads_than_any_machine_has_are_refused() {
    let outcome = run(&sandbox("run-too-many"), &["-t", "60000", "hi"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_context_larger_than_memory_is_refused() {
    let error = run(&sandbox("run-memory"), &["-c", "4000000000", "hi"]).fails(1).to_owned();
    assert!(error.contains("it takes at least 4.3 TiB") && error.contains("smaller -c"), "{error}");
}
