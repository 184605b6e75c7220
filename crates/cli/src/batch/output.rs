//! The file of answers: each is written whole and kept, or not there, whatever ends the process.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::{Failure, Kind, Result};
use crate::output_file::refuse_inputs;

/// What ids of answers begin with.
pub(super) const ID: &str = "batch_req_";

/// What every file of answers begins with.
const BEGINNING: &[u8] = b"{\"id\":\"batch_req_";

/// An answer, as OpenAI's files have it.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    pub(super) id: &'a str,
    pub(super) custom_id: Option<&'a str>,
    pub(super) response: Option<Response<'a>>,
    pub(super) error: Option<LineError>,
}

#[derive(Debug, Serialize)]
pub(super) struct Response<'a> {
    pub(super) status_code: u16,
    pub(super) request_id: &'a str,
    pub(super) body: &'a RawValue,
}

/// Why a line of the input has no answer.
#[derive(Debug, Serialize)]
pub(super) struct LineError {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) line: usize,
}

/// What a line of answers is of.
#[derive(Deserialize)]
struct Known {
    id: String,
    custom_id: Option<String>,
    error: Option<IgnoredAny>,
}

/// A file of answers, which no other process writes to meanwhile.
pub(super) struct Output {
    path: PathBuf,
    file: File,
    n_bytes: u64,
    /// The ids of its answers, with their lines.
    ids: HashMap<String, usize>,
    /// What each answered request is called, and its id.
    custom_ids: HashMap<String, String>,
}

impl Output {
    /// Opens or makes a file, and drops the piece of an answer that a killed process may have left at its end.
    pub(super) fn open(path: &Path, inputs: &[&Path]) -> Result<Self> {
        let cannot = |error| Failure::io(format!("can't write {}", path.display()), error);
        let there = fs::metadata(path).ok();
        refuse_inputs(path, there.as_ref(), inputs)?;
        if there.as_ref().is_some_and(|there| !there.is_file()) {
            let what = format!("{} is no regular file", path.display());
            return Err(Failure::new(Kind::Usage, what).advice("name one with -o"));
        }
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = format!("another process writes to {}", path.display());
                return Err(Failure::new(Kind::General, what).advice("wait for it, or give another name"));
            }
            // Where files can't be locked, that goes unsaid.
            Err(TryLockError::Error(_)) => {}
        }
        let mut output =
            Self { path: path.to_owned(), file, n_bytes: 0, ids: HashMap::new(), custom_ids: HashMap::new() };
        output.read()?;
        output.file.set_len(output.n_bytes).map_err(cannot)?;
        output.file.seek(SeekFrom::Start(output.n_bytes)).map_err(cannot)?;
        Ok(output)
    }

    /// Reads what there is, up to the end of the last whole line.
    fn read(&mut self) -> Result<()> {
        let cannot = |error| Failure::io(format!("can't read {}", self.path.display()), error);
        let mut reader = BufReader::new(&self.file);
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            let n_read =
                (&mut reader).take(BEGINNING.len() as u64).read_until(b'\n', &mut bytes).map_err(cannot)?;
            if n_read == 0 {
                break;
            }
            // Nothing is read of what may be a file of anything, and nothing of it is lost.
            if !BEGINNING.starts_with(&bytes) {
                return Err(self.foreign(line));
            }
            reader.read_until(b'\n', &mut bytes).map_err(cannot)?;
            if !bytes.ends_with(b"\n") {
                break;
            }
            let Ok(Known { id, custom_id, error }) = serde_json::from_slice(&bytes) else {
                return Err(self.foreign(line));
            };
            self.n_bytes += bytes.len() as u64;
            // What was no request may have been mended.
            if let Some(custom_id) = custom_id.filter(|_| error.is_none()) {
                self.custom_ids.insert(custom_id, id.clone());
            }
            self.ids.insert(id, line);
        }
        Ok(())
    }

    fn foreign(&self, line: usize) -> Failure {
        let what = format!("line {line} of {} is no answer of a batch", self.path.display());
        Failure::new(Kind::Usage, what).advice("give the name of a new file with -o")
    }

    /// Whether there is the answer to a request already.
    ///
    /// # Errors
    /// There is one to another request of that name.
    pub(super) fn has(&self, id: &str, custom_id: Option<&str>) -> Result<bool> {
        if self.ids.contains_key(id) {
            return Ok(true);
        }
        match custom_id.and_then(|custom_id| Some((custom_id, self.custom_ids.get(custom_id)?))) {
            None => Ok(false),
            Some((custom_id, other)) => {
                let line = self.ids.get(other).copied().unwrap_or_default();
                let what = format!(
                    "line {line} of {} answers another request that is called {custom_id:?}",
                    self.path.display()
                );
                Err(Failure::new(Kind::Usage, what)
                    .advice("give the name of a new file with -o, or call the request something else"))
            }
        }
    }

    /// Adds an answer. When this returns it is on the disk.
    pub(super) fn add(&mut self, answer: &Answer<'_>) -> Result<()> {
        let mut line = serde_json::to_vec(answer)
            .map_err(|error| Failure::new(Kind::General, "can't write an answer").because(error))?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What there is of it would be dropped by the next run as well.
            let _ = self.file.set_len(self.n_bytes);
            let what = format!("can't write to {}", self.path.display());
            return Err(Failure::io(what, error).or_advice("then run the same command again"));
        }
        self.n_bytes += line.len() as u64;
        Ok(())
    }
}
