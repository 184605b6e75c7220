//! A small HTTP server in the place of a hub.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// What a client asks for.
pub(crate) struct Request {
    /// Such as `GET /path HTTP/1.1`.
    pub(crate) line: String,
    /// The header `range`, or nothing.
    pub(crate) range: String,
    /// The header `authorization` in lower case, or nothing.
    pub(crate) token: String,
}

impl Request {
    /// The path that is asked for.
    pub(crate) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// Starts a server that answers with `answer`; it tells the first line, the range and the token of every request.
pub(crate) fn serve(
    mut answer: impl FnMut(TcpStream, &Request) + Send + 'static,
) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (log, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let request = read_request(&stream);
            let _ = log.send(format!("{} {}{}", request.line, request.range, request.token));
            answer(stream, &request);
        }
    });
    (endpoint, requests)
}

fn read_request(stream: &TcpStream) -> Request {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let line = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header =
        |name: &str| headers.iter().find_map(|line| Some(line.to_lowercase().strip_prefix(name)?.to_owned()));
    let (range, token) = (header("range: "), header("authorization: "));
    Request { line, range: range.unwrap_or_default(), token: token.unwrap_or_default() }
}

pub(crate) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a hub with one repository, `owner/repo`, whose files say their own paths. At any revision they are the
/// same, but for their first line. It lists `page` files at a time.
pub(crate) fn serve_repository(files: &[&str], page: usize) -> (String, Receiver<String>) {
    let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
    serve(move |mut stream, request| {
        let path = request.path().replace("%20", " ");
        let (status, headers, body) = match path.strip_prefix("/api/models/owner/repo/tree/") {
            Some(tree) => list(&files, page, tree),
            None => file(&files, &path),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes());
        if request.line.starts_with("GET") {
            let _ = stream.write_all(&body);
        }
    })
}

fn list(files: &[String], page: usize, tree: &str) -> (&'static str, String, Vec<u8>) {
    let from = tree.split_once("cursor=").map_or(0, |(_, cursor)| cursor.parse().unwrap());
    let revision = tree.split('?').next().unwrap();
    let entry = |path: &String| {
        let content = content(revision, path);
        json!({
            "type": "file", "path": path, "size": 134, "oid": "0",
            "lfs": {"oid": sha256(&content), "size": content.len(), "pointerSize": 134},
        })
    };
    let mut entries: Vec<_> = files.iter().skip(from).take(page).map(entry).collect();
    entries.push(json!({"type": "directory", "path": "a-Q4_K_M.gguf", "size": 0, "oid": "1"}));
    let to = from + page;
    // Another host than ours, as behind a mirror.
    let link = format!(
        "link: <http://hub.invalid/api/models/owner/repo/tree/{revision}?cursor={to}>; rel=\"next\"\r\n"
    );
    let link = if to < files.len() { link } else { String::new() };
    ("200 OK", link, serde_json::to_vec(&entries).unwrap())
}

fn file(files: &[String], path: &str) -> (&'static str, String, Vec<u8>) {
    let in_repo = path.strip_prefix("/owner/repo/resolve/").and_then(|path| path.split_once('/'));
    match in_repo.filter(|(_, file)| files.iter().any(|known| known == file)) {
        Some((revision, file)) => {
            let content = content(revision, file);
            let headers = BTreeMap::from([
                ("x-linked-size", content.len().to_string()),
                ("x-linked-etag", format!("\"{}\"", sha256(&content))),
            ]);
            let headers: String =
                headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            ("200 OK", headers, content)
        }
        None => ("404 Not Found", String::new(), Vec::new()),
    }
}

fn content(revision: &str, path: &str) -> Vec<u8> {
    format!("{revision}\n{path}").into_bytes()
}
