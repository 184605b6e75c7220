//! Models from Hugging Face, or a server that speaks like it, over HTTP.
//!
//! `GET ENDPOINT/OWNER/REPO/resolve/main/FILE` gives a file, mostly by way of a redirect to a content
//! server. The response before the redirect carries, for large files, `x-linked-etag`, the SHA-256,
//! and `x-linked-size`. See <https://huggingface.co/docs/hub/models-downloading>.
//!
//! Not the `hf-hub` crate: since 1.0 it is an asynchronous client of the whole hub (tokio, reqwest,
//! xet), has a cache of its own and leaves checking to the caller; we need two requests.

use std::env;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body, BodyReader};

use super::Job;
use super::incoming::{Expected, Incoming};
use super::name::HubFile;
use crate::failure::{Failure, Kind, Result};
use crate::interrupt::Heed;

/// The hub, unless `HF_ENDPOINT` names another.
const ENDPOINT: &str = "https://huggingface.co";
/// Without a network the user should know soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says nothing for this long has gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections in a row that bring nothing before we give up.
const MAX_FRUITLESS_ATTEMPTS: u32 = 3;
/// A renamed repository redirects once, to its new name on the same server.
const MAX_RENAMES: usize = 3;
/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 18;

/// Downloads the file to its destination, going on where an earlier attempt stopped.
pub(super) fn download(job: &Job<'_>, file: &HubFile, destination: &Path) -> Result<()> {
    let hub = Hub::of_user(file);
    let remote = hub.describe()?;
    if let Some(sha256) = job.expected.sha256.as_ref().filter(|sha256| **sha256 != remote.sha256) {
        let found = &remote.sha256;
        return Err(hub.failure().because(format!("its SHA-256 there is {found} and should be {sha256}")));
    }

    let bar = job.terminal.byte_bar("downloading", remote.n_bytes);
    let mut incoming = Incoming::resume(destination)?;
    incoming.keep();
    if incoming.n_bytes() > remote.n_bytes {
        incoming.restart()?;
    }
    let mut fruitless = 0;
    while incoming.n_bytes() < remote.n_bytes {
        let before = incoming.n_bytes();
        let Err(stopped) = hub.copy(&remote, &mut incoming, &bar, &job.interrupt)? else { continue };
        tracing::info!("the connection broke at byte {}: {stopped}", incoming.n_bytes());
        fruitless = if incoming.n_bytes() > before { 0 } else { fruitless + 1 };
        if fruitless == MAX_FRUITLESS_ATTEMPTS {
            return Err(
                stopped.advice("check the network and try again: the download goes on where it stopped")
            );
        }
    }
    bar.finish_and_clear();
    incoming.finish(&Expected { n_bytes: Some(remote.n_bytes), sha256: Some(remote.sha256) })
}

/// A file at the hub, and how to ask for it.
struct Hub<'a> {
    file: &'a HubFile,
    endpoint: String,
    token: Option<String>,
    agent: Agent,
}

/// What the hub says of a file.
struct Remote {
    url: String,
    n_bytes: u64,
    sha256: String,
}

impl<'a> Hub<'a> {
    fn of_user(file: &'a HubFile) -> Self {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(SILENCE_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .user_agent(concat!("metallic/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Hub { file, endpoint: endpoint.trim_end_matches('/').to_owned(), token: set("HF_TOKEN"), agent }
    }

    fn failure(&self) -> Failure {
        let HubFile { owner, repo, file } = self.file;
        Failure::new(Kind::NoModel, format!("can't download {owner}/{repo}/{file} from {}", self.endpoint))
    }

