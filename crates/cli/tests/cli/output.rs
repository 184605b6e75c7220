//! Files that commands write: whole under their name, or not there.

use std::fs;

use crate::align;
use crate::alphabet;
use crate::sandbox::Sandbox;
#[cfg(unix)]
use crate::sandbox::{kill, outcome, wait_for};

const LOGITS: [&str; 6] = ["logits", "a.gguf", "--tokens", "97,10,122", "-t", "1"];
const N_BYTES: usize = 3 * alphabet::N_VOCAB * 4;

fn sandbox(test: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write("a.gguf", alphabet::model());
    fs::create_dir(sandbox.path("out")).unwrap();
    sandbox
}

#[test]
fn an_output_that_is_an_input_is_refused() {
    let sandbox = sandbox("output-input");
    let model = alphabet::model();
    let mut names = vec!["a.gguf", "out/../a.gguf", "hard"];
    fs::hard_link(sandbox.path("a.gguf"), sandbox.path("hard")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("a.gguf", sandbox.path("soft")).unwrap();
        names.push("soft");
    }
    #[cfg(not(unix))]
    names.pop();
    for name in names {
        for force in [&[][..], &["--force"]] {
            let refused = sandbox.run(&[&LOGITS[..], &["-o", name], force].concat());
            assert!(refused.fails(2).contains(&format!("{name} is the model itself")), "{refused:?}");
        }
    }
    assert!(fs::read(sandbox.path("a.gguf")).unwrap() == model);

    let shards = align::shards();
    for (no, shard) in (1..).zip(&shards) {
        sandbox.write(&format!("m-0000{no}-of-00002.gguf"), shard);
    }
    let second = "m-00002-of-00002.gguf";
    let args = ["logits", "m-00001-of-00002.gguf", "--tokens", "1", "-o", second, "--force"];
    assert!(sandbox.run(&args).fails(2).contains("is the model itself"));
    assert!(fs::read(sandbox.path(second)).unwrap() == shards[1]);
}

