//! The commands that look after the store: `models`, `show` and `rm`.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::alphabet::{self, Options};
use crate::sandbox::{Sandbox, outcome, smollm2, wait_for};

fn store(test: &str, files: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new(test);
    for file in files {
        let path = sandbox.stored(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [0; 1000]).unwrap();
    }
    sandbox
}

fn json(sandbox: &Sandbox, args: &[&str]) -> Value {
    serde_json::from_str(&sandbox.run(args).succeeds().stdout).unwrap()
}

#[test]
fn all_that_was_downloaded_is_listed() {
    let files = [
        "catalogue/forgotten/m.gguf",
        "hf/o/r/M.GGUF",
        "hf/o/r/a-00001-of-00002.gguf",
        "hf/o/r/a-00002-of-00002.gguf",
        "hf/o/r/b-00002-of-00003.gguf",
        "hf/o/r/plain",
        "hf/o/r@v1/sub/m.gguf",
        "pypi/p/1/m/m.gguf",
        "hf/o/r/half.gguf.partial",
        "hf/o/r/.pip/hidden.gguf",
    ];
    let sandbox = store("store-list", &files);
    let forgotten = sandbox.stored(files[0]);
    let models = json(&sandbox, &["models", "--json"]);
    let model = |name: &str| models.as_array().unwrap().iter().find(|model| model["name"] == name).cloned();
    for (name, n_bytes, n_files, n_here) in [
        (forgotten.to_str().unwrap(), 1000, 1, 1),
        ("hf:o/r/M.GGUF", 1000, 1, 1),
        ("hf:o/r/a-00001-of-00002.gguf", 2000, 2, 2),
        ("hf:o/r/b-00001-of-00003.gguf", 1000, 3, 1),
        ("hf:o/r/plain", 1000, 1, 1),
        ("hf:o/r@v1/sub/m.gguf", 1000, 1, 1),
        ("pypi:p==1/m/m.gguf", 1000, 1, 1),
    ] {
        let model = model(name).unwrap_or_else(|| panic!("{name} in {models}"));
        assert_eq!(model["n_bytes"], n_bytes, "{name}");
        assert_eq!((&model["n_files"], &model["n_here"]), (&n_files.into(), &n_here.into()), "{name}");
    }
    let default = model("smollm2").unwrap();
    assert_eq!((&default["path"], &default["n_here"]), (&Value::Null, &0.into()));
    assert_eq!(models.as_array().unwrap().len(), 8);

    for command in ["models", "list", "ls"] {
        let table = sandbox.run(&[command]).succeeds().stdout;
        assert!(table.contains("a-00001-of-00002.gguf and 1 more"), "{table}");
        assert!(table.contains("2 of 3 shards are missing"), "{table}");
        assert!(!table.contains("half") && !table.contains("hidden"), "{table}");
    }
    let told = sandbox.run(&["models"]).stderr;
    assert!(told.starts_with("hf:o/r/half.gguf is unfinished, with 1000 B: "), "{told}");
}

#[test]
fn a_broken_part_of_the_store_does_not_hide_the_rest() {
    let sandbox = store("store-broken", &["hf/o/r/m.gguf", "hf/secret/r/m.gguf"]);
    symlink("/nowhere", sandbox.stored("hf/o/r/broken.gguf")).unwrap();
    symlink(sandbox.stored("hf/loop"), sandbox.stored("hf/loop")).unwrap();
    symlink(sandbox.stored("."), sandbox.stored("hf/o/back")).unwrap();
    let outcome = sandbox.run(&["models"]).succeeds();
    assert_eq!(outcome.stdout.matches("m.gguf").count(), 4, "two models, each with its path: {outcome:?}");
    assert!(outcome.stdout.contains("hf:o/r/m.gguf"), "{outcome:?}");
    for name in ["hf/o/r/broken.gguf", "hf/loop"] {
        assert!(outcome.stderr.contains(name), "{outcome:?}");
    }

    Command::new("chmod").arg("0").arg(sandbox.stored("hf/secret")).status().unwrap();
    let is_unreadable = fs::read_dir(sandbox.stored("hf/secret")).is_err();
    let outcome = sandbox.run(&["models"]).succeeds();
    Command::new("chmod").arg("700").arg(sandbox.stored("hf/secret")).status().unwrap();
    // Nothing is unreadable to root.
    if is_unreadable {
        assert!(outcome.stdout.contains("hf:o/r/m.gguf"), "{outcome:?}");
        assert!(outcome.stderr.contains("hf/secret"), "{outcome:?}");
    }
}

