//! The program on a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;

use crate::sandbox::Sandbox;

/// The program on a terminal of its own.
pub(crate) struct Terminal {
    child: Child,
    keys: File,
    screen: Receiver<u8>,
    seen: String,
}

impl Terminal {
    pub(crate) fn start(sandbox: &Sandbox, args: &[&str]) -> Self {
        Self::start_with(sandbox, args, |_| {})
    }

    /// With a change to the command, such as to its environment.
    pub(crate) fn start_with(sandbox: &Sandbox, args: &[&str], change: impl Fn(&mut Command)) -> Self {
        let pty = openpty(None, None).unwrap();
        let end = |fd: &OwnedFd| fd.try_clone().unwrap();
        let mut command = sandbox.command(args);
        command.env("TERM", "xterm").stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(pty.slave);
        change(&mut command);
        let child = command.spawn().unwrap();
        // The command holds the terminal's other end; with it gone, reading ends when the program does.
        drop(command);
        let mut output = File::from(end(&pty.master));
        let (send, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut byte = [0];
            while output.read_exact(&mut byte).is_ok() && send.send(byte[0]).is_ok() {}
        });
        Terminal { child, keys: File::from(pty.master), screen, seen: String::new() }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// All that the screen shows from now on until the program ends, and its exit code.
    pub(crate) fn rest(mut self) -> (String, Option<i32>) {
        self.seen.extend(self.screen.iter().map(char::from));
        (self.seen, self.child.wait().unwrap().code())
    }

    /// Waits until the screen has shown `text` since the last such wait.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.seen.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            let byte = self.screen.recv_timeout(left);
            let byte =
                byte.unwrap_or_else(|e| panic!("{e} while waiting for {text:?}; so far: {:?}", self.seen));
            self.seen.push(byte.into());
        }
        self.seen.clear();
    }

    pub(crate) fn interrupt(&self) {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
    }

    /// Ends the program without a warning.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}
