//! `metallic run MODEL PROMPT`: which argument is the model, and where the prompt comes from.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::alphabet;
use crate::run::count_before;
use crate::sandbox::{Outcome, Sandbox, outcome};

fn sandbox(test: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write("a.gguf", alphabet::model());
    sandbox
}

const SHORT: [&str; 6] = ["--raw", "--temp", "0", "-n", "2", "-q"];

fn run(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    sandbox.run(&[&["run"], &SHORT[..], args].concat())
}

#[test]
fn the_first_argument_may_be_the_model() {
    let sandbox = sandbox("question-model");
    for args in
        [&["a.gguf", "abc"][..], &["./a.gguf", "abc"], &["a.gguf", "x", "abc"], &["a.gguf", "-p", "abc"]]
    {
        assert_eq!(run(&sandbox, args).succeeds().stdout, "de\n", "{args:?}");
    }
    assert_eq!(
        run(&sandbox, &["-m", "a.gguf", "a.gguf"]).succeeds().stdout,
        "gh\n",
        "after -m all is prompt"
    );
    assert_eq!(run(&sandbox, &["a.gguf", "--", "-m"]).succeeds().stdout, "no\n");
    assert!(run(&sandbox, &["no.gguf", "abc"]).fails(4).contains("no.gguf"));
    assert!(run(&sandbox, &["no/such", "abc"]).fails(4).contains("`--`"));
    let misspelt = run(&sandbox, &["smolm2", "Why is the sky blue?"]);
    assert!(misspelt.fails(4).contains("no model is called smolm2: did you mean smollm2?"), "{misspelt:?}");
    // What names no model goes to the default one, which this sandbox can't download; a word alone is doubted.
    let doubted = sandbox.run(&["run", "mistral", "Why is the sky blue?"]);
    doubted.fails(4);
    assert!(doubted.stderr.contains("no model is called \"mistral\""), "{doubted:?}");
    assert!(!sandbox.run(&["run", "Why", "is", "it", "blue?"]).stderr.contains("no model is called"));
}

#[test]
fn a_prompt_comes_from_a_file_a_pipe_and_arguments() {
    let sandbox = sandbox("question-sources");
    sandbox.write("abc.txt", "abc\n");
    let with = |args: &[&str], input: &str| {
        let args = [&["run", "a.gguf", "--raw", "--temp", "0", "-n", "2"], args].concat();
        let outcome = sandbox.run_with_input(&args, input).succeeds();
        (outcome.stdout, count_before(&outcome.stderr, "tokens").unwrap())
    };
    for (args, input, expected, prompt) in [
        (&["-f", "abc.txt"][..], "", "de\n", "abc"),
        (&["-f", "-"], "xyz\nab\n", "cd\n", "xyz\nab"),
        (&["Review this:"], "abc\n", "de\n", "Review this:\n\nabc"),
        (&["-p", "x", "-f", "abc.txt"], "", "de\n", "x\n\nabc"),
        (&["x", "-f", "abc.txt"], "ij\r\n", "kl\n", "x\n\nabc\n\nij"),
        (&["abc"], "", "de\n", "abc"),
    ] {
        assert_eq!(with(args, input), (expected.to_owned(), prompt.len()), "{args:?} {input:?}");
    }
    assert!(run(&sandbox, &["a.gguf", "-f", "no.txt"]).fails(1).contains("no.txt"));
    assert_eq!(
        run(&sandbox, &["-m", "a.gguf", "abc"]).succeeds().stdout,
        "de\n",
        "nothing on standard input"
    );
}

/// As in a loop of a shell, which reads its own lines from there.
#[test]
fn what_is_refused_leaves_standard_input_alone() {
    let sandbox = sandbox("question-refused");
    sandbox.write("refuses.jinja", "{{ raise_exception('not so') }}");
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"the next line\n").unwrap();
    let mut command = sandbox.command(&["run", "a.gguf", "--chat-template", "refuses.jinja", "hi"]);
    let refused = outcome(command.stdin(reader.try_clone().unwrap()).output().unwrap());
    assert!(refused.fails(1).contains("not so"));
    drop(writer);
    let mut left = String::new();
    reader.read_to_string(&mut left).unwrap();
    assert_eq!(left, "the next line\n");
}

/// As from a program that starts this one and keeps a pipe to it, or from `ssh` without a terminal.
#[test]
fn a_pipe_that_nothing_comes_through_holds_no_prompt_up() {
    let sandbox = sandbox("question-held");
    let start = Instant::now();
    let mut child = sandbox.spawn(&["run", "a.gguf", "--temp", "0", "-n", "2", "hi"]);
    let held = child.stdin.take().unwrap();
    let answered = outcome(child.wait_with_output().unwrap()).succeeds();
    drop(held);
    assert_eq!(answered.stdout, "TU\n");
    assert!(answered.stderr.contains("nothing came on standard input"), "{answered:?}");
    assert!(start.elapsed() < Duration::from_secs(20));

    // Once text has begun, or where it was asked for, it may take its time.
    for args in [&["-f", "-"][..], &["abc"]] {
        let mut child = sandbox.spawn(&[&["run", "a.gguf"], &SHORT[..], args].concat());
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_secs(4));
        pipe.write_all(b"ij").unwrap();
        drop(pipe);
        assert_eq!(outcome(child.wait_with_output().unwrap()).succeeds().stdout, "kl\n", "{args:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_model_alone_on_a_terminal_opens_a_chat() {
    use crate::terminal::Terminal;
    let sandbox = sandbox("question-chat");
    for args in [&["run", "a.gguf"][..], &["run", "-m", "a.gguf"], &["chat", "a.gguf"]] {
        let mut terminal = Terminal::start(&sandbox, &[args, &["--temp", "0", "-n", "4"]].concat());
        terminal.wait_for("> ");
        terminal.press("hi\r");
        terminal.wait_for("TUVW");
        terminal.press("/exit\r");
        assert_eq!(terminal.exit_code(), Some(0), "{args:?}");
    }
    for args in [&["run", "a.gguf", "--raw"][..], &["run", "a.gguf", "--json"], &["run"]] {
        let (screen, code) = Terminal::start(&sandbox, args).rest();
        assert_eq!((screen.contains("no prompt"), code), (true, Some(2)), "{args:?} {screen}");
    }
}

#[cfg(unix)]
#[test]
fn while_a_long_prompt_is_read_its_tokens_are_counted() {
    use crate::terminal::Terminal;
    let sandbox = sandbox("question-progress");
    sandbox.write("long.txt", "abc".repeat(20_000));
    let args = ["run", "a.gguf", "-f", "long.txt", "-c", "64000", "-b", "16", "-t", "1", "-n", "1", "-q"];
    let mut terminal = Terminal::start(&sandbox, &args[..args.len() - 1]);
    terminal.wait_for("reading the prompt: ");
    terminal.wait_for(" of 60");
    terminal.interrupt();
    let (_, code) = terminal.rest();
    assert_eq!(code, Some(130));
    // A terminal that takes nothing back is shown no progress, and who wants quiet neither.
    for (kind, args) in [("dumb", &args[..args.len() - 1]), ("xterm", &args)] {
        let terminal = Terminal::start_with(&sandbox, args, |command| {
            command.env("TERM", kind);
        });
        std::thread::sleep(Duration::from_secs(2));
        terminal.interrupt();
        let (screen, _) = terminal.rest();
        assert!(!screen.contains("reading the prompt") && !screen.contains('\x1b'), "{screen}");
    }
}
