//! `metallic plan` and `--ram`.

use serde_json::Value;

use crate::sandbox::Sandbox;

/// Rates of a machine, so that it is not measured.
const RATES: [&str; 8] =
    ["--disk-gb-s", "1", "--memory-gb-s", "10", "--prefill-gop-s", "100", "--decode-gop-s", "50"];

fn sandbox(test: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write("tiny.gguf", metallic::testing::tiny_model().unwrap());
    sandbox
}

#[test]
fn the_ledger_adds_up_and_names_its_bounds() {
    let sandbox = sandbox("plan-json");
    let args = ["plan", "tiny.gguf", "--json", "--ram", "1GiB", "-c", "300", "-b", "64", "--kv-type", "q8_0"];
    let args = [&args[..], &RATES].concat();
    let plan: Value = serde_json::from_str(&sandbox.run(&args).succeeds().stdout).unwrap();
    let ledger = plan["ledger"].as_array().unwrap();
    let sum: u64 = ledger.iter().map(|line| line["bytes"].as_u64().unwrap()).sum();
    assert_eq!(plan["total_bytes"], sum);
    assert!(ledger.iter().all(|line| !line["reason"].as_str().unwrap().is_empty()));
    let holders = ["loading", "map", "program", "kernel"];
    assert!(ledger.iter().all(|line| holders.contains(&line["holder"].as_str().unwrap())), "{ledger:?}");
    assert_eq!(
        (&plan["ram_bytes"], &plan["n_ctx"], &plan["n_batch"]),
        (&(1_u64 << 30).into(), &300.into(), &64.into())
    );
    assert_eq!(plan["kv_type"], "q8_0");
    // All fits: q and output 32 x 32, k and v 32 x 16, three matrices 32 x 64 in two layers, two of 32 x 259; F32.
    assert_eq!(plan["resident_bytes"], 4 * (2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64) + 2 * 32 * 259));
    assert_eq!((&plan["streamed_bytes"], &plan["slots"]), (&0.into(), &Value::Null));
    assert_eq!(plan["matrices"].as_array().unwrap().len(), 2 * 7 + 2);
}

#[test]
fn a_table_ends_with_the_total_and_the_places() {
    let args = [&["plan", "tiny.gguf", "--ram", "64MiB", "--matrices"], &RATES[..]].concat();
    let text = sandbox("plan-text").run(&args).succeeds().stdout;
    assert!(text.lines().next().unwrap().starts_with("WHAT "), "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("total ") && line.ends_with("of a budget of 64.0 MiB")),
        "{text}"
    );
    assert!(
        text.lines().any(|line| line.starts_with("blk.1.ffn_down.weight ") && line.ends_with("resident")),
        "{text}"
    );
}

#[test]
fn a_mixture_whose_experts_are_cached_has_two_speeds() {
    let sandbox = sandbox("plan-experts");
    sandbox.write("mixture.gguf", metallic::testing::tiny_mixture().unwrap());
    let plan = |args: &[&str]| {
        let args = [&["plan", "mixture.gguf", "-c", "64", "-b", "8"], args, &RATES[..]].concat();
        sandbox.run(&args).succeeds().stdout
    };
    let json =
        |args: &[&str]| -> Value { serde_json::from_str(&plan(&[args, &["--json"]].concat())).unwrap() };
    let all = json(&[]);
    assert_eq!(all["prediction"]["best_decode"], Value::Null);
    let ram = (all["total_bytes"].as_u64().unwrap() - 500_000).to_string();
    let prediction = &json(&["--ram", &ram])["prediction"];
    let speed = |name: &str| prediction[name]["tokens_per_s"].as_f64().unwrap();
    assert!(speed("best_decode") > speed("decode"), "{prediction}");
    let text = plan(&["--ram", &ram]);
    for name in ["decode of 1, any experts ", "decode of 1, cached experts "] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{text}");
    }
}

#[test]
fn a_budget_below_the_floor_names_the_floor_and_the_floor_is_enough() {
    let sandbox = sandbox("plan-floor");
    let plan = |ram: &str| {
        let args = [&["plan", "tiny.gguf", "-c", "64", "-b", "8", "--ram", ram], &RATES[..]].concat();
        sandbox.run(&args)
    };
    let error = plan("1MiB").fails(1).to_owned();
    assert!(error.contains("tiny.gguf within 1.0 MiB") && error.contains("--ram"), "{error}");
    let floor: u64 = error.split('(').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    plan(&floor.to_string()).succeeds();
    plan(&(floor - 1).to_string()).fails(1);
    let answer = |ram: &str| {
        let args = [
            "run",
            "-m",
            "tiny.gguf",
            "--raw",
            "--temp",
            "0",
            "-n",
            "8",
            "-c",
            "64",
            "-b",
            "8",
            "--ram",
            ram,
            "ab",
        ];
        sandbox.run(&args).succeeds().stdout
    };
    assert_eq!(answer(&floor.to_string()), answer("1GiB"));
}

#[test]
fn sizes_that_are_none_are_refused() {
    for ram in ["", "-1", "2 parsecs"] {
        assert_eq!(sandbox("plan-size").run(&["plan", "tiny.gguf", "--ram", ram]).code, Some(2), "{ram}");
    }
}

