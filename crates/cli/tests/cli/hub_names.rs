//! Models of a hub by quantization, revision and address, with a small server in its place.

use std::fs;

use crate::fake_hub::serve_repository;
use crate::sandbox::{Outcome, Sandbox, outcome};

const FILES: [&str; 9] = [
    ".gitattributes",
    "README.md",
    "m-BF16.gguf",
    "m-F16.gguf",
    "m-Q4_K_M.gguf",
    "m-Q8_0/m-Q8_0-00001-of-00002.gguf",
    "m-Q8_0/m-Q8_0-00002-of-00002.gguf",
    "mmproj-Q2_K.gguf",
    "../../Q3_K_S.gguf",
];

fn run(sandbox: &Sandbox, endpoint: &str, args: &[&str]) -> Outcome {
    outcome(sandbox.command(args).env("HF_ENDPOINT", endpoint).output().unwrap())
}

/// What `pull` puts into the store.
fn pulled(test: &str, files: &[&str], name: &str) -> Vec<String> {
    let sandbox = Sandbox::new(test);
    let (endpoint, _requests) = serve_repository(files, 1000);
    let name = name.replace("ENDPOINT", &endpoint);
    let outcome = run(&sandbox, &endpoint, &["pull", &name]).succeeds();
    let first = sandbox.stored(&sandbox.store_files()[0]);
    assert_eq!(outcome.stdout.trim_end(), first.to_str().unwrap());
    sandbox.store_files()
}

#[test]
fn a_quantization_leads_to_its_file() {
    for (name, files) in [
        ("hf:owner/repo:F16", &["hf/owner/repo/m-F16.gguf"][..]),
        ("hf:owner/repo:bf16", &["hf/owner/repo/m-BF16.gguf"]),
        ("hf:owner/repo", &["hf/owner/repo/m-Q4_K_M.gguf"]),
        ("hf.co/owner/repo:latest", &["hf/owner/repo/m-Q4_K_M.gguf"]),
        (
            "https://hf.co/owner/repo:q8_0",
            &[
                "hf/owner/repo/m-Q8_0/m-Q8_0-00001-of-00002.gguf",
                "hf/owner/repo/m-Q8_0/m-Q8_0-00002-of-00002.gguf",
            ],
        ),
    ] {
        assert_eq!(pulled("names-quant", &FILES, name), files, "{name}");
    }
    assert_eq!(pulled("names-first", &FILES[..4], "hf:owner/repo"), ["hf/owner/repo/m-BF16.gguf"]);
}

#[test]
fn addresses_and_revisions_lead_to_their_files() {
    for (name, file) in [
        ("https://huggingface.co/owner/repo", "hf/owner/repo/m-Q4_K_M.gguf"),
        ("https://huggingface.co/owner/repo/blob/main/m-F16.gguf", "hf/owner/repo/m-F16.gguf"),
        ("ENDPOINT/owner/repo/resolve/main/m-F16.gguf?download=true", "hf/owner/repo/m-F16.gguf"),
        ("https://huggingface.co/owner/repo/resolve/v1/m-F16.gguf", "hf/owner/repo@v1/m-F16.gguf"),
        ("hf:owner/repo@refs/pr/3:F16", "hf/owner/repo@refs%2Fpr%2F3/m-F16.gguf"),
        ("hf:owner/repo@main:F16", "hf/owner/repo/m-F16.gguf"),
    ] {
        assert_eq!(pulled("names-address", &FILES, name), [file], "{name}");
    }
}

#[test]
fn revisions_are_models_of_their_own() {
    let sandbox = Sandbox::new("names-revisions");
    let (endpoint, _requests) = serve_repository(&FILES, 1000);
    run(&sandbox, &endpoint, &["pull", "hf:owner/repo:F16"]).succeeds();
    run(&sandbox, &endpoint, &["pull", "hf:owner/repo@v1:F16"]).succeeds();
    let read = |path: &str| fs::read_to_string(sandbox.stored(path)).unwrap();
    assert_eq!(read("hf/owner/repo/m-F16.gguf"), "main\nm-F16.gguf");
    assert_eq!(read("hf/owner/repo@v1/m-F16.gguf"), "v1\nm-F16.gguf");
    let models = sandbox.run(&["models"]).succeeds().stdout;
    assert!(models.contains("hf:owner/repo@v1/m-F16.gguf"), "{models}");
}

