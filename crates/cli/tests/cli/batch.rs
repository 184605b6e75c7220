//! `metallic batch`: answers are what `run` says, and each stands in the output once, however often it was stopped.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::sandbox::{Outcome, Sandbox};
#[cfg(unix)]
use crate::sandbox::{kill, outcome, wait_for};

const ARGS: [&str; 12] =
    ["batch", "-m", "tiny.gguf", "in.jsonl", "-o", "out.jsonl", "-c", "128", "--parallel", "3", "-t", "2"];
const N_REQUESTS: usize = 12;

/// A request that goes on with a text, at temperature 0.
fn request(custom_id: &str, prompt: &str, max_tokens: usize) -> String {
    let body = json!({ "model": "gpt-4o", "prompt": prompt, "temperature": 0, "max_tokens": max_tokens });
    let request = json!({ "custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": body });
    format!("{request}\n")
}

fn requests() -> String {
    (0..N_REQUESTS).map(|i| request(&format!("r{i}"), &format!("{} begins {i}", i % 3), 20)).collect()
}

fn sandbox(test: &str, input: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write("tiny.gguf", metallic::testing::tiny_model().unwrap());
    sandbox.write("in.jsonl", input);
    sandbox
}

fn lines(sandbox: &Sandbox) -> Vec<Value> {
    let text = fs::read_to_string(sandbox.path("out.jsonl")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The text of each answer, by what its request is called. There may be one of each.
#[track_caller]
fn texts(lines: &[Value]) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for line in lines {
        assert_eq!((&line["response"]["status_code"], &line["error"]), (&json!(200), &Value::Null), "{line}");
        let text = line["response"]["body"]["choices"][0]["text"].as_str().unwrap().to_owned();
        let before = texts.insert(line["custom_id"].as_str().unwrap().to_owned(), text);
        assert_eq!(before, None, "{line}");
    }
    texts
}

#[test]
fn answers_are_what_the_command_says() {
    let sandbox = sandbox("batch-answers", &requests());
    let outcome = sandbox.run(&ARGS).succeeds();
    assert!(outcome.stderr.contains("12 of 12 requests are answered"), "{outcome:?}");
    let texts = texts(&lines(&sandbox));
    assert_eq!(texts.len(), N_REQUESTS);
    for i in 0..N_REQUESTS {
        let prompt = format!("{} begins {i}", i % 3);
        let args = ["run", "-m", "tiny.gguf", "--raw", "--temp", "0", "-n", "20", "-c", "128", &prompt];
        let said = sandbox.run(&args).succeeds().stdout;
        assert_eq!(texts[&format!("r{i}")].trim_end(), said.trim_end());
    }
    let usage = &lines(&sandbox)[0]["response"]["body"]["usage"];
    assert_eq!(usage["completion_tokens"], 20);
    // Again there is nothing to do.
    let before = fs::read(sandbox.path("out.jsonl")).unwrap();
    let outcome = sandbox.run(&ARGS).succeeds();
    assert!(outcome.stderr.contains("all of 12 requests are answered"), "{outcome:?}");
    assert_eq!(fs::read(sandbox.path("out.jsonl")).unwrap(), before);
}

/// Wherever the output ends, the next run makes it whole.
#[test]
fn an_output_that_was_cut_anywhere_is_gone_on_with() {
    let sandbox = sandbox("batch-cut", &requests());
    sandbox.run(&ARGS).succeeds();
    let whole = fs::read(sandbox.path("out.jsonl")).unwrap();
    let expected = texts(&lines(&sandbox));
    let ends: Vec<usize> = (0..whole.len()).filter(|i| whole[*i] == b'\n').map(|i| i + 1).collect();
    for cut in [0, 1, 5, 17, 40, ends[0] - 1, ends[0], ends[0] + 1, ends[4] + 30, whole.len() - 1] {
        fs::write(sandbox.path("out.jsonl"), &whole[..cut]).unwrap();
        sandbox.run(&ARGS).succeeds();
        assert_eq!(texts(&lines(&sandbox)), expected, "cut at {cut}");
    }
}

#[cfg(unix)]
#[test]
fn one_that_is_killed_or_stopped_goes_on() {
    for (signal, code) in [("-KILL", None), ("-INT", Some(130)), ("-TERM", Some(143))] {
        let long: String = (0..40).map(|i| request(&format!("r{i}"), &format!("text {i}"), 100)).collect();
        let sandbox = sandbox(&format!("batch-stopped{signal}"), &long);
        let mut n_runs = 0;
        loop {
            let child = sandbox.spawn(&ARGS);
            let n_lines = || {
                fs::read(sandbox.path("out.jsonl"))
                    .map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count())
            };
            let (before, started) = (n_lines(), std::time::Instant::now());
            wait_for("another answer", || n_lines() > before || started.elapsed().as_secs() > 5);
            kill(signal, &child);
            let outcome = outcome(child.wait_with_output().unwrap());
            n_runs += 1;
            if n_runs == 3 || outcome.code == Some(0) {
                break;
            }
            assert_eq!(outcome.code, code, "{outcome:?}");
            if code.is_some() {
                assert!(outcome.stderr.contains("of 40 requests are answered"), "{outcome:?}");
                assert!(outcome.stderr.contains("the same command goes on from there"), "{outcome:?}");
            }
        }
        sandbox.run(&ARGS).succeeds();
        assert_eq!(texts(&lines(&sandbox)).len(), 40);
    }
}

