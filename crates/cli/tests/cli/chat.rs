//! `metallic chat`, from a pipe and on a terminal.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::alphabet::{self, Options};
use crate::run::{ANSWER, count_before};
use crate::sandbox::{Outcome, Sandbox};
use crate::terminal::Terminal;

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
    let asked = QUESTION + START;
    assert_eq!(prompts(&outcome), [asked, QUESTION + ANSWERED + asked, asked], "{outcome:?}");
    // What was said before needs no second reading.
    let second = outcome.stderr.lines().filter(|line| line.starts_with("prefill ")).nth(1).unwrap();
    assert!(count_before(second, "more").unwrap() > QUESTION, "{second}");
    assert!(
        outcome.stderr.contains("/reset  ") && outcome.stderr.contains("there is no /nonsense"),
        "{outcome:?}"
    );
    assert!(!sandbox.path("cache/chat-history").exists(), "a script's lines are no history");
}

#[test]
fn both_helps_tell_of_all_commands() {
    let sandbox = sandbox("chat-help");
    let help = sandbox.run(&["chat", "--help"]).succeeds().stdout;
    let typed = sandbox.run_with_input(&["chat", "-m", "a.gguf", "-q"], "/help\n").succeeds().stderr;
    assert!(typed.lines().count() > 10, "{typed}");
    for line in typed.lines() {
        assert!(help.contains(line), "{line} is not in {help}");
    }
}

