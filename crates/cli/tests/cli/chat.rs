//! `metallic chat`, from a pipe and on a terminal.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;

use crate::alphabet::{self, Options};
use crate::run::{ANSWER, count_before};
use crate::sandbox::Sandbox;

fn sandbox(test: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write("a.gguf", alphabet::model());
    sandbox
}

#[test]
fn turns_are_answered_and_remembered_until_reset() {
    let sandbox = sandbox("chat-turns");
    let args = ["chat", "-m", "a.gguf", "--temp", "0"];
    let outcome =
        sandbox.run_with_input(&args, "hi\nhi\n\n/reset\nhi\n/help\n/nonsense\n/exit\nhi\n").succeeds();
    assert_eq!(outcome.stdout, format!("{ANSWER}\n").repeat(3));
    let count = |line| Some(count_before(line, "tokens")? + count_before(line, "more").unwrap_or(0));
    let counts: Vec<usize> = outcome.stderr.lines().filter_map(count).collect();
    let turn = 1 + "user\nhi".len() + 1 + 1;
    let start = 1 + "assistant\n".len();
    let answered = start + ANSWER.len() + 1 + 1;
    assert_eq!(counts, [turn + start, turn + answered + turn + start, turn + start], "{outcome:?}");
    // What was said before needs no second reading.
    let second = outcome.stderr.lines().filter(|line| line.starts_with("prefill ")).nth(1).unwrap();
    assert!(count_before(second, "more").unwrap() > turn, "{second}");
    assert!(
        outcome.stderr.contains("/reset   forget") && outcome.stderr.contains("no /nonsense"),
        "{outcome:?}"
    );
    assert!(!sandbox.path("cache/chat-history").exists(), "a script's lines are no history");
}

#[test]
fn what_goes_wrong_in_a_turn_does_not_end_the_chat() {
    let sandbox = sandbox("chat-errors");
    let args = ["chat", "-m", "a.gguf", "--temp", "0", "-c", "64", "-q"];
    let long = "x".repeat(100);
    let outcome = sandbox.run_with_input(&args, format!("{long}\nhi\n")).succeeds();
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains("64"), "{outcome:?}");
    assert_eq!(outcome.stdout, format!("{ANSWER}\n"));
}

#[test]
fn a_model_without_template_can_not_chat() {
    let sandbox = Sandbox::new("chat-template");
    sandbox.write("a.gguf", alphabet::model_with(Options { template: None, ..Options::default() }));
    let outcome = sandbox.run(&["chat", "-m", "a.gguf"]);
    let advice = outcome.fails(3);
    assert!(advice.contains("metallic run --raw") && advice.contains("--chat-template"), "{outcome:?}");
    let args = ["chat", "-m", "a.gguf", "--temp", "0", "--chat-template", "chatml"];
    assert_eq!(sandbox.run_with_input(&args, "hi\n").succeeds().stdout, format!("{ANSWER}\n"));
}

/// The program on a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    screen: Receiver<u8>,
    seen: String,
}