#[test]
fn a_line_that_is_no_request_becomes_an_error_that_names_it() {
    let body = json!({ "prompt": "a", "max_tokens": 2 });
    let with = |field: &str, value: Value| {
        let mut request: Value = serde_json::from_str(&request("x", "a", 2)).unwrap();
        request[field] = value;
        format!("{request}\n")
    };
    let input = [
        format!("\u{feff}{}\r\n", request("a", "one", 3).trim_end()),
        "{\"custom_id\": \n".to_owned(),
        with("url", json!("/v1/embeddings")),
        with("method", json!("GET")),
        with("body", json!({ "prompt": "a", "stream": true })),
        request("a", "two", 3),
        "\n".to_owned(),
        with("magic", body),
        format!("{}\n", "a".repeat(5 << 20)),
        with("custom_id", json!(7)),
        request("b", "three", 3),
        // What the server refuses is an answer with its status.
        request("c", "four", 3).replace("\"temperature\":0", "\"temperature\":-1"),
        // The last line needs no end.
        request("d", "five", 3).trim_end().to_owned(),
    ];
    let sandbox = sandbox("batch-wrong", &input.concat());
    let outcome = sandbox.run(&ARGS).succeeds();
    assert!(outcome.stderr.contains("8 lines are no requests"), "{outcome:?}");
    assert!(outcome.stderr.contains("4 of 4 requests are answered, 1 of them with an error"), "{outcome:?}");
    let all = lines(&sandbox);
    let errors: BTreeMap<u64, String> = all
        .iter()
        .filter(|line| line["response"].is_null())
        .map(|line| {
            let error = &line["error"];
            (error["line"].as_u64().unwrap(), error["message"].as_str().unwrap().to_owned())
        })
        .collect();
    for (line, said) in [
        (2, "at column"),
        (3, "url: it must be one of"),
        (4, "method: it must be POST"),
        (5, "body.stream"),
        (6, "custom_id: \"a\" is what line 1 is called"),
        (8, "unknown field `magic`"),
        (9, "more than"),
        (10, "invalid type: integer `7`"),
    ] {
        assert!(
            errors[&line].starts_with(&format!("line {line}: ")) && errors[&line].contains(said),
            "{errors:?}"
        );
    }
    assert_eq!(errors.len(), 8);
    let refused = all.iter().find(|line| line["custom_id"] == "c").unwrap();
    assert_eq!(refused["response"]["status_code"], 400);
    assert_eq!(refused["response"]["body"]["error"]["param"], "temperature");
    // Nothing is said twice, and a line that was mended is answered.
    sandbox.run(&ARGS).succeeds();
    assert_eq!(lines(&sandbox), all);
    sandbox.write("in.jsonl", input.concat().replace("\"GET\"", "\"POST\""));
    sandbox.run(&ARGS).succeeds();
    assert_eq!(lines(&sandbox).len(), all.len() + 1);
}

/// Nobody's file is lost.
#[test]
fn a_file_of_something_else_stays_as_it_is() {
    let sandbox = sandbox("batch-foreign", &requests());
    let fails = |args: &[&str], said: &str| {
        let outcome: Outcome = sandbox.run(args);
        assert!(outcome.fails(2).contains(said), "{said}");
    };
    for content in ["notes", "{\"id\":\"batch_req_1\"\n", "\n", "{}\n"] {
        sandbox.write("out.jsonl", content);
        fails(&ARGS, "line 1 of out.jsonl is no answer of a batch");
        assert_eq!(fs::read_to_string(sandbox.path("out.jsonl")).unwrap(), content);
    }
    let onto = |path| ["batch", "-m", "tiny.gguf", "in.jsonl", "-o", path];
    fails(&onto("in.jsonl"), "in.jsonl");
    fails(&onto("tiny.gguf"), "tiny.gguf");
    fails(&onto("bin"), "is no regular file");
    assert_eq!(fs::read_to_string(sandbox.path("in.jsonl")).unwrap(), requests());

    // Other requests of the same names.
    fs::remove_file(sandbox.path("out.jsonl")).unwrap();
    sandbox.run(&ARGS).succeeds();
    let before = fs::read(sandbox.path("out.jsonl")).unwrap();
    sandbox.write("in.jsonl", request("r3", "something else", 3));
    fails(&ARGS, "answers another request that is called \"r3\"");
    assert_eq!(fs::read(sandbox.path("out.jsonl")).unwrap(), before);
}

/// A disk that is full costs no answer.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_what_was_answered_stays() {
    let sandbox = sandbox("batch-full", &requests());
    let args = ARGS.map(|arg| if arg == "out.jsonl" { "small/out.jsonl" } else { arg });
    let setup = "head -c 1043000 /dev/zero > small/other";
    let Some(outcome) = sandbox.run_on_a_small_disk(setup, &args, "small") else {
        println!("skipped: no file system can be made here");
        return;
    };
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("can't write to small/out.jsonl"), "{outcome:?}");
    assert!(outcome.stderr.contains("the same command again"), "{outcome:?}");
}