/// The multiplications of a token with the tiny model's layers: q and output 32 x 32, k and v 32 x 16, three matrices
/// 32 x 64 in two layers; and with its head.
const MULTIPLY_ADDS: f64 = 2.0 * (2.0 * 32.0 * 32.0 + 2.0 * 32.0 * 16.0 + 3.0 * 32.0 * 64.0) + 32.0 * 259.0;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn assert_close(found: &Value, expected: f64) {
    assert!((number(found) - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
}

#[test]
fn speeds_are_predicted_from_the_rates_that_are_given() {
    let sandbox = sandbox("plan-speeds");
    let plan = |rates: &[&str]| -> Value {
        let args = [&["plan", "tiny.gguf", "--json", "-c", "64"], rates].concat();
        serde_json::from_str(&sandbox.run(&args).succeeds().stdout).unwrap()
    };
    let prediction = &plan(&RATES)["prediction"];
    let decode = &prediction["decode"];
    // F32: four bytes a weight, at nine tenths of ten gigabytes; two operations a weight, at fifty thousand million.
    assert_close(&decode["memory_s"], 4.0 * MULTIPLY_ADDS / 9e9);
    assert_close(&decode["compute_s"], 2.0 * MULTIPLY_ADDS / 50e9);
    assert_close(&decode["tokens_per_s"], 9e9 / (4.0 * MULTIPLY_ADDS));
    assert_eq!((&decode["bound"], &decode["n_tokens"]), (&"memory".into(), &1.into()));
    assert_eq!((&prediction["prefill"]["n_tokens"], &prediction["disk_gb_s"]), (&64.into(), &1.0.into()));
    let slow = ["--memory-gb-s", "10", "--prefill-gop-s", "100", "--decode-gop-s", "0.001"];
    let prediction = &plan(&slow)["prediction"];
    assert_eq!(prediction["decode"]["bound"], "compute");
    assert!(prediction["disk_gb_s"].is_null(), "not needed, so not measured");
}

#[test]
fn the_machine_is_measured_where_nothing_is_given() {
    let sandbox = sandbox("plan-measured");
    let text = sandbox.run(&["plan", "tiny.gguf", "-t", "1"]).succeeds().stdout;
    let speeds: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("SPEED ")).collect();
    let [_, prefill, decode] = speeds[..] else { panic!("{text}") };
    assert!(prefill.starts_with("prefill of 512 ") && decode.starts_with("decode of 1 "), "{text}");
    assert!(speeds[1..].iter().all(|line| line.contains(" ms at ") && line.ends_with(" GOP/s")), "{text}");
}

#[test]
fn a_slab_without_room_is_said() {
    let sandbox = sandbox("plan-slab");
    let plan = |ram: u64| {
        let ram = ram.to_string();
        let args = ["plan", "tiny.gguf", "--json", "-c", "64", "-b", "8", "--load", "slab", "--ram", &ram];
        let plan: Value =
            serde_json::from_str(&sandbox.run(&[&args[..], &RATES].concat()).succeeds().stdout).unwrap();
        plan["total_bytes"].as_u64().unwrap()
    };
    let run = |ram: u64| {
        let ram = ram.to_string();
        let args = ["run", "-m", "tiny.gguf", "--raw", "-n", "1", "-c", "64", "-b", "8"];
        sandbox.run(&[&args[..], &["--load", "slab", "--ram", &ram, "ab"]].concat()).succeeds().stderr
    };
    let slab = plan(1 << 30);
    assert!(!run(slab).contains("slab"), "there is room");
    let notes = run(slab - 1);
    assert!(
        notes.contains("--ram has no room for the files in a slab: they are used where the file is"),
        "{notes}"
    );
}

/// What run takes: with room to look up guesses, unless it is not to guess.
#[test]
fn sequences_and_guesses_are_part_of_a_plan() {
    let sandbox = sandbox("plan-sequences");
    let plan = |args: &[&str]| -> Value {
        let args = [&["plan", "tiny.gguf", "--json", "-c", "64", "-b", "8"], args, &RATES[..]].concat();
        serde_json::from_str(&sandbox.run(&args).succeeds().stdout).unwrap()
    };
    let line = |plan: &Value, what: &str| {
        let all = plan["ledger"].as_array().unwrap();
        all.iter().find(|line| line["what"] == what).map(|line| line["bytes"].as_u64().unwrap())
    };
    let together = ["--parallel", "4", "--together-gop-s", "200"];
    let (one, four) = (plan(&[]), plan(&together));
    assert_eq!((&one["n_sequences"], &four["n_sequences"]), (&1.into(), &4.into()));
    assert_eq!(line(&four, "KV cache").unwrap(), 4 * line(&one, "KV cache").unwrap());
    assert_eq!(line(&four, "look-up of guesses").unwrap(), 4 * line(&one, "look-up of guesses").unwrap());
    assert_eq!(line(&plan(&["--spec", "off"]), "look-up of guesses"), None);
    let speed = |plan: &Value, name: &str| plan["prediction"][name]["tokens_per_s"].as_f64().unwrap();
    assert!(speed(&four, "together") > speed(&four, "decode"), "{four}");
    assert_eq!(speed(&one, "together"), speed(&one, "decode"));
    let args = [&["plan", "tiny.gguf"], &together[..], &RATES[..]].concat();
    let text = sandbox.run(&args).succeeds().stdout;
    assert!(text.lines().any(|line| line.starts_with("decode of 4 sequences ")), "{text}");

    let drafted = plan(&["--model-draft", "tiny.gguf", "--ram", "64MiB"]);
    assert!(drafted["draft_bytes"].as_u64().unwrap() > 100_000);
    let fails = |args: &[&str], said: &str| {
        let outcome = sandbox.run(&[&["plan", "tiny.gguf"], args].concat());
        assert!(outcome.fails(2).contains(said), "{outcome:?}");
    };
    fails(&["--spec", "draft"], "name it with --model-draft");
    fails(&["--spec", "off", "--model-draft", "tiny.gguf"], "leave out one of them");
}
