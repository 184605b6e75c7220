//! Chat templates of the user's choice, reasoning, and calls of tools.

use crate::alphabet::{self, Options, TEMPLATE};
use crate::run::{ANSWER, count_before};
use crate::sandbox::{Outcome, Sandbox};

const TOOLS: &str = r#"[{"type": "function", "function": {"name": "weather", "parameters": {}}}]"#;

/// A model that says `TU`, thinks `W`, says `Y`, and calls a tool.
pub(crate) fn thinker(test: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    let spelled = &[
        (b'V', "<|START_THINKING|>"),
        (b'X', "<|END_THINKING|>"),
        (b'Z', "<|START_ACTION|>"),
        (b'[', r#"[{"tool_name": "weather", "parameters": {"city": "Paris"}}]"#),
        (b'\\', "<|END_ACTION|>"),
    ];
    sandbox.write("a.gguf", alphabet::model_with(Options { spelled, ..Options::default() }));
    sandbox.write("cohere.jinja", format!("{TEMPLATE}{{# <|START_THINKING|> <|START_ACTION|> #}}"));
    sandbox.write(
        "tools.jinja",
        format!("{{{{ tools[0].function.name if tools }}}}{TEMPLATE}{{# <|START_ACTION|> #}}"),
    );
    sandbox.write("tools.json", TOOLS);
    sandbox
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    sandbox.run(&[&["run", "-m", "a.gguf", "--temp", "0"], args].concat())
}

#[test]
fn a_template_is_a_file_or_a_name() {
    let sandbox = Sandbox::new("answers-template");
    sandbox.write("a.gguf", alphabet::model());
    sandbox.write("short.jinja", "{{ messages[0].content }}\n\n");
    sandbox.write("broken.jinja", "{% if %}");
    let answer = |template: &str| run(&sandbox, &["--chat-template", template, "hi"]).succeeds();
    assert_eq!(answer("default").stdout, format!("{ANSWER}\n"));
    assert_eq!(answer("default").stderr.split(" at ").next(), answer("chatml").stderr.split(" at ").next());
    let short = answer("short.jinja");
    assert_eq!((short.stdout, count_before(&short.stderr, "tokens")), (format!("{ANSWER}\n"), Some(3)));

    let unknown = run(&sandbox, &["--chat-template", "chattml", "hi"]);
    let error = unknown.fails(2);
    assert!(error.contains("the model has default; built in are chatml, gemma"), "{error}");
    let broken = run(&sandbox, &["--chat-template", "broken.jinja", "hi"]);
    assert!(broken.fails(2).contains("broken.jinja") && broken.stderr.contains("line 1"), "{broken:?}");

    // A model without a template of its own, or with one that can't be used.
    for template in [None, Some("{% if %}")] {
        sandbox.write("a.gguf", alphabet::model_with(Options { template, ..Options::default() }));
        assert_eq!(answer("chatml").stdout, format!("{ANSWER}\n"));
    }
    assert!(run(&sandbox, &["hi"]).fails(3).contains("--chat-template"));
}

#[test]
fn reasoning_is_dimmed_or_hidden() {
    let sandbox = thinker("answers-reasoning");
    let say = |args: &[&str]| {
        run(&sandbox, &[&["-n", "6", "--chat-template", "cohere.jinja"], args, &["hi"]].concat())
            .succeeds()
            .stdout
    };
    assert_eq!(say(&[]), "TU\n\nW\n\nY\n");
    assert_eq!(say(&["--reasoning", "show", "--color", "always"]), "TU\n\n\x1b[2mW\x1b[0m\n\nY\n");
    assert_eq!(say(&["--reasoning", "hide"]), "TUY\n");
    // Nothing in the model's own template says that it thinks: control tokens have no text.
    assert_eq!(run(&sandbox, &["-n", "6", "hi"]).succeeds().stdout, "TUWY\n");
}

#[test]
fn earlier_reasoning_is_left_to_the_template() {
    let sandbox = thinker("answers-history");
    let prompt = |template: &str| {
        let args = ["chat", "-m", "a.gguf", "--temp", "0", "-n", "6", "--chat-template", template];
        let outcome = sandbox.run_with_input(&args, "hi\nhi\n").succeeds();
        let count = |line| Some(count_before(line, "tokens")? + count_before(line, "more").unwrap_or(0));
        outcome.stderr.lines().filter_map(count).nth(1).expect("a second turn")
    };
    let (turn, start) = (1 + "user\nhi".len() + 1 + 1, 1 + "assistant\n".len());
    let without = turn + start + "TUY".len() + 1 + 1 + turn + start;
    assert_eq!(prompt("cohere.jinja"), without);
    let thoughts = "{% for m in messages %}{{ m.reasoning_content }}{% endfor %}";
    sandbox.write("keeps.jinja", format!("{thoughts}{TEMPLATE}{{# <|START_THINKING|> #}}"));
    assert_eq!(prompt("keeps.jinja"), without + "W".len());
}

#[test]
fn calls_of_tools_are_lines_of_json() {
    let sandbox = thinker("answers-tools");
    let with_tools = ["--chat-template", "tools.jinja", "--tools", "tools.json"];
    let outcome = run(&sandbox, &[&with_tools[..], &["-n", "9", "hi"]].concat()).succeeds();
    let line = r#"{"name":"weather","arguments":{"city":"Paris"}}"#;
    assert_eq!(outcome.stdout, format!("TUWY\n{line}\n"));
    let n_prompt = |outcome: &Outcome| count_before(&outcome.stderr, "tokens").expect("a count");
    let without = run(&sandbox, &["--chat-template", "tools.jinja", "-n", "9", "hi"]).succeeds();
    assert_eq!(n_prompt(&outcome), n_prompt(&without) + "weather".len());

    // Cut short, it is no call: what was said is shown, and that it is one that can't be read is told.
    let cut = run(&sandbox, &[&with_tools[..], &["-n", "7", "hi"]].concat()).succeeds();
    assert_eq!(cut.stdout, "TUWY<|START_ACTION|>\n");
    assert!(cut.stderr.contains("can't be read"), "{cut:?}");

    let nowhere = run(&sandbox, &["--tools", "tools.json", "hi"]);
    assert!(nowhere.fails(3).contains("no place for tools"), "{nowhere:?}");
}

#[test]
fn tools_are_a_list_of_functions_with_names() {
    let sandbox = thinker("answers-tool-lists");
    for wrong in [
        "{}",
        "[1]",
        r#"["weather"]"#,
        "[{}]",
        r#"{"tools": []}"#,
        r#"[{"type": "function"}]"#,
        r#"[{"type": "function", "function": "weather"}]"#,
        r#"[{"type": "function", "function": {"name": ""}}]"#,
        r#"[{"type": "retrieval", "function": {"name": "weather"}}]"#,
        r#"[{"name": 1}]"#,
    ] {
        sandbox.write("tools.json", wrong);
        let outcome = run(&sandbox, &["--chat-template", "tools.jinja", "--tools", "tools.json", "hi"]);
        assert!(outcome.fails(2).contains("tools.json is not a list of tools"), "{wrong} {outcome:?}");
    }
    // A function by itself is put as the API has it.
    for right in [r#"[{"name": "weather"}]"#, r#"[{"function": {"name": "weather"}}]"#, TOOLS] {
        sandbox.write("tools.json", right);
        let args = ["--chat-template", "tools.jinja", "--tools", "tools.json", "-n", "1", "hi"];
        let n_prompt = count_before(&run(&sandbox, &args).succeeds().stderr, "tokens");
        assert_eq!(
            n_prompt,
            Some("weather".len() + 1 + "user\nhi".len() + 3 + "assistant\n".len()),
            "{right}"
        );
    }
}

#[test]
fn a_thought_that_the_prompt_opens_is_hidden() {
    let sandbox = Sandbox::new("answers-opened");
    let spelled = &[(b'V', "</think>")];
    sandbox.write("a.gguf", alphabet::model_with(Options { spelled, ..Options::default() }));
    sandbox.write("opens.jinja", TEMPLATE.replace("assistant\\n", "assistant\\n<think>\\n"));
    let say = |args: &[&str]| run(&sandbox, &[&["-n", "4"], args, &["hi"]].concat()).succeeds().stdout;
    assert_eq!(say(&["--chat-template", "opens.jinja", "--reasoning", "hide"]), "W\n");
    assert_eq!(say(&["--reasoning", "hide"]), "TU</think>W\n");
    // An answer that is all thought is not just empty.
    let thought =
        run(&sandbox, &["-n", "2", "--chat-template", "opens.jinja", "--reasoning", "hide", "hi"]).succeeds();
    assert!(thought.stderr.contains("`--reasoning show`"), "{thought:?}");
}

#[test]
fn an_empty_template_is_none() {
    let sandbox = Sandbox::new("answers-empty");
    for template in ["", " \n"] {
        sandbox.write(
            "a.gguf",
            alphabet::model_with(Options { template: Some(template), ..Options::default() }),
        );
        assert_eq!(run(&sandbox, &["-n", "2", "a"]).succeeds().stdout, "bc\n");
        let chat = sandbox.run_with_input(&["chat", "-m", "a.gguf"], "hi\n");
        assert!(chat.fails(3).contains("no chat template"), "{chat:?}");
    }
    sandbox.write("empty.jinja", "\n");
    let given = run(&sandbox, &["--chat-template", "empty.jinja", "hi"]);
    assert!(given.fails(2).contains("empty.jinja: the template is empty"), "{given:?}");
}

#[test]
fn of_templates_for_some_uses_one_must_be_chosen() {
    let sandbox = Sandbox::new("answers-named");
    let named = &[("rag", TEMPLATE), ("short", "{{ messages[0].content }}\n\n")];
    sandbox.write("a.gguf", alphabet::model_with(Options { template: None, named, ..Options::default() }));
    let error = run(&sandbox, &["hi"]);
    assert!(error.fails(3).contains("only rag, short: choose one: `--chat-template NAME` does"), "{error:?}");
    assert_eq!(run(&sandbox, &["--chat-template", "short", "hi"]).succeeds().stdout, format!("{ANSWER}\n"));
}

#[test]
fn an_error_of_a_template_is_told_once_with_its_file() {
    let sandbox = Sandbox::new("answers-error");
    sandbox.write(
        "a.gguf",
        alphabet::model_with(Options { template: Some("\n{{ nothing.x }}"), ..Options::default() }),
    );
    sandbox.write("other.jinja", "{{ raise_exception('not so') }}");
    let own = run(&sandbox, &["hi"]);
    let error = own.fails(1);
    assert!(error.contains("a.gguf: the chat template failed: ") && error.contains("(line 2)"), "{error}");
    assert_eq!(error.matches("undefined").count(), 1, "{error}");
    let other = run(&sandbox, &["--chat-template", "other.jinja", "hi"]);
    let error = other.fails(1);
    assert!(error.contains("other.jinja: the chat template refuses this conversation: not so"), "{error}");
    assert_eq!(error.matches("not so").count(), 1, "{error}");
}

#[test]
fn times_are_those_of_the_place() {
    let sandbox = Sandbox::new("answers-time");
    sandbox.write("a.gguf", alphabet::model());
    sandbox.write("time.jinja", "{{ raise_exception(strftime_now('<%H:%M>')) }}");
    let minute = |zone: &str| {
        let args = ["run", "-m", "a.gguf", "--chat-template", "time.jinja", "hi"];
        let output = sandbox.command(&args).env("TZ", zone).output().expect("an outcome");
        let error = String::from_utf8(output.stderr).expect("text");
        let time = error.split(['<', '>']).nth(1).and_then(|time| time.split_once(':')).expect("a time");
        let [hour, minute] = [time.0, time.1].map(|number| number.parse::<i32>().expect("a number"));
        hour * 60 + minute
    };
    // A POSIX zone says how far it is behind. A minute may pass between the two.
    let [utc, ahead] = [minute("UTC0"), minute("XXX-05:30")];
    assert!([330, 331].contains(&(ahead - utc).rem_euclid(24 * 60)), "{utc} and {ahead}");
}
