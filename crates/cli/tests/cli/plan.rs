//! `metallic plan` and `--ram`.

use serde_json::Value;

use crate::sandbox::Sandbox;

fn sandbox(test: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write("tiny.gguf", metallic::testing::tiny_model().unwrap());
    sandbox
}

#[test]
fn the_ledger_adds_up_and_names_its_bounds() {
    let sandbox = sandbox("plan-json");
    let args = ["plan", "tiny.gguf", "--json", "--ram", "1GiB", "-c", "300", "-b", "64", "--kv-type", "q8_0"];
    let plan: Value = serde_json::from_str(&sandbox.run(&args).succeeds().stdout).unwrap();
    let ledger = plan["ledger"].as_array().unwrap();
    let sum: u64 = ledger.iter().map(|line| line["bytes"].as_u64().unwrap()).sum();
    assert_eq!(plan["total_bytes"], sum);
    assert!(ledger.iter().all(|line| !line["reason"].as_str().unwrap().is_empty()));
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
    let text =
        sandbox("plan-text").run(&["plan", "tiny.gguf", "--ram", "64MiB", "--matrices"]).succeeds().stdout;
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
fn a_budget_below_the_floor_names_the_floor_and_the_floor_is_enough() {
    let sandbox = sandbox("plan-floor");
    let plan = |ram: &str| sandbox.run(&["plan", "tiny.gguf", "-c", "64", "-b", "8", "--ram", ram]);
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
