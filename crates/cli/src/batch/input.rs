//! The file of requests: what each line asks, and in which order they are best answered.
//!
//! The file may be larger than memory, so it is read twice: once to check every line, and then, line by line, as requests are asked.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use metallic_server::Question;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Result};

/// What requests may ask for.
const ENDPOINTS: [&str; 3] = ["/v1/chat/completions", "/v1/completions", "/v1/responses"];

/// Bytes of a line: as many as the server takes of a body, and what is around it.
const MAX_LINE: u64 = (4 << 20) + 4096;

/// Bytes after which beginnings of prompts are compared, the first where most system prompts differ.
const PREFIXES: [usize; 5] = [64, 256, 1024, 4096, 16384];

/// A file of requests.
pub(super) struct Input {
    path: PathBuf,
    file: File,
    /// In the order in which they are to be asked.
    pub(super) requests: Vec<Place>,
    /// Lines that are none.
    pub(super) wrong: Vec<Wrong>,
}

/// Where a request is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// What tells it from all others.
    pub(super) id: String,
    pub(super) custom_id: String,
    /// From 1.
    pub(super) line: usize,
    offset: u64,
    n_bytes: usize,
    /// For each length of prefixes, the first line that begins alike.
    alike: [usize; PREFIXES.len()],
}

/// A line that asks nothing.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    pub(super) id: String,
    pub(super) custom_id: Option<String>,
    pub(super) line: usize,
    pub(super) reason: String,
}

/// A line, as OpenAI's batch files have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    custom_id: String,
    method: Option<String>,
    url: String,
    body: Map<String, Value>,
}

impl Input {
    /// Reads all lines.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let cannot = |error| Failure::io(format!("can't read {}", path.display()), error);
        let file = File::open(path).map_err(cannot)?;
        let mut reader = BufReader::new(file.try_clone().map_err(cannot)?);
        let mut reading = Reading::default();
        let (mut requests, mut wrong) = (Vec::new(), Vec::new());
        let (mut offset, mut bytes) = (0, Vec::new());
        for line in 1.. {
            bytes.clear();
            let n_read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut bytes).map_err(cannot)?;
            if n_read == 0 {
                break;
            }
            let mut n_bytes = n_read as u64;
            if n_read as u64 == MAX_LINE && !bytes.ends_with(b"\n") {
                n_bytes += skip_line(&mut reader).map_err(cannot)?;
                let reason = format!("it has more than {MAX_LINE} bytes");
                wrong.push(Wrong { id: id_of(&[&line.to_string()]), custom_id: None, line, reason });
            } else if !content(&bytes).is_empty() {
                match reading.read(&bytes, line) {
                    Ok((custom_id, alike)) => {
                        let id = id_of_line(&bytes);
                        requests.push(Place { id, custom_id, line, offset, n_bytes: n_read, alike });
                    }
                    Err((custom_id, reason)) => {
                        let text = String::from_utf8_lossy(&bytes);
                        let id = id_of(&[&line.to_string(), &text]);
                        wrong.push(Wrong { id, custom_id, line, reason });
                    }
                }
            }
            offset += n_bytes;
        }
        // What begins alike is asked one after the other, so that its beginning is read once.
        requests.sort_by_key(|place| (place.alike, place.line));
        Ok(Self { path: path.to_owned(), file, requests, wrong })
    }

    /// What a request asks; `model` is what the server calls the model.
    pub(super) fn question(&mut self, place: &Place, model: &str) -> Result<Question> {
        let cannot = |error| Failure::io(format!("can't read {}", self.path.display()), error);
        let mut bytes = vec![0; place.n_bytes];
        self.file.seek(SeekFrom::Start(place.offset)).map_err(cannot)?;
        self.file.read_exact(&mut bytes).map_err(cannot)?;
        let line = serde_json::from_slice(content(&bytes)).ok().filter(|_| id_of_line(&bytes) == place.id);
        let Some(Line { url, mut body, .. }) = line else {
            let what =
                format!("{} has changed while it was read, at line {}", self.path.display(), place.line);
            return Err(
                Failure::new(crate::failure::Kind::General, what).advice("run the same command again")
            );
        };
        body.insert("model".to_owned(), model.into());
        Ok(Question { path: url, body: Value::Object(body).to_string().into_bytes() })
    }
}

/// What lines before have said.
#[derive(Default)]
struct Reading {
    custom_ids: HashMap<String, usize>,
    prefixes: HashMap<u64, usize>,
}

impl Reading {
    /// What a line calls itself, and the first lines that begin alike.
    ///
    /// # Errors
    /// What it calls itself, if anything, and why it is no request.
    fn read(
        &mut self,
        bytes: &[u8],
        line: usize,
    ) -> Result<(String, [usize; PREFIXES.len()]), (Option<String>, String)> {
        let Line { custom_id, method, url, body } =
            serde_json::from_slice(content(bytes)).map_err(|error| (None, without_place(&error)))?;
        let wrong = |reason: String| Err((Some(custom_id.clone()), reason));
        if method.as_ref().is_some_and(|method| method != "POST") {
            return wrong("method: it must be POST".to_owned());
        }
        if !ENDPOINTS.contains(&url.as_str()) {
            return wrong(format!("url: it must be one of {}", ENDPOINTS.join(", ")));
        }
        if body.get("stream").is_some_and(|streams| *streams != Value::Bool(false) && !streams.is_null()) {
            return wrong("body.stream: what goes to a file is not streamed".to_owned());
        }
        if let Some(first) = self.custom_ids.get(&custom_id) {
            return wrong(format!("custom_id: {custom_id:?} is what line {first} is called"));
        }
        self.custom_ids.insert(custom_id.clone(), line);
        let prompt = ["tools", "instructions", "messages", "prompt", "input"].map(|field| body.get(field));
        let prompt: String = prompt.into_iter().flatten().map(Value::to_string).collect();
        let alike = PREFIXES.map(|n_bytes| {
            let mut hasher = DefaultHasher::new();
            (n_bytes, &url, &prompt.as_bytes()[..n_bytes.min(prompt.len())]).hash(&mut hasher);
            *self.prefixes.entry(hasher.finish()).or_insert(line)
        });
        Ok((custom_id, alike))
    }
}

/// A line without its end, or the mark that some programs begin files with.
fn content(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes).trim_ascii()
}

/// An error of JSON, whose line is always the first.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(reason) => format!("{reason} at column {}", error.column()),
        None => text,
    }
}

fn skip_line(reader: &mut impl BufRead) -> std::io::Result<u64> {
    let mut n_skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let n_bytes = end.unwrap_or(buffer.len());
        reader.consume(n_bytes);
        n_skipped += n_bytes as u64;
        if end.is_some() || n_bytes == 0 {
            return Ok(n_skipped);
        }
    }
}

fn id_of_line(bytes: &[u8]) -> String {
    id_of(&[&String::from_utf8_lossy(content(bytes))])
}

/// A name that other texts don't have.
fn id_of(texts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    texts.iter().for_each(|text| {
        hasher.update(text.len().to_le_bytes());
        hasher.update(text);
    });
    let digits: String = hasher.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("{}{digits}", super::output::ID)
}