#[test]
fn a_removed_model_takes_its_shards_its_parts_and_its_folders_along() {
    let files = [
        "hf/o/r/q/a-Q8_0-00001-of-00002.gguf",
        "hf/o/r/q/a-Q8_0-00002-of-00002.gguf.partial",
        "hf/o/r/q/.lock",
        "hf/o/other/m.gguf",
        "hf/o/other/n.gguf",
        "hf/o/begun/m-Q8_0.gguf.partial",
        "pypi/p/1/m/m.gguf",
        "pypi/p/1/m/.pip/wheels/half.whl",
    ];
    let sandbox = store("store-rm", &files);
    sandbox.run(&["rm", "hf:o/begun:Q8_0"]).succeeds();
    assert!(!sandbox.stored("hf/o/begun").exists());
    let outcome = sandbox.run(&["rm", "hf:o/r:q8_0", "pypi:p==1/m/m.gguf"]).succeeds();
    assert_eq!(
        outcome.stdout,
        "removed hf:o/r/q/a-Q8_0-00001-of-00002.gguf: 2.0 KiB are free again\n\
         removed pypi:p==1/m/m.gguf: 1000 B are free again\n"
    );
    assert_eq!(sandbox.store_files(), ["hf/o/other/m.gguf", "hf/o/other/n.gguf"]);
    assert!(!sandbox.stored("hf/o/r").exists() && !sandbox.stored("pypi").exists());

    let path = sandbox.stored("hf/o/other/m.gguf");
    // Named twice, it is removed once.
    sandbox.run(&["rm", path.to_str().unwrap(), "hf:o/other/m.gguf"]).succeeds();
    symlink("/nowhere", sandbox.stored("hf/o/other/broken.gguf")).unwrap();
    sandbox.run(&["rm", "hf:o/other/broken.gguf"]).succeeds();
    assert_eq!(sandbox.store_files(), ["hf/o/other/n.gguf"]);
    sandbox.run(&["rm", "hf:o/other"]).succeeds();
    assert!(sandbox.stored("").exists() && !sandbox.stored("hf").exists());
}

#[test]
fn nothing_is_removed_that_is_no_model_of_the_store() {
    let sandbox = store("store-rm-not", &["hf/o/r/m.gguf"]);
    let mine = sandbox.write("mine.gguf", "x");
    symlink(&mine, sandbox.stored("hf/o/r/link.gguf")).unwrap();
    let up = sandbox.stored("../../mine.gguf");
    let folder = sandbox.stored("hf/o");
    for (name, code, words) in [
        ("./mine.gguf", 2, "is not in the store"),
        (mine.to_str().unwrap(), 2, "is not in the store"),
        (up.to_str().unwrap(), 2, "is not in the store"),
        (folder.to_str().unwrap(), 2, "is a folder"),
        ("smollm2", 4, "smollm2 is not in the store"),
        ("smollm", 4, "did you mean smollm2?"),
        ("hf:o/r:Q4_0", 4, "hf:o/r:Q4_0 is not in the store"),
    ] {
        // Nor is what is named beside it.
        let outcome = sandbox.run(&["rm", "hf:o/r/m.gguf", name]);
        assert!(outcome.fails(code).contains(words), "{outcome:?}");
        assert!(sandbox.stored("hf/o/r/m.gguf").exists(), "{name}");
    }
    sandbox.run(&["rm", "hf:o/r/link.gguf"]).succeeds();
    assert!(mine.exists());
}

#[test]
fn a_model_in_use_stays() {
    let sandbox = store("store-rm-use", &["hf/o/r/m.gguf"]);
    let file = File::open(sandbox.stored("hf/o/r/m.gguf")).unwrap();
    file.lock_shared().unwrap();
    let refused = sandbox.run(&["rm", "hf:o/r/m.gguf"]);
    assert!(refused.fails(1).contains("another metallic uses"), "{refused:?}");
    drop(file);
    let folder = File::open(sandbox.stored("hf/o/r/.lock")).unwrap();
    folder.lock().unwrap();
    sandbox.run(&["rm", "hf:o/r/m.gguf"]).fails(1);
    drop(folder);
    sandbox.run(&["rm", "hf:o/r/m.gguf"]).succeeds();

    // The commands say that they use it.
    fs::create_dir_all(sandbox.stored("hf/o/r")).unwrap();
    fs::write(sandbox.stored("hf/o/r/m.gguf"), alphabet::model()).unwrap();
    let mut chat = sandbox.spawn(&["chat", "-m", "hf:o/r/m.gguf"]);
    let file = File::open(sandbox.stored("hf/o/r/m.gguf")).unwrap();
    wait_for("the chat", || {
        let is_free = file.try_lock().is_ok();
        let _ = file.unlock();
        !is_free
    });
    sandbox.run(&["rm", "hf:o/r/m.gguf"]).fails(1);
    drop(chat.stdin.take());
    outcome(chat.wait_with_output().unwrap()).succeeds();
    sandbox.run(&["rm", "hf:o/r/m.gguf"]).succeeds();
}