#[test]
fn what_goes_wrong_in_a_turn_does_not_end_the_chat() {
    let sandbox = sandbox("chat-errors");
    let args = ["chat", "-m", "a.gguf", "--temp", "0", "-c", "64", "-q"];
    let long = "x".repeat(100);
    let outcome = sandbox.run_with_input(&args, format!("{long}\nhi\n"));
    assert!(outcome.fails(1).contains("64"), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
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

/// Tokens of a turn that says `hi`: the question, the opening of an answer, an answer and its end.
const QUESTION: usize = 1 + "user\nhi".len() + 1 + 1;
const START: usize = 1 + "assistant\n".len();
const ANSWERED: usize = START + ANSWER.len() + 1 + 1;

/// Tokens of each prompt, those that were cached among them.
fn prompts(outcome: &Outcome) -> Vec<usize> {
    let count = |line| Some(count_before(line, "tokens")? + count_before(line, "more").unwrap_or(0));
    outcome.stderr.lines().filter_map(count).collect()
}

#[test]
fn the_oldest_turns_give_way_when_the_context_is_full() {
    let sandbox = sandbox("chat-shift");
    // Two turns fit; of 110 tokens, only as far as the answer's beginning.
    for (n_ctx, last) in [("128", QUESTION + ANSWERED + QUESTION + START), ("110", QUESTION + START)] {
        let args = ["chat", "-m", "a.gguf", "--temp", "0", "--system", "s", "-c"];
        let outcome = sandbox.run_with_input(&[&args[..], &[n_ctx]].concat(), "hi\n".repeat(5)).succeeds();
        assert_eq!(outcome.stdout, format!("{ANSWER}\n").repeat(5), "{n_ctx}");
        assert_eq!(outcome.stderr.matches("no longer told of the oldest turns").count(), 1, "{outcome:?}");
        let system = 1 + "system\ns".len() + 1 + 1;
        assert!(
            prompts(&outcome)[1..].iter().all(|n| (system + QUESTION + START..=system + last).contains(n))
        );

        let args = [&args[..], &[n_ctx, "--no-context-shift"]].concat();
        let outcome = sandbox.run_with_input(&args, "hi\n".repeat(5));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("-c makes more room"), "{outcome:?}");
    }
}

#[test]
fn answers_are_those_to_what_the_model_is_told() {
    let sandbox = sandbox("chat-exact");
    // Chance decides, by a seed, so that every logit counts.
    let any = ["--seed", "1", "--temp", "3", "--top-k", "0", "--top-p", "1", "--min-p", "0", "-n", "20"];
    let args = [&["chat", "-m", "a.gguf", "-c", "90"][..], &any].concat();
    let shifted = sandbox.run_with_input(&args, "one\ntwo\nthree\n/save all.json\n").succeeds();
    assert!(shifted.stderr.contains("no longer told"), "{shifted:?}");
    let saved: serde_json::Value =
        serde_json::from_slice(&fs::read(sandbox.path("all.json")).unwrap()).unwrap();
    let saved = saved.as_array().unwrap();
    assert_eq!(saved.len(), 6);
    // What is left of the conversation, asked anew.
    let told = &saved[saved.len() - 2..saved.len() - 1];
    sandbox.write("told.json", serde_json::to_string(told).unwrap());
    let fresh = sandbox.run_with_input(&args, "/load told.json\n/regen\n/save again.json\n").succeeds();
    let again: serde_json::Value =
        serde_json::from_slice(&fs::read(sandbox.path("again.json")).unwrap()).unwrap();
    assert_eq!(again[1]["content"], saved[5]["content"], "{fresh:?}");
}

#[test]
fn what_was_said_can_be_taken_back_and_answered_anew() {
    let sandbox = sandbox("chat-undo");
    let args = ["chat", "-m", "a.gguf", "--temp", "0"];
    let outcome = sandbox.run_with_input(&args, "hi\n/regen\nhi\n/undo\nhi\n/reset\nhi\n").succeeds();
    let second = QUESTION + ANSWERED + QUESTION + START;
    assert_eq!(prompts(&outcome), [QUESTION + START, QUESTION + START, second, second, QUESTION + START]);
    assert!(outcome.stderr.contains("took back: hi"), "{outcome:?}");
    for nothing in ["/undo\n", "/regen\n"] {
        assert!(sandbox.run_with_input(&args, nothing).fails(2).contains("there is no"));
    }
}

#[test]
fn settings_and_the_system_message_change_in_a_chat() {
    let sandbox = sandbox("chat-set");
    let args = ["chat", "-m", "a.gguf", "--temp", "0", "-q"];
    let input = "/set n_predict 3\nhi\n/set stop V\nhi\n/set n_predict\n/system be brief\n/system\n/context\n\
                 /set temp x\n/set nonsense 1\n";
    let outcome = sandbox.run_with_input(&args, input);
    assert_eq!((outcome.stdout.as_str(), outcome.code), ("TUV\nTU\n", Some(2)), "{outcome:?}");
    let told: Vec<&str> = outcome.stderr.lines().collect();
    assert!(told[0].starts_with("n_predict            3 "), "{told:?}");
    assert_eq!(told[1], "be brief");
    assert!(told[2].contains("a.gguf: ") && told[2].contains(" of 2048 tokens for 2 turns, "), "{told:?}");
    assert!(told[3].contains("must be a number") && told[4].contains("no setting \"nonsense\""), "{told:?}");
}

#[test]
fn conversations_are_saved_whole_and_go_on_where_they_stood() {
    let sandbox = sandbox("chat-save");
    let args = ["chat", "-m", "a.gguf", "--temp", "0", "--system", "s"];
    sandbox.run_with_input(&args, "hi\n/save c.json\n").succeeds();
    let saved: serde_json::Value =
        serde_json::from_slice(&fs::read(sandbox.path("c.json")).unwrap()).unwrap();
    let expected = serde_json::json!([
        {"role": "system", "content": "s"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": ANSWER},
    ]);
    assert_eq!(saved, expected);
    let before = fs::read(sandbox.path("c.json")).unwrap();
    let again = sandbox.run_with_input(&args, "/save c.json\n");
    assert!(again.stderr.contains("another name"), "{again:?}");
    assert_ne!(again.code, Some(0));
    assert_eq!(fs::read(sandbox.path("c.json")).unwrap(), before);

    let on = ["chat", "-m", "a.gguf", "--temp", "0"];
    let outcome = sandbox.run_with_input(&on, "/load c.json\nhi\n").succeeds();
    let system = 1 + "system\ns".len() + 1 + 1;
    assert_eq!(prompts(&outcome), [system + QUESTION + ANSWERED + QUESTION + START]);
    sandbox.write("bad.json", "{\"role\": 1}");
    assert!(sandbox.run_with_input(&on, "/load bad.json\n").fails(2).contains("JSON list"));
    assert!(sandbox.run_with_input(&on, "/load none.json\n").fails(1).contains("none.json"));
    assert!(sandbox.run_with_input(&on, "/save\n").fails(2).contains("/save needs a FILE"));
}

#[test]
fn tools_are_told_of_while_they_are_there() {
    let sandbox = sandbox("chat-tools");
    sandbox.write("t.json", r#"[{"type": "function", "function": {"name": "weather"}}]"#);
    sandbox.write("t.jinja", format!("{{{{ tools[0].function.name if tools }}}}{}", alphabet::TEMPLATE));
    let args = ["chat", "-m", "a.gguf", "--temp", "0", "--chat-template", "t.jinja"];
    let outcome = sandbox.run_with_input(&args, "/tools t.json\nhi\n/reset\n/tools\nhi\n").succeeds();
    let asked = QUESTION + START;
    assert_eq!(prompts(&outcome), [asked + "weather".len(), asked]);
    assert!(sandbox.run_with_input(&args, "/tools t.jinja\n").fails(2).contains("t.jinja"));
}

#[test]
fn a_result_goes_with_the_call_that_it_answers() {
    let sandbox = Sandbox::new("chat-result");
    // It says T, calls a tool, and says the rest.
    const CALL: &str = r#"[{"tool_name": "weather", "parameters": {"city": "Paris"}}]"#;
    let spelled = &[(b'U', "<|START_ACTION|>"), (b'V', CALL), (b'W', "<|END_ACTION|>")];
    sandbox.write("a.gguf", alphabet::model_with(Options { spelled, ..Options::default() }));
    sandbox.write("t.jinja", format!("{}{{# <|START_ACTION|> #}}", alphabet::TEMPLATE));
    let args = ["chat", "-m", "a.gguf", "--temp", "0", "--chat-template", "t.jinja"];
    let outcome = sandbox.run_with_input(&args, "hi\n/result sunny\n/save c.json\n").succeeds();
    assert_eq!(outcome.stdout.matches("weather").count(), 2, "{outcome:?}");
    let saved: serde_json::Value =
        serde_json::from_slice(&fs::read(sandbox.path("c.json")).unwrap()).unwrap();
    assert_eq!(saved[1]["tool_calls"][0]["function"]["name"], "weather");
    assert_eq!(saved[2], serde_json::json!({"role": "tool", "content": "sunny", "name": "weather"}));
    assert_eq!(saved[3]["role"], "assistant");
    // Both answers are of one turn.
    assert!(
        sandbox.run_with_input(&args, "hi\n/result sunny\n/undo\n/regen\n").fails(2).contains("no message")
    );
    assert!(sandbox.run_with_input(&args, "/result sunny\n").fails(2).contains("no call"));
}

#[test]
fn several_lines_are_one_message_between_quotes_or_after_a_backslash() {
    let sandbox = sandbox("chat-lines");
    let args = ["chat", "-m", "a.gguf", "--temp", "0"];
    for (input, text) in [
        ("\"\"\"\n/one\n two\n\"\"\"\n", "/one\n two"),
        ("one\\\ntwo\n", "one\ntwo"),
        ("//etc\n", "/etc"),
        ("no line end", "no line end"),
    ] {
        let save = format!("{input}\n/save c.json\n");
        let outcome = sandbox.run_with_input(&args, save).succeeds();
        let saved = fs::read_to_string(sandbox.path("c.json")).unwrap();
        let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
        assert_eq!((&saved[0]["content"], saved.as_array().unwrap().len()), (&text.into(), 2), "{outcome:?}");
        fs::remove_file(sandbox.path("c.json")).unwrap();
    }
}

#[test]
fn without_a_home_folder_there_is_a_chat_without_history() {
    let sandbox = sandbox("chat-homeless");
    let mut terminal =
        Terminal::start_with(&sandbox, &["chat", "-m", "./a.gguf", "--temp", "0"], |command| {
            command.env_clear().env("TERM", "xterm");
        });
    terminal.wait_for("> ");
    terminal.press("hi\r");
    terminal.wait_for(ANSWER);
    terminal.wait_for("> ");
    terminal.press("\x04");
    assert_eq!(terminal.exit_code(), Some(0));
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
fn lines_that_arrive_at_once_are_all_read() {
    let sandbox = sandbox("chat-burst");
    let mut terminal = Terminal::start(&sandbox, &["chat", "-m", "a.gguf", "--temp", "0"]);
    terminal.wait_for("> ");
    terminal.press("one\rtwo\r\"\"\"\rthree\rfour\r\"\"\"\rfive \\\rsix\r/save c.json\r");
    terminal.wait_for("8 messages in c.json");
    // While the model speaks, too.
    terminal.press("/reset\rseven\r");
    terminal.wait_for("TUV");
    terminal.press("eight\r/save d.json\r/exit\r");
    terminal.wait_for("4 messages in d.json");
    assert_eq!(terminal.exit_code(), Some(0));
    let saved: serde_json::Value =
        serde_json::from_slice(&fs::read(sandbox.path("c.json")).unwrap()).unwrap();
    let asked: Vec<&str> = (0..4).map(|i| saved[2 * i]["content"].as_str().unwrap()).collect();
    assert_eq!(asked, ["one", "two", "three\nfour", "five \nsix"]);
}

#[test]
fn what_is_pasted_is_one_message_whatever_lines_it_has() {
    let sandbox = sandbox("chat-paste");
    let mut terminal = Terminal::start(&sandbox, &["chat", "-m", "a.gguf", "--temp", "0"]);
    terminal.wait_for("> ");
    terminal.press("\x1b[200~one\ntwo\n\n  three\x1b[201~\r/save c.json\r/exit\r");
    terminal.wait_for("2 messages in c.json");
    assert_eq!(terminal.exit_code(), Some(0));
    let saved = fs::read_to_string(sandbox.path("c.json")).unwrap();
    assert!(saved.contains(r#""one\ntwo\n\n  three""#), "{saved}");
}

#[test]
fn an_entry_is_kept_when_it_is_made_and_two_chats_keep_both_theirs() {
    let sandbox = sandbox("chat-histories");
    let start = || {
        let mut terminal = Terminal::start(&sandbox, &["chat", "-m", "a.gguf", "--temp", "0", "-n", "1"]);
        terminal.wait_for("> ");
        terminal
    };
    let mut chats = [start(), start()];
    for (chat, text) in [(0, "one\r"), (1, "two\r"), (0, "three\r")] {
        chats[chat].press(text);
        chats[chat].wait_for("prefill ");
        chats[chat].wait_for("> ");
    }
    for terminal in chats {
        terminal.kill();
    }
    assert_eq!(fs::read_to_string(sandbox.path("cache/chat-history")).unwrap(), "#V2\none\ntwo\nthree\n");
}

#[test]
fn on_a_terminal_nothing_is_read_unasked_and_colours_are_on() {
    let sandbox = sandbox("chat-colours");
    let mut terminal = Terminal::start(&sandbox, &["run"]);
    terminal.wait_for("no prompt: give the prompt as an argument");
    assert_eq!(terminal.exit_code(), Some(2));
    let mut terminal = Terminal::start(&sandbox, &["run", "-m", "no-such.gguf", "x"]);
    terminal.wait_for("\x1b[31merror:");
    assert_eq!(terminal.exit_code(), Some(4));
    let mut terminal = Terminal::start(&sandbox, &["run", "-m", "no-such.gguf", "x", "--color", "never"]);
    terminal.wait_for("error: there is no file");
    assert_eq!(terminal.exit_code(), Some(4));
}