#[test]
fn what_exists_stays_until_all_that_replaces_it_is_there() {
    let sandbox = sandbox("output-exists");
    sandbox.write("out/l.f32", "mine");
    let write = |args: &[&str]| sandbox.run(&[&LOGITS[..], &["-o", "out/l.f32"], args].concat());
    let exists = write(&[]);
    assert!(exists.fails(2).contains("out/l.f32 exists already") && exists.stderr.contains("--force"));
    // The id out of range is the last of many batches.
    let outside = ["logits", "a.gguf", "--tokens", "1,2,3,258", "-b", "1", "-o", "out/l.f32", "--force"];
    assert!(sandbox.run(&outside).fails(1).contains("258"));
    assert_eq!(fs::read(sandbox.path("out/l.f32")).unwrap(), b"mine");
    for no_file in ["out", "no/.."] {
        sandbox.run(&[&LOGITS[..], &["-o", no_file, "--force"]].concat()).fails(2);
    }
    assert_eq!(sandbox.names("out"), ["l.f32"]);

    write(&["--force"]).succeeds();
    assert_eq!(fs::read(sandbox.path("out/l.f32")).unwrap().len(), N_BYTES);
    assert_eq!(sandbox.names("out"), ["l.f32"]);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link_and_permissions_stay() {
    use std::os::unix::fs::PermissionsExt as _;

    let sandbox = sandbox("output-link");
    let path = sandbox.write("out/l.f32", "old");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("out/l.f32", sandbox.path("link")).unwrap();
    sandbox.run(&[&LOGITS[..], &["-o", "link", "--force"]].concat()).succeeds();
    assert!(fs::symlink_metadata(sandbox.path("link")).unwrap().is_symlink());
    assert_eq!(fs::read(&path).unwrap().len(), N_BYTES);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    fs::remove_file(&path).unwrap();
    let nowhere = sandbox.run(&[&LOGITS[..], &["-o", "link"]].concat());
    assert!(nowhere.fails(2).contains("link exists already"), "{nowhere:?}");
    sandbox.run(&[&LOGITS[..], &["-o", "link", "--force"]].concat()).succeeds();
    assert_eq!(fs::read(sandbox.path("link")).unwrap().len(), N_BYTES);
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_written_to_as_they_are() {
    let sandbox = sandbox("output-pipe");
    sandbox.run(&[&LOGITS[..], &["-o", "l.f32"]].concat()).succeeds();
    let expected = fs::read(sandbox.path("l.f32")).unwrap();
    for name in ["-", "/dev/stdout", "/dev/fd/1"] {
        let output = sandbox.command(&[&LOGITS[..], &["-o", name]].concat()).output().unwrap();
        assert!(output.status.success() && output.stdout == expected, "{name}: {output:?}");
        let closed = sandbox.command(&[&LOGITS[..], &["-o", name]].concat());
        assert_eq!(with_closed_output(closed), Some(0), "{name}");
    }
    sandbox.run(&[&LOGITS[..], &["-o", "/dev/null"]].concat()).succeeds();
    let outside = sandbox.run(&["logits", "a.gguf", "--tokens", "1,2,258", "-b", "1", "-o", "-"]);
    assert_eq!((outside.code, &*outside.stdout), (Some(1), ""));

    // What the shell appends to is neither emptied nor replaced, and the model not written to.
    let shell = |script: &str| {
        let mut command = sandbox.command(&[]);
        let program = command.get_program().to_owned();
        command = std::process::Command::new("sh");
        command.args(["-c", script]).arg(program).args(LOGITS).current_dir(sandbox.path(""));
        outcome(command.output().unwrap())
    };
    sandbox.write("all.f32", "before");
    shell("\"$0\" \"$@\" -o /dev/stdout >> all.f32").succeeds();
    assert_eq!(fs::read(sandbox.path("all.f32")).unwrap(), [b"before", &expected[..]].concat());
    let itself = shell("\"$0\" \"$@\" -o - >> a.gguf");
    assert!(itself.fails(2).contains("is the model itself"), "{itself:?}");
    assert!(fs::read(sandbox.path("a.gguf")).unwrap() == alphabet::model());
    let fifo = shell("mkfifo fifo; cat fifo > copy.f32 & \"$0\" \"$@\" -o fifo; code=$?; wait; exit $code");
    fifo.succeeds();
    assert!(fs::read(sandbox.path("copy.f32")).unwrap() == expected);
    #[cfg(target_os = "linux")]
    {
        let full = sandbox.run(&[&LOGITS[..], &["-o", "/dev/full"]].concat());
        assert!(full.fails(1).contains("can't write /dev/full"), "{full:?}");
    }
}

/// The exit code of a program whose output nobody reads.
#[cfg(unix)]
fn with_closed_output(mut command: std::process::Command) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer).status().unwrap().code()
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_what_was_there() {
    let sandbox = sandbox("output-full");
    // A thousand rows of a thousand bytes, beside which the old file has room.
    let tokens = vec!["97"; 1100].join(",");
    let args = ["logits", "a.gguf", "--tokens", &tokens, "--force", "-o", "small/l.f32"];
    // Nothing there that is larger than a block.
    match sandbox.run_on_a_small_disk("echo old > small/l.f32", &args, "small -size +1") {
        Some(outcome) => {
            let line = outcome.fails(1);
            assert!(line.contains("can't write small/l.f32") && line.contains("free some space"), "{line}");
        }
        None => println!("skipped: this machine doesn't let a test mount a small file system"),
    }
    // A limit on the size of files, for which the system sends a signal.
    sandbox.write("out/l.f32", "old");
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -f 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_metallic")]);
    let limited = limited.args(&args[..5]).args(["-o", "out/l.f32"]).current_dir(sandbox.path(""));
    let limited = outcome(limited.output().unwrap());
    assert!(limited.fails(1).contains("can't write out/l.f32"), "{limited:?}");
    assert_eq!(sandbox.names("out"), ["l.f32"]);
    assert_eq!(fs::read(sandbox.path("out/l.f32")).unwrap(), b"old");
}

/// Logits that take longer than a test.
#[cfg(unix)]
fn start(sandbox: &Sandbox, out: &str) -> std::process::Child {
    let tokens = vec!["97"; 40_000].join(",");
    sandbox.spawn(&["logits", "a.gguf", "--tokens", &tokens, "-t", "1", "-o", out])
}

#[cfg(unix)]
#[test]
fn signals_end_it_at_once_and_leave_nothing() {
    let sandbox = sandbox("output-signals");
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let child = start(&sandbox, "out/l.f32");
        wait_for("the temporary file", || !sandbox.names("out").is_empty());
        kill(signal, &child);
        let outcome = outcome(child.wait_with_output().unwrap());
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert_eq!(sandbox.names("out"), [""; 0], "{signal}");
    }
}

#[cfg(unix)]
#[test]
fn the_leavings_of_a_killed_process_are_removed_and_a_living_ones_are_not() {
    let sandbox = sandbox("output-killed");
    let mut killed = start(&sandbox, "out/killed.f32");
    wait_for("the first file", || sandbox.names("out").len() == 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = sandbox.names("out");
    assert!(left[0].starts_with(".metallic-") && left[0].ends_with(".partial"), "{left:?}");

    let mut living = start(&sandbox, "out/living.f32");
    wait_for("the second file", || sandbox.names("out").iter().any(|name| *name != left[0]));
    let other = sandbox.names("out").into_iter().find(|name| *name != left[0]).unwrap();
    sandbox.run(&[&LOGITS[..], &["-o", "out/l.f32"]].concat()).succeeds();
    assert_eq!(sandbox.names("out"), [&other, "l.f32"]);
    kill("-TERM", &living);
    living.wait().unwrap();
    assert_eq!(sandbox.names("out"), ["l.f32"]);
}

#[cfg(target_os = "linux")]
#[test]
fn who_is_started_to_outlive_the_terminal_does() {
    let sandbox = sandbox("output-nohup");
    let tokens = vec!["97"; 40_000].join(",");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_metallic")]);
    command.args(["logits", "a.gguf", "--tokens", &tokens, "-o", "out/l.f32"]);
    let mut child = command.current_dir(sandbox.path("")).spawn().unwrap();
    wait_for("the temporary file", || !sandbox.names("out").is_empty());
    kill("-HUP", &child);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(child.try_wait().unwrap(), None);
    kill("-TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