#[test]
fn what_is_in_the_store_needs_no_hub() {
    let sandbox = Sandbox::new("names-offline");
    let (endpoint, requests) = serve_repository(&FILES, 1000);
    run(&sandbox, &endpoint, &["pull", "hf:owner/repo:Q8_0"]).succeeds();
    // As any command has it: there is no model in these files, but they are found.
    for name in ["hf:owner/repo:q8_0", "https://hf.co/owner/repo:Q8_0", "hf:owner/repo"] {
        let outcome = sandbox.run(&["inspect", name]);
        assert!(outcome.fails(3).contains("m-Q8_0-00001-of-00002.gguf"), "{outcome:?}");
    }
    // Without a hub the default is what there is, and that is told; with one it is the hub's.
    let told = sandbox.run(&["inspect", "hf:owner/repo"]).stderr;
    assert!(told.contains("can't list the files of hf:owner/repo"), "{told}");
    run(&sandbox, &endpoint, &["pull", "hf:owner/repo"]).succeeds();
    assert!(sandbox.stored("hf/owner/repo/m-Q4_K_M.gguf").exists());
    let _ = requests.try_iter().count();
    run(&sandbox, &endpoint, &["inspect", "hf:owner/repo"]);
    assert_eq!(requests.try_iter().count(), 0, "the hub was asked");
}

#[test]
fn what_a_repository_lacks_is_told_with_what_it_has() {
    let sandbox = Sandbox::new("names-none");
    let (endpoint, _requests) = serve_repository(&FILES, 1000);
    let outcome = run(&sandbox, &endpoint, &["pull", "hf:owner/repo:Q5_K_M"]);
    let line = outcome.fails(4);
    assert!(line.ends_with("there is no hf:owner/repo:Q5_K_M: there are BF16, F16, Q4_K_M, Q8_0"), "{line}");
    // A companion of a model is none, and a path that leaves the store leads to nothing.
    for name in ["hf:owner/repo:Q2_K", "hf:owner/repo:Q3_K_S"] {
        run(&sandbox, &endpoint, &["pull", name]).fails(4);
    }
    let (endpoint, _requests) = serve_repository(&["README.md", "model.safetensors"], 1000);
    let outcome = run(&sandbox, &endpoint, &["pull", "hf:owner/repo"]);
    assert!(outcome.fails(4).contains("no GGUF file"), "{outcome:?}");
    let outcome = run(&sandbox, &endpoint, &["pull", "hf:owner/other"]);
    assert!(outcome.fails(4).contains("check the spelling"), "{outcome:?}");
    let outcome = run(&sandbox, "127.0.0.1:1", &["pull", "hf:owner/repo:F16"]);
    assert!(outcome.fails(4).contains("from https://127.0.0.1:1: "), "{outcome:?}");
    let outcome = run(&sandbox, &endpoint, &["pull", "https://example.org/m.gguf"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("download the file and give its path"), "{outcome:?}");
    assert_eq!(sandbox.store_files(), [""; 0]);
}

#[test]
fn pages_of_a_list_are_asked_of_one_hub_alone() {
    let sandbox = Sandbox::new("names-pages");
    let (endpoint, requests) = serve_repository(&FILES, 2);
    let mut command = sandbox.command(&["pull", "hf:owner/repo@v1", "--list"]);
    let outcome =
        outcome(command.env("HF_ENDPOINT", &endpoint).env("HF_TOKEN", "secret\n").output().unwrap());
    assert!(outcome.succeeds().stdout.contains("hf:owner/repo@v1/m-Q4_K_M.gguf"));
    let requests: Vec<String> = requests.try_iter().collect();
    let (first, rest) = requests.split_first().unwrap();
    assert_eq!(first, "GET /api/models/owner/repo/tree/v1?recursive=true HTTP/1.1 bearer secret");
    assert_eq!(rest.len(), 4);
    assert_eq!(rest[3], "GET /api/models/owner/repo/tree/v1?cursor=8 HTTP/1.1 bearer secret");
}

#[test]
fn a_repository_lists_its_models() {
    let sandbox = Sandbox::new("names-list");
    let (endpoint, _requests) = serve_repository(&FILES, 1000);
    let table = run(&sandbox, &endpoint, &["pull", "hf:owner/repo", "--list"]).succeeds().stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["MODEL", "QUANT", "SIZE"]);
    assert_eq!(rows[3], ["hf:owner/repo/m-Q4_K_M.gguf", "Q4_K_M", "18", "B"]);
    assert_eq!(rows[5], ["hf:owner/repo/mmproj-Q2_K.gguf", "no", "model", "21", "B"]);
    assert_eq!(rows.len(), 6, "{table}");

    let json =
        run(&sandbox, &endpoint, &["pull", "hf:owner/repo/m-F16.gguf", "--list", "--json"]).succeeds().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[1]["name"], "hf:owner/repo/m-F16.gguf");
    assert_eq!(json[1]["quantization"], "F16");
    assert_eq!(json[1]["n_bytes"], "main\nm-F16.gguf".len());
    assert_eq!(json[1]["sha256"], crate::fake_hub::sha256(b"main\nm-F16.gguf"));
    assert_eq!(json[3]["n_files"], 2);
    assert_eq!(json[4]["is_model"], false);
    assert_eq!(sandbox.store_files(), [""; 0]);

    let outcome = sandbox.run(&["pull", "smollm2", "--list"]);
    assert!(outcome.fails(2).contains("hf:OWNER/REPO"), "{outcome:?}");
}
