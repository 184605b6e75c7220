//! `metallic pull` from a hub, with a small HTTP server in its place.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use sha2::{Digest as _, Sha256};

use crate::sandbox::Sandbox;

const NAME: &str = "hf:owner/repo/a b.gguf";
const STORED: &str = "hf/owner/repo/a b.gguf";

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The first two connections end in the middle of the file.
    Drops,
    /// Every connection ends at once.
    AlwaysDrops,
    /// The bytes are not those of the checksum.
    WrongBytes,
    /// It ignores the range and sends the whole file.
    NoRanges,
    /// It answers with this status.
    Status(&'static str),
    /// It tells no checksum.
    NoChecksum,
    /// No fault: like the real hub it sends the reader on, for a repository that was renamed and then to
    /// the server that has the content.
    Redirects,
}

/// Starts a server; it tells the first line and the range of every request.
fn serve(content: Vec<u8>, fault: Fault) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (log, requests) = mpsc::channel();
    thread::spawn(move || {
        let mut n_gets = 0;
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let (line, range, token) = read_request(&stream);
            let _ = log.send(format!("{line} {range}{token}"));
            n_gets += usize::from(line.starts_with("GET"));
            answer(stream, &line, &range, &content, fault, n_gets);
        }
    });
    (endpoint, requests)
}

fn read_request(stream: &TcpStream) -> (String, String, String) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let line = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header =
        |name: &str| headers.iter().find_map(|line| Some(line.to_lowercase().strip_prefix(name)?.to_owned()));
    (line, header("range: ").unwrap_or_default(), header("authorization: ").unwrap_or_default())
}

fn answer(mut stream: TcpStream, line: &str, range: &str, content: &[u8], fault: Fault, n_gets: usize) {
    let sum: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    let linked = format!("x-linked-size: {}\r\nx-linked-etag: \"{sum}\"\r\n", content.len());
    if let Fault::Status(status) = fault {
        let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    } else if fault == Fault::Redirects && !line.contains("/content/") && !line.starts_with("HEAD /new/") {
        let location =
            if line.starts_with("HEAD") { "/new/repo/resolve/main/a%20b.gguf" } else { "/content/1" };
        let _ = write!(
            stream,
            "HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
    } else if line.starts_with("HEAD") {
        let linked = if fault == Fault::NoChecksum { "etag: \"abc\"\r\n" } else { &linked };
        let _ = write!(
            stream,
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/content\r\n{linked}content-length: 0\r\nconnection: close\r\n\r\n"
        );
    } else {
        let from = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
        let from = if fault == Fault::NoRanges { 0 } else { from };
        let status = if fault == Fault::NoRanges { "200 OK" } else { "206 Partial Content" };
        let mut body = content[from..].to_vec();
        let n_bytes = body.len();
        match fault {
            Fault::Drops if n_gets <= 2 => body.truncate(n_bytes / 2),
            Fault::AlwaysDrops => body.clear(),
            Fault::WrongBytes => body[n_bytes / 2] ^= 1,
            _ => {}
        }
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {n_bytes}\r\ncontent-range: bytes {from}-{}/{}\r\nconnection: close\r\n\r\n",
            content.len() - 1,
            content.len()
        );
        let _ = stream.write_all(&body);
    }
}

fn content() -> Vec<u8> {
    (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn pull(sandbox: &Sandbox, endpoint: &str) -> crate::sandbox::Outcome {
    crate::sandbox::outcome(sandbox.command(&["pull", NAME]).env("HF_ENDPOINT", endpoint).output().unwrap())
}

#[test]
fn a_file_comes_checked_from_the_hub() {
    let sandbox = Sandbox::new("hub-good");
    let (endpoint, requests) = serve(content(), Fault::None);
    let outcome = pull(&sandbox, &endpoint).succeeds();
    assert_eq!(outcome.stdout.trim_end(), sandbox.stored(STORED).to_str().unwrap());
    assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), content());
    let requests: Vec<String> = requests.try_iter().collect();
    assert_eq!(
        requests,
        [
            "HEAD /owner/repo/resolve/main/a%20b.gguf HTTP/1.1 ",
            "GET /owner/repo/resolve/main/a%20b.gguf HTTP/1.1 bytes=0-"
        ]
    );
}