impl Terminal {
    fn start(sandbox: &Sandbox, args: &[&str]) -> Self {
        let pty = openpty(None, None).unwrap();
        let end = |fd: &OwnedFd| fd.try_clone().unwrap();
        let mut command = sandbox.command(args);
        command.env("TERM", "xterm").stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(pty.slave);
        let child = command.spawn().unwrap();
        // The command holds the terminal's other end; with it gone, reading ends when the program does.
        drop(command);
        let mut output = File::from(end(&pty.master));
        let (send, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut byte = [0];
            while output.read_exact(&mut byte).is_ok() && send.send(byte[0]).is_ok() {}
        });
        Terminal { child, keys: File::from(pty.master), screen, seen: String::new() }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen has shown `text` since the last such wait.
    fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.seen.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            let byte = self.screen.recv_timeout(left);
            let byte =
                byte.unwrap_or_else(|e| panic!("{e} while waiting for {text:?}; so far: {:?}", self.seen));
            self.seen.push(byte.into());
        }
        self.seen.clear();
    }

    fn interrupt(&self) {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let sandbox = sandbox("chat-interrupt");
    let endless = ["chat", "-m", "a.gguf", "--temp", "0", "--logit-bias", "257-inf", "-c", "100000"];
    let mut terminal = Terminal::start(&sandbox, &endless);
    terminal.wait_for("> ");
    terminal.press("hi\r");
    terminal.wait_for("TUVW");
    terminal.interrupt();
    terminal.wait_for("prefill ");
    terminal.wait_for("> ");
    terminal.press("again\r");
    terminal.wait_for("TUVW");
    terminal.interrupt();
    terminal.wait_for("> ");
    terminal.press("/exit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn while_a_model_thinks_unseen_there_is_a_sign_of_life() {
    let sandbox = sandbox("chat-thinks");
    sandbox.write("think.jinja", format!("{}<think>\n{{# </think> #}}", alphabet::TEMPLATE));
    let endless = ["--temp", "0", "--logit-bias", "257-inf", "-c", "100000"];
    let thinking = ["chat", "-m", "a.gguf", "--chat-template", "think.jinja", "--reasoning"];
    let mut terminal = Terminal::start(&sandbox, &[&thinking[..], &["hide"], &endless].concat());
    terminal.wait_for("> ");
    terminal.press("hi\r");
    terminal.wait_for("thinking");
    terminal.interrupt();
    terminal.wait_for("prefill ");
    terminal.press("/exit\r");
    assert_eq!(terminal.exit_code(), Some(0));
    let mut terminal = Terminal::start(&sandbox, &[&thinking[..], &["show"], &endless].concat());
    terminal.wait_for("> ");
    terminal.press("hi\r");
    terminal.wait_for("\x1b[2mU");
    terminal.interrupt();
    terminal.wait_for("prefill ");
    terminal.press("/exit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn at_the_prompt_ctrl_d_leaves_and_so_does_ctrl_c_twice() {
    let sandbox = sandbox("chat-leave");
    let mut terminal = Terminal::start(&sandbox, &["chat", "-m", "a.gguf"]);
    terminal.wait_for("> ");
    terminal.press("\x04");
    assert_eq!(terminal.exit_code(), Some(0));

    let mut terminal = Terminal::start(&sandbox, &["chat", "-m", "a.gguf"]);
    terminal.wait_for("> ");
    terminal.press("\x03");
    terminal.wait_for("again");
    terminal.wait_for("> ");
    terminal.press("\x03");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn history_outlives_the_program_and_is_private() {
    let sandbox = sandbox("chat-history");
    let args = ["chat", "-m", "a.gguf", "--temp", "0", "-n", "1"];
    let mut terminal = Terminal::start(&sandbox, &args);
    terminal.wait_for("> ");
    terminal.press("remember this\r");
    terminal.wait_for("prefill ");
    terminal.wait_for("> ");
    terminal.press("/exit\r");
    assert_eq!(terminal.exit_code(), Some(0));
    let history = sandbox.path("cache/chat-history");
    assert!(fs::read_to_string(&history).unwrap().contains("remember this"));
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);

    let mut terminal = Terminal::start(&sandbox, &args);
    terminal.wait_for("> ");
    // Two lines up: past /exit.
    terminal.press("\x1b[A\x1b[A");
    terminal.wait_for("remember this");
    terminal.press("\x15\x04");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn on_a_terminal_nothing_is_read_unasked_and_colours_are_on() {
    let sandbox = sandbox("chat-colours");
    let mut terminal = Terminal::start(&sandbox, &["run", "-m", "a.gguf"]);
    terminal.wait_for("no prompt: give the prompt as an argument");
    assert_eq!(terminal.exit_code(), Some(2));
    let mut terminal = Terminal::start(&sandbox, &["run", "-m", "no-such.gguf", "x"]);
    terminal.wait_for("\x1b[31merror:");
    assert_eq!(terminal.exit_code(), Some(4));
    let mut terminal = Terminal::start(&sandbox, &["run", "-m", "no-such.gguf", "x", "--color", "never"]);
    terminal.wait_for("error: there is no file");
    assert_eq!(terminal.exit_code(), Some(4));
}
