//! Models from Hugging Face, or a server that speaks like it, over HTTP.
//!
//! `GET ENDPOINT/OWNER/REPO/resolve/REVISION/FILE` gives a file, mostly by way of a redirect to a content
//! server. The response before the redirect carries, for large files, `x-linked-etag`, the SHA-256,
//! and `x-linked-size`. See <https://huggingface.co/docs/hub/models-downloading>.
//! `GET ENDPOINT/api/models/OWNER/REPO/tree/REVISION` lists files, in pages that the header `Link` connects.
//!
//! Not the `hf-hub` crate: since 1.0 it is an asynchronous client of the whole hub (tokio, reqwest,
//! xet), has a cache of its own and leaves checking to the caller; we need three requests.

mod client;
mod tree;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use ureq::Body;
use ureq::http::{Method, Response};

use self::client::{Attempt, Client, Patience, begins_at, header};
pub(super) use self::tree::list;
use super::Job;
use super::hub_name::{HubFile, encode_path};
use super::incoming::{Expected, Incoming, bytes_to_come, hexadecimal};
use super::store::check_space;
use crate::failure::{Failure, Kind, Result};
use crate::interrupt::Heed;
use crate::terminal::{Terminal, human_bytes};

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 18;

/// Downloads each file to its destination, going on where an earlier attempt stopped.
pub(super) fn download(job: &Job<'_>, files: &[(&HubFile, &Path)]) -> Result<()> {
    let client = Client::of_user(job.terminal, &job.interrupt);
    let mut downloads = Vec::new();
    for (file, destination) in files {
        downloads.push(Download { job, client: &client, destination, remote: describe(&client, file)? });
    }
    for Download { remote, .. } in &downloads {
        if let Some(sha256) = job.expected.sha256.as_ref().filter(|sha256| **sha256 != remote.sha256) {
            let found = &remote.sha256;
            return Err(client
                .failure(&remote.what)
                .because(format!("its SHA-256 there is {found} and should be {sha256}")));
        }
    }
    if let Some((first, _)) = files.first() {
        let n_bytes = downloads.iter().map(|d| bytes_to_come(d.destination, d.remote.n_bytes));
        let n_bytes = n_bytes.fold(0, u64::saturating_add);
        check_space(job.folder, n_bytes, &first.to_string())?;
    }
    downloads.iter().try_for_each(Download::run)
}

/// Whether the hub has another file of that name by now than the one at `path`.
pub(super) fn has_changed(
    file: &HubFile,
    path: &Path,
    terminal: &Terminal,
    interrupt: &Heed<'_>,
) -> Result<bool> {
    if file.repo.is_pinned() {
        return Ok(false);
    }
    let remote = describe(&Client::of_user(terminal, interrupt), file)?;
    let cannot = |e| Failure::io(format!("can't read {}", path.display()), e);
    let mut local = File::open(path).map_err(cannot)?;
    if local.metadata().map_err(cannot)?.len() != remote.n_bytes {
        return Ok(true);
    }
    let bar = terminal.byte_bar("comparing", remote.n_bytes);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        interrupt.check()?;
        match local.read(&mut buffer).map_err(cannot)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
        bar.inc(COPY_BYTES as u64);
    }
    bar.finish_and_clear();
    Ok(hexadecimal(&hasher.finalize()) != remote.sha256)
}

/// What the hub says of a file.
struct Remote {
    /// What can't be done if it fails.
    what: String,
    url: String,
    n_bytes: u64,
    sha256: String,
}

/// Asks for the file's size and checksum.
fn describe(client: &Client<'_>, HubFile { repo, file }: &HubFile) -> Result<Remote> {
    let what = format!("can't download {repo}/{file}");
    let revision = encode_path(repo.revision()).replace('/', "%2F");
    let path = format!("/{}/{}/resolve/{revision}/{}", repo.owner, repo.repo, encode_path(file));
    client.persist(|_| {
        let (url, response) = client.ask(&what, &Method::HEAD, &path)?;
        Ok(read_description(client, what.clone(), url, &response)?)
    })
}

fn read_description(
    client: &Client<'_>,
    what: String,
    url: String,
    response: &Response<Body>,
) -> Result<Remote> {
    let either = |linked, plain| header(response, linked).or_else(|| header(response, plain));
    let n_bytes = either("x-linked-size", "content-length").and_then(|text| text.parse().ok());
    let sha256 = either("x-linked-etag", "etag").map(|tag| tag.trim_matches('"').to_ascii_lowercase());
    match (n_bytes, sha256) {
        (Some(n_bytes), Some(sha256)) if is_sha256(&sha256) => Ok(Remote { what, url, n_bytes, sha256 }),
        _ => Err(client.failure(&what).because("the hub tells no SHA-256 for it, so it is no model file")),
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A file on its way.
struct Download<'a> {
    job: &'a Job<'a>,
    client: &'a Client<'a>,
    destination: &'a Path,
    remote: Remote,
}

impl Download<'_> {
    fn run(&self) -> Result<()> {
        let Remote { n_bytes, sha256, .. } = &self.remote;
        let expected = Expected { n_bytes: Some(*n_bytes), sha256: Some(sha256.clone()) };
        loop {
            let mut incoming = Incoming::resume(self.destination)?;
            incoming.keep();
            if incoming.n_bytes() > *n_bytes {
                incoming.restart()?;
            }
            let n_before = incoming.n_bytes();
            if n_before > 0 {
                let here = human_bytes(n_before);
                self.job.terminal.note(format_args!("{here} of it are here already: going on from there"));
            }
            let bar = self.job.terminal.byte_bar("downloading", *n_bytes);
            self.client.persist(|patience| self.copy(&mut incoming, patience, &bar))?;
            bar.finish_and_clear();
            match incoming.finish(&expected) {
                Err(failure) if n_before > 0 && failure.kind() == Kind::NoModel => {
                    self.job.terminal.note("what was here is of another version of the file: starting anew");
                }
                done => return done,
            }
        }
    }

    /// Appends to `incoming` until it is whole or the connection ends.
    fn copy(&self, incoming: &mut Incoming, patience: &mut Patience, bar: &ProgressBar) -> Attempt<()> {
        let Remote { what, url, n_bytes, .. } = &self.remote;
        let from = incoming.n_bytes();
        if from == *n_bytes {
            return Ok(());
        }
        let response = self.client.ask_content(what, url, from)?;
        if from > 0 && !begins_at(&response, from) {
            incoming.restart()?;
        }
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; COPY_BYTES];
        while incoming.n_bytes() < *n_bytes {
            self.job.interrupt.check()?;
            match reader.read(&mut buffer) {
                Ok(0) => return Err(self.client.broken(what, "the connection ended too early")),
                Ok(n) if incoming.n_bytes() + n as u64 > *n_bytes => {
                    return Err(self
                        .client
                        .failure(what)
                        .because("the hub sends more bytes than it said")
                        .into());
                }
                Ok(n) => incoming.write(&buffer[..n])?,
                Err(e) => return Err(self.client.broken(what, e)),
            }
            patience.renew();
            bar.set_position(incoming.n_bytes());
        }
        Ok(())
    }
}
