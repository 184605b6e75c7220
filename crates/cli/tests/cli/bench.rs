//! `metallic bench`. Speeds are whatever they are; what they are of, and that they fit together, is tested.

use serde_json::Value;

use crate::sandbox::{Outcome, Sandbox};

fn bench(test: &str, args: &[&str]) -> Outcome {
    let sandbox = Sandbox::new(test);
    sandbox.write("tiny.gguf", metallic::testing::tiny_model().unwrap());
    sandbox.run(&[&["bench", "tiny.gguf"], args].concat()).succeeds()
}

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("no number {field} in {row}"))
}

#[test]
fn json_has_the_rows_that_were_asked_for() {
    let args = ["--json", "-p", "0,20,33", "-n", "4", "-d", "0,50", "-t", "1,2", "-r", "3", "-b", "16"];
    let rows: Vec<Value> = serde_json::from_str(&bench("bench-json", &args).stdout).unwrap();
    let count = |row: &Value, field: &str| row[field].as_u64().unwrap();
    let tests: Vec<[u64; 4]> = rows
        .iter()
        .map(|row| ["n_threads", "n_depth", "n_prompt", "n_gen"].map(|field| count(row, field)))
        .collect();
    let of_threads =
        |t| [[t, 0, 20, 0], [t, 0, 33, 0], [t, 0, 0, 4], [t, 50, 20, 0], [t, 50, 33, 0], [t, 50, 0, 4]];
    assert_eq!(tests, [of_threads(1), of_threads(2)].concat());

    // By hand, from the shapes of the tiny model: all F32.
    let layers = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64);
    let head = 32 * 259;
    let n_params = layers + 2 * head + 5 * 32;
    for row in &rows {
        assert_eq!(row["model_filename"].as_str().unwrap().rsplit('/').next(), Some("tiny.gguf"));
        assert_eq!(row["model_type"], "llama");
        assert_eq!((count(row, "model_n_params"), count(row, "model_size")), (n_params, 4 * n_params));
        assert_eq!(count(row, "n_batch"), 16);
        assert!(!row["isa"].as_str().unwrap().is_empty());
        assert!(row["test_time"].as_str().unwrap().ends_with('Z'));
        assert!(number(row, "read_gb_s") > 0.0);
        assert_samples_fit(row);

        let (n_prompt, n_gen) = (count(row, "n_prompt"), count(row, "n_gen"));
        let n_logits = if n_gen == 0 { 1 } else { n_gen };
        let operations = 2 * (layers * (n_prompt + n_gen) + head * n_logits);
        let rate = number(row, "avg_ts") / (n_prompt + n_gen) as f64;
        assert_close(number(row, "gop_s"), operations as f64 * rate / 1e9);
        if n_gen == 0 {
            assert!(row["weights_gb_s"].is_null());
        } else {
            assert_close(
                number(row, "weights_gb_s"),
                4.0 * (layers + head) as f64 * number(row, "avg_ts") / 1e9,
            );
        }
    }
}

#[test]
fn answers_at_the_same_time_are_counted_together() {
    let args = ["--json", "-p", "0", "-n", "4", "-r", "3", "-t", "1", "--parallel", "3", "-b", "2"];
    let rows: Vec<Value> = serde_json::from_str(&bench("bench-parallel", &args).stdout).unwrap();
    let row = &rows[0];
    assert_eq!((row["n_parallel"].as_u64(), row["n_gen"].as_u64()), (Some(3), Some(4)));
    for (ns, rate) in row["samples_ns"].as_array().unwrap().iter().zip(row["samples_ts"].as_array().unwrap())
    {
        assert_close(rate.as_f64().unwrap(), 12.0 / (ns.as_f64().unwrap() / 1e9));
    }
    assert!(bench("bench-parallel-table", &args[1..]).stdout.contains("tg4 x3"));
}

#[test]
fn a_prompt_and_its_answer_are_timed_together_on_the_instruction_set_asked_for() {
    let args = ["--json", "-p", "0", "-n", "0", "--pg", "20,4", "-r", "1", "--isa", "scalar"];
    let rows: Vec<Value> = serde_json::from_str(&bench("bench-pg", &args).stdout).unwrap();
    let [row] = &rows[..] else { panic!("one row: {rows:?}") };
    assert_eq!((&row["n_prompt"], &row["n_gen"], &row["isa"]), (&20.into(), &4.into(), &"scalar".into()));
    assert!(bench("bench-pg-table", &args[1..]).stdout.contains("pp20+tg4"));
}

