//! The files of a repository, as the hub's API lists them.

use serde::Deserialize;
use ureq::Body;
use ureq::http::{Method, Response};

use super::client::{Client, header};
use crate::failure::Result;
use crate::fetch::RepoFile;
use crate::fetch::hub_name::{HubRepo, encode_path};
use crate::fetch::name::is_safe_path;
use crate::interrupt::Heed;
use crate::terminal::Terminal;

/// A page has a thousand files, so a longer list is of no model.
const MAX_PAGES: usize = 100;
/// Bytes of a page at most.
const MAX_PAGE_BYTES: u64 = 16 << 20;
/// Where the paths of the API begin.
const API: &str = "/api/models/";

/// What the hub says of a file or a folder.
#[derive(Deserialize)]
struct Entry {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

/// A large file: `oid` is its SHA-256.
#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// All files of a repository that the store can hold, in the hub's order.
pub(in crate::fetch) fn list(
    repo: &HubRepo,
    terminal: &Terminal,
    interrupt: &Heed<'_>,
) -> Result<Vec<RepoFile>> {
    let client = Client::of_user(terminal, interrupt);
    let what = format!("can't list the files of {repo}");
    let revision = encode_path(repo.revision()).replace('/', "%2F");
    let mut next = Some(format!("{API}{}/{}/tree/{revision}?recursive=true", repo.owner, repo.repo));
    let mut files = Vec::new();
    for _ in 0..MAX_PAGES {
        let Some(path) = next else { return Ok(files) };
        let page: Vec<Entry>;
        (page, next) = client.persist(|_| {
            let (_, response) = client.ask(&what, &Method::GET, &path)?;
            let next = next_page(&response);
            let text = response.into_body().into_with_config().limit(MAX_PAGE_BYTES).read_to_vec();
            let text = text.map_err(|e| client.broken(&what, e))?;
            let page = serde_json::from_slice(&text);
            Ok((page.map_err(|e| client.failure(&what).because(e).advice("is that server a hub?"))?, next))
        })?;
        // A path that would leave the store leads to nothing that can be named.
        let is_file = |entry: &Entry| entry.r#type == "file" && is_safe_path(&entry.path);
        files.extend(page.into_iter().filter(is_file).map(|Entry { path, size, lfs, .. }| RepoFile {
            path,
            n_bytes: lfs.as_ref().map_or(size, |lfs| lfs.size),
            sha256: lfs.map(|lfs| lfs.oid),
        }));
    }
    Err(client.failure(&what).because(format!("the list has more than {MAX_PAGES} pages")))
}

/// The path of the page after this one (RFC 8288). Its server is ours, whatever the link says: the token is for
/// no other.
fn next_page(response: &Response<Body>) -> Option<String> {
    let links = header(response, "link")?.split(',');
    let next = links.into_iter().find(|link| link.contains("rel=\"next\""))?;
    let url = next.split_once('<')?.1.split_once('>')?.0;
    url.find(API).map(|start| url[start..].to_owned())
}