#[test]
fn redirects_keep_the_range_and_the_content_server_never_sees_the_token() {
    let sandbox = Sandbox::new("hub-redirects");
    fs::create_dir_all(sandbox.stored("hf/owner/repo")).unwrap();
    fs::write(sandbox.stored("hf/owner/repo/a b.gguf.partial"), &content()[..1234]).unwrap();
    let (endpoint, requests) = serve(content(), Fault::Redirects);
    let mut command = sandbox.command(&["pull", NAME]);
    crate::sandbox::outcome(command.env("HF_ENDPOINT", endpoint).env("HF_TOKEN", "secret").output().unwrap())
        .succeeds();
    assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), content());
    let requests: Vec<String> = requests.try_iter().collect();
    assert_eq!(
        requests,
        [
            "HEAD /owner/repo/resolve/main/a%20b.gguf HTTP/1.1 bearer secret",
            "HEAD /new/repo/resolve/main/a%20b.gguf HTTP/1.1 bearer secret",
            "GET /new/repo/resolve/main/a%20b.gguf HTTP/1.1 bytes=1234-bearer secret",
            "GET /content/1 HTTP/1.1 bytes=1234-"
        ]
    );
}

#[test]
fn a_broken_connection_goes_on_where_it_stopped() {
    let sandbox = Sandbox::new("hub-drops");
    let (endpoint, requests) = serve(content(), Fault::Drops);
    pull(&sandbox, &endpoint).succeeds();
    assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), content());
    let ranges: Vec<String> =
        requests.try_iter().filter_map(|r| Some(r.split_once("HTTP/1.1 ")?.1.to_owned())).collect();
    assert_eq!(ranges, ["", "bytes=0-", "bytes=4000000-", "bytes=6000000-"]);
}

#[test]
fn the_next_process_goes_on_where_the_last_stopped() {
    let sandbox = Sandbox::new("hub-resume");
    fs::create_dir_all(sandbox.stored("hf/owner/repo")).unwrap();
    fs::write(sandbox.stored("hf/owner/repo/a b.gguf.partial"), &content()[..1234]).unwrap();
    let (endpoint, requests) = serve(content(), Fault::None);
    pull(&sandbox, &endpoint).succeeds();
    assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), content());
    assert!(requests.try_iter().any(|request| request.ends_with("bytes=1234-")));
    assert_eq!(sandbox.store_files(), [STORED]);
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let sandbox = Sandbox::new("hub-ranges");
    fs::create_dir_all(sandbox.stored("hf/owner/repo")).unwrap();
    fs::write(sandbox.stored("hf/owner/repo/a b.gguf.partial"), &content()[..1234]).unwrap();
    let (endpoint, _requests) = serve(content(), Fault::NoRanges);
    pull(&sandbox, &endpoint).succeeds();
    assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), content());
}

#[test]
fn wrong_bytes_are_thrown_away() {
    let sandbox = Sandbox::new("hub-bytes");
    let (endpoint, _requests) = serve(content(), Fault::WrongBytes);
    let outcome = pull(&sandbox, &endpoint);
    assert!(outcome.fails(4).contains("SHA-256"), "{outcome:?}");
    assert_eq!(sandbox.store_files(), [""; 0]);
}

#[test]
fn a_connection_that_never_brings_anything_is_given_up() {
    let sandbox = Sandbox::new("hub-never");
    let (endpoint, requests) = serve(content(), Fault::AlwaysDrops);
    let outcome = pull(&sandbox, &endpoint);
    assert!(outcome.fails(4).contains("try again"), "{outcome:?}");
    assert_eq!(requests.try_iter().filter(|request| request.starts_with("GET")).count(), 3);
    assert!(!sandbox.stored(STORED).exists());
}

#[test]
fn what_the_hub_refuses_is_told_with_a_remedy() {
    for (test, fault, words) in [
        ("hub-404", Fault::Status("404 Not Found"), "check the spelling"),
        ("hub-401", Fault::Status("401 Unauthorized"), "HF_TOKEN"),
        ("hub-500", Fault::Status("500 Internal Server Error"), "try again later"),
        ("hub-sum", Fault::NoChecksum, "no SHA-256"),
    ] {
        let sandbox = Sandbox::new(test);
        let (endpoint, _requests) = serve(content(), fault);
        let outcome = pull(&sandbox, &endpoint);
        assert!(outcome.fails(4).contains(words), "{outcome:?}");
        assert_eq!(sandbox.store_files(), [""; 0]);
    }
}

#[test]
fn no_network_is_one_quick_error() {
    let sandbox = Sandbox::new("hub-offline");
    let start = std::time::Instant::now();
    let outcome = sandbox.run(&["pull", NAME]);
    assert!(outcome.fails(4).contains("check the network"), "{outcome:?}");
    assert!(start.elapsed().as_secs() < 15);
}