#[test]
fn a_store_that_cannot_be_written_can_be_used() {
    let sandbox = store("store-read-only", &["hf/o/r/m.gguf"]);
    let script = "mount --bind cache cache && mount -o remount,bind,ro cache || exit 77
                  export METALLIC_CACHE=$PWD/cache
                  \"$0\" models && \"$0\" pull -q hf:o/r/m.gguf; \"$0\" rm hf:o/r/m.gguf";
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        env!("CARGO_BIN_EXE_metallic"),
    ]);
    let command = command.current_dir(sandbox.path("")).env("HF_ENDPOINT", "http://127.0.0.1:1");
    let Ok(outcome) = command.output().map(outcome) else { return };
    if outcome.code == Some(77) || outcome.stderr.contains("unshare") {
        println!("skipped: this machine doesn't let a test mount anything");
        return;
    }
    assert_eq!(outcome.stdout.matches("m.gguf").count(), 3, "{outcome:?}");
    assert!(outcome.fails(1).contains("Read-only file system"), "{outcome:?}");
    assert_eq!(sandbox.store_files(), ["hf/o/r/m.gguf"]);
}

/// A user without an entry in the system's list, for whom only root can speak.
#[test]
fn only_what_needs_the_store_asks_for_a_home() {
    let sandbox = Sandbox::new("store-no-home");
    let run = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "54321", "--clear-groups", env!("CARGO_BIN_EXE_metallic")]);
        outcome(
            command.args(args).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").output().unwrap(),
        )
    };
    if Command::new("setpriv")
        .args(["--reuid", "54321", "true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        run(&["completions", "bash"]).succeeds();
        assert!(run(&["inspect", "./none.gguf"]).fails(4).contains("there is no file"));
        for command in [&["models"][..], &["pull", "smollm2"], &["rm", "smollm2"]] {
            assert!(run(command).fails(1).contains("set HOME, or METALLIC_CACHE"));
        }
    } else {
        println!("skipped: only root can be another user");
    }
    // A relative folder is meant from here.
    let mut command = sandbox.command(&["rm", "smollm2"]);
    let outcome = outcome(command.env("METALLIC_CACHE", "here").output().unwrap());
    assert!(outcome.fails(4).contains("not in the store"), "{outcome:?}");
}

#[test]
fn show_says_what_a_model_is() {
    let Some(model) = smollm2() else { return };
    let sandbox = Sandbox::new("store-show");
    let model = model.to_str().unwrap();
    let text = sandbox.run(&["show", model]).succeeds().stdout;
    for line in [
        "architecture  llama",
        "parameters    134.5M",
        "quantization  Q4_1",
        "context       8192 tokens",
        "embedding     576",
        "layers        30",
        "tokenizer     gpt2 (smollm), 49152 tokens",
        "can do        completion, chat",
        "licence       apache-2.0",
        "runs here     yes",
        "size          93.8 MiB",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} in {text}");
    }
    let facts = json(&sandbox, &["show", model, "--json"]);
    assert_eq!(facts["n_parameters"], 134_515_008);
    assert_eq!(facts["context_length"], 8192);
    assert_eq!(facts["unusable"], Value::Null);
    assert_eq!(Path::new(facts["path"].as_str().unwrap()), Path::new(model));
    let template = sandbox.run(&["show", model, "--template"]).succeeds().stdout;
    assert_eq!(template.trim_end(), facts["template"].as_str().unwrap().trim_end());
    assert!(template.contains("<|im_start|>"));
}

#[test]
fn show_says_what_a_model_can_do() {
    let sandbox = Sandbox::new("store-can-do");
    let content = "{% for m in messages %}{{ m.content }}{% endfor %}";
    for (template, capabilities) in [
        (None, &["completion"][..]),
        (Some(content), &["completion", "chat"]),
        (Some("{{ tools }}{{ messages[0].content }}"), &["completion", "chat", "tools"]),
        (
            Some("{{ messages[0].content.split('</think>')[-1] }}<think>"),
            &["completion", "chat", "reasoning"],
        ),
    ] {
        sandbox.write("a.gguf", alphabet::model_with(Options { template, ..Options::default() }));
        let facts = json(&sandbox, &["show", "a.gguf", "--json"]);
        assert_eq!(facts["capabilities"], serde_json::json!(capabilities), "{template:?}");
        assert_eq!(facts["name"], "Alphabet");
    }
    sandbox.write("a.gguf", alphabet::model_with(Options { template: None, ..Options::default() }));
    assert!(sandbox.run(&["show", "a.gguf", "--template"]).fails(3).contains("has no chat template"));
    // One that has a name is used where there is no other.
    let named =
        Options { template: None, named: &[("rag", "{{ messages[0].content }}")], ..Options::default() };
    sandbox.write("a.gguf", alphabet::model_with(named));
    let template = sandbox.run(&["show", "a.gguf", "--template"]).succeeds().stdout;
    assert_eq!(template, "{{ messages[0].content }}\n");
    sandbox.write("a.gguf", alphabet::model_with(Options { architecture: "clip", ..Options::default() }));
    let text = sandbox.run(&["show", "a.gguf"]).succeeds().stdout;
    assert!(text.contains("runs here     no: "), "{text}");
}