    /// Asks for the file's size and checksum.
    fn describe(&self) -> Result<Remote> {
        let HubFile { owner, repo, file } = self.file;
        let mut path = format!("/{owner}/{repo}/resolve/main/{}", percent_encode(file));
        for _ in 0..=MAX_RENAMES {
            let url = format!("{}{path}", self.endpoint);
            let mut request = self.agent.head(&url).config().max_redirects(0).build();
            if let Some(token) = &self.token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|e| self.unreachable(e))?;
            self.check_status(response.status())?;
            let location = header(&response, "location").unwrap_or_default();
            if response.status().is_redirection() && location.starts_with('/') && !location.starts_with("//")
            {
                path = location.to_owned();
                continue;
            }
            return self.read_description(url, &response);
        }
        Err(self.failure().because("it redirects in a circle"))
    }

    fn read_description(&self, url: String, response: &Response<Body>) -> Result<Remote> {
        let either = |linked, plain| header(response, linked).or_else(|| header(response, plain));
        let n_bytes = either("x-linked-size", "content-length").and_then(|text| text.parse().ok());
        let sha256 = either("x-linked-etag", "etag").map(|tag| tag.trim_matches('"').to_ascii_lowercase());
        match (n_bytes, sha256) {
            (Some(n_bytes), Some(sha256)) if is_sha256(&sha256) => Ok(Remote { url, n_bytes, sha256 }),
            _ => Err(self.failure().because("the hub tells no SHA-256 for it, so it is no model file")),
        }
    }

    /// Appends to `incoming` until the file or the connection ends. The outer error is final; after the
    /// inner one another attempt makes sense.
    fn copy(
        &self,
        remote: &Remote,
        incoming: &mut Incoming,
        bar: &indicatif::ProgressBar,
        interrupt: &Heed<'_>,
    ) -> Result<Result<()>> {
        let mut reader = match self.open(remote, incoming)? {
            Ok(reader) => reader,
            Err(stopped) => return Ok(Err(stopped)),
        };
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            interrupt.check()?;
            match reader.read(&mut buffer) {
                Ok(0) if incoming.n_bytes() < remote.n_bytes => {
                    return Ok(Err(self.failure().because("the connection ended too early")));
                }
                Ok(0) => return Ok(Ok(())),
                Ok(n) if incoming.n_bytes() + n as u64 > remote.n_bytes => {
                    return Err(self.failure().because("the hub sends more bytes than it said"));
                }
                Ok(n) => incoming.write(&buffer[..n])?,
                Err(e) => return Ok(Err(self.failure().because(e))),
            }
            bar.set_position(incoming.n_bytes());
        }
    }

    /// Asks for what is missing in `incoming`.
    fn open(&self, remote: &Remote, incoming: &mut Incoming) -> Result<Result<BodyReader<'static>>> {
        let from = incoming.n_bytes();
        let mut request = self.agent.get(&remote.url).header(header::RANGE, format!("bytes={from}-"));
        if let Some(token) = &self.token {
            // Not sent on to the content server: ureq drops it at a redirect.
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(e) => return Ok(Err(self.unreachable(e))),
        };
        self.check_status(response.status())?;
        let range = header(&response, "content-range").unwrap_or_default();
        let goes_on =
            response.status() == StatusCode::PARTIAL_CONTENT && range.starts_with(&format!("bytes {from}-"));
        if from > 0 && !goes_on {
            incoming.restart()?;
        }
        Ok(Ok(response.into_body().into_reader()))
    }

    fn unreachable(&self, error: ureq::Error) -> Failure {
        self.failure().because(error).advice("check the network, or name a model file by its path")
    }

    fn check_status(&self, status: StatusCode) -> Result<()> {
        let failure = self.failure().because(format!("the server answers {status}"));
        match status.as_u16() {
            200..=399 => Ok(()),
            401 | 403 => Err(failure.advice(
                "if the model exists and is gated or private, put a token that may read it in HF_TOKEN",
            )),
            404 => Err(failure.advice("check the spelling of owner, repository and file")),
            _ => Err(failure.advice("try again later")),
        }
    }
}

fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A path for a URL: everything but RFC 3986's unreserved characters and `/` as `%XX`.
fn percent_encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_urls() {
        assert_eq!(percent_encode("a/b-1.0_x~.gguf"), "a/b-1.0_x~.gguf");
        assert_eq!(percent_encode("a b#?%é"), "a%20b%23%3F%25%C3%A9");
    }
}
