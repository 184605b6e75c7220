//! A folder of its own for each test, and the program run inside it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
#[cfg(unix)]
use std::time::{Duration, Instant};

/// A folder that a test has for itself, removed at its end.
pub(crate) struct Sandbox {
    folder: PathBuf,
}

/// What the program did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new(test: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).unwrap();
        Sandbox { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// A file of the sandbox's store.
    pub(crate) fn stored(&self, name: &str) -> PathBuf {
        self.path("cache/models").join(name)
    }

    /// All files below the store but locks, as paths relative to it.
    #[cfg(unix)]
    pub(crate) fn store_files(&self) -> Vec<String> {
        let root = self.stored("");
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name() != Some(std::ffi::OsStr::new(".lock")) {
                    files.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }

    /// The names in a folder of the sandbox, sorted.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The program with the sandbox's store, and nothing of the machine's own: no Python, hub or proxy.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metallic"));
        command
            .args(args)
            .current_dir(&self.folder)
            .env("METALLIC_CACHE", self.path("cache"))
            .env("HF_ENDPOINT", "http://127.0.0.1:1")
            .env("PATH", self.path("bin"))
            // Without it drivers of GPUs complain on standard error.
            .env("XDG_RUNTIME_DIR", &self.folder);
        let of_terminals = ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "COLUMNS"];
        let of_networks = ["HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
        for variable in of_terminals.iter().chain(&of_networks).chain(&["RUST_BACKTRACE"]) {
            command.env_remove(variable);
        }
        #[cfg(unix)]
        heed_hangups(&mut command);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        outcome(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: impl AsRef<[u8]>) -> Outcome {
        let mut child = self.spawn(args);
        // The program may end without reading: that is for the test to judge by its exit.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        outcome(child.wait_with_output().unwrap())
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs the program under limits as the shell's `ulimit` takes them.
    #[cfg(target_os = "linux")]
    pub(crate) fn run_limited(&self, limits: &str, args: &[&str]) -> Outcome {
        self.run_in_shell(&format!("ulimit {limits} && exec \"$0\" \"$@\""), args)
    }

    /// Runs a script whose `$0` is the program.
    #[cfg(target_os = "linux")]
    pub(crate) fn run_in_shell(&self, script: &str, args: &[&str]) -> Outcome {
        let mut command = Command::new("/bin/sh");
        let program = self.command(args);
        command.args(["-c", script]).arg(program.get_program()).args(program.get_args());
        command.current_dir(&self.folder).stdin(Stdio::null());
        program.get_envs().for_each(|(name, value)| match value {
            Some(value) => drop(command.env(name, value)),
            None => drop(command.env_remove(name)),
        });
        outcome(command.output().unwrap())
    }

    /// Runs the program where `small` is a file system of one megabyte, after `setup` in a shell, and lists what
    /// is then in `folder` after the program's errors, where [`Outcome::fails`] finds it. `None` where the machine
    /// lets no test make a file system.
    #[cfg(unix)]
    pub(crate) fn run_on_a_small_disk(&self, setup: &str, args: &[&str], folder: &str) -> Option<Outcome> {
        fs::create_dir_all(self.path("small")).unwrap();
        let script = format!(
            "mount -t tmpfs -o size=1m none small || exit 77
             {setup}
             \"$0\" \"$@\"; code=$?
             find {folder} -type f ! -name .lock >&2; exit $code"
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        command.arg(env!("CARGO_BIN_EXE_metallic")).args(args);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        let result = command.current_dir(&self.folder).output().map(outcome).ok();
        result.filter(|outcome| outcome.code != Some(77) && !outcome.stderr.contains("unshare"))
    }

    /// Puts a shell script on the program's PATH.
    #[cfg(unix)]
    pub(crate) fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.write(&format!("bin/{name}"), format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Lets a program be ended by its terminal, also where the tests were started to outlive theirs.
#[cfg(unix)]
fn heed_hangups(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;

    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: between fork and exec only functions that are safe in signal handlers may be called; signal(2) is.
    unsafe {
        command.pre_exec(|| {
            signal(Signal::SIGHUP, SigHandler::SigDfl)?;
            Ok(())
        });
    }
}

/// Sends a process a signal, such as `-INT`.
#[cfg(unix)]
pub(crate) fn kill(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[cfg(unix)]
pub(crate) fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The default model, where it is at hand.
pub(crate) fn smollm2() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/models");
    let folder = std::env::var_os("METALLIC_MODELS").unwrap_or_else(|| default.into());
    let path = Path::new(&folder).join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if path.is_file() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "no {}", path.display());
    println!("skipped: no {}; CONTRIBUTING.md says how to get it", path.display());
    None
}

pub(crate) fn outcome(output: Output) -> Outcome {
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Outcome {
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Checks the exit code and that there is exactly one error line; gives the line.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{self:?}");
        assert_eq!(self.stderr.lines().next_back(), Some(errors[0]), "{self:?}");
        errors[0]
    }
}