/// Checks that rates and times are of the same three repetitions, and their means.
#[track_caller]
fn assert_samples_fit(row: &Value) {
    let samples = |field: &str| -> Vec<f64> {
        row[field].as_array().unwrap().iter().map(|sample| sample.as_f64().unwrap()).collect()
    };
    let (rates, times) = (samples("samples_ts"), samples("samples_ns"));
    assert_eq!((rates.len(), times.len()), (3, 3));
    let n_tokens = number(row, "n_prompt") + number(row, "n_gen");
    for (rate, time) in rates.iter().zip(&times) {
        assert!(*time > 0.0);
        assert_close(*rate, n_tokens / time * 1e9);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / 3.0;
    let deviation = |values: &[f64]| {
        let mean = mean(values);
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 2.0).sqrt()
    };
    assert_close(number(row, "avg_ts"), mean(&rates));
    assert_close(number(row, "stddev_ts"), deviation(&rates));
    // Whole nanoseconds, rounded down.
    assert!((number(row, "avg_ns") - mean(&times)).abs() <= 1.0);
    assert!((number(row, "stddev_ns") - deviation(&times)).abs() <= 1.0);
}

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{found} is not {expected}");
}

#[test]
fn the_table_names_tests_as_llama_bench_does() {
    let text = bench("bench-table", &["-p", "8", "-n", "2", "-d", "0,5", "-t", "1", "-r", "1"]).stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("MODEL ") && lines[0].ends_with("GOP/S"), "{text}");
    for (line, test) in lines[1..].iter().zip(["pp8 ", "tg2 ", "pp8 @ d5 ", "tg2 @ d5 "]) {
        assert!(line.starts_with("tiny ") && line.contains(test) && line.contains(" ± 0.00"), "{text}");
        assert_eq!(line.contains(" of "), test.starts_with("tg"), "{text}");
    }
    assert_eq!(lines.len(), 5, "{text}");
}

#[test]
fn a_context_longer_than_was_trained_is_measured() {
    // llama-bench does the same: the rate is what is asked for, not the answer.
    bench("bench-long", &["-p", "600", "-n", "0", "-t", "1", "-r", "1"]);
}

#[test]
fn keys_and_values_are_kept_as_asked_for() {
    for kv_type in ["f32", "f16", "bf16", "q8_0", "q4_0"] {
        let args = ["--json", "-p", "8", "-n", "0", "-t", "1", "-r", "1", "--kv-type", kv_type];
        let rows: Vec<Value> = serde_json::from_str(&bench("bench-kv-type", &args).stdout).unwrap();
        assert_eq!((&rows[0]["type_k"], &rows[0]["type_v"]), (&kv_type.into(), &kv_type.into()));
    }
}

#[cfg(unix)]
#[test]
fn a_terminal_sees_from_the_start_how_far_it_is() {
    let sandbox = Sandbox::new("bench-terminal");
    sandbox.write("tiny.gguf", metallic::testing::tiny_model().unwrap());
    let shown = |more: &[&str]| {
        let args = [&["bench", "tiny.gguf", "-p", "16", "-n", "40", "-r", "2", "-t", "1"], more].concat();
        let (text, code) = crate::terminal::Terminal::start(&sandbox, &args).rest();
        assert_eq!(code, Some(0), "{text:?}");
        text
    };
    let text = shown(&[]);
    for part in ["measuring this machine", "pp16 -t 1", "0/4", "tg40 -t 1"] {
        assert!(text.contains(part), "{part}: {text:?}");
    }
    let quiet = shown(&["-q"]);
    assert!(!quiet.contains("measuring") && !quiet.contains("-t 1"), "{quiet:?}");
}

/// As llama.cpp's tools take it.
#[test]
fn the_model_may_be_a_flag() {
    let sandbox = Sandbox::new("bench-flag");
    sandbox.write("tiny.gguf", metallic::testing::tiny_model().unwrap());
    sandbox.run(&["bench", "-m", "tiny.gguf", "-p", "0", "-n", "2", "-r", "1"]).succeeds();
    for args in [&["bench"][..], &["bench", "tiny.gguf", "-m", "tiny.gguf"], &["plan", "-m"]] {
        assert_eq!(sandbox.run(args).code, Some(2), "{args:?}");
    }
}

/// Several answers at a time, and guesses: what they come to, whatever they cost.
#[test]
fn sequences_and_guesses_are_measured() {
    let args = [
        "--json",
        "-p",
        "0",
        "-n",
        "24",
        "-t",
        "2",
        "-r",
        "2",
        "--parallel",
        "1,3",
        "--spec",
        "off,lookup,replay,wrong",
    ];
    let rows: Vec<Value> = serde_json::from_str(&bench("bench-parallel", &args).stdout).unwrap();
    assert_eq!(rows.len(), 8, "{rows:?}");
    for row in &rows {
        let (spec, n_parallel) = (row["spec"].as_str().unwrap(), row["n_parallel"].as_u64().unwrap());
        assert!(number(row, "avg_ts") > 0.0 && [1, 3].contains(&n_parallel), "{row}");
        let (guessed, right) = (row["n_guessed"].as_u64().unwrap(), row["n_accepted"].as_u64().unwrap());
        match spec {
            "off" => assert_eq!((guessed, right), (0, 0), "{row}"),
            "wrong" => assert_eq!(right, 0, "{row}"),
            "replay" | "lookup" => assert!(right <= guessed, "{row}"),
            _ => panic!("{row}"),
        }
    }
}
