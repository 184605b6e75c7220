//! `metallic pull` from a hub, with a small HTTP server in its place.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use crate::fake_hub::{self, Request, sha256};
use crate::sandbox::{Sandbox, kill, outcome, wait_for};

const NAME: &str = "hf:owner/repo/a b.gguf";
const STORED: &str = "hf/owner/repo/a b.gguf";

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The first two connections end in the middle of the file.
    Drops,
    /// Of the second half of the file comes a byte now and then.
    Drips,
    /// Every connection ends at once.
    AlwaysDrops,
    /// The bytes are not those of the checksum.
    WrongBytes,
    /// It ignores the range and sends the whole file.
    NoRanges,
    /// It answers with this status.
    Status(&'static str),
    /// It answers the first two GETs with this status and these headers.
    Busy(&'static str),
    /// It tells no checksum.
    NoChecksum,
    /// No fault: like the real hub it sends the reader on, for a repository that was renamed and then to
    /// the server that has the content.
    Redirects,
}

/// Starts a server with one file; it tells the first line, the range and the token of every request.
fn serve(content: Vec<u8>, fault: Fault) -> (String, Receiver<String>) {
    let mut n_gets = 0;
    fake_hub::serve(move |stream, Request { line, range, .. }| {
        n_gets += usize::from(line.starts_with("GET"));
        answer(stream, line, range, &content, fault, n_gets);
    })
}

fn answer(mut stream: TcpStream, line: &str, range: &str, content: &[u8], fault: Fault, n_gets: usize) {
    let sum = sha256(content);
    let linked = format!("x-linked-size: {}\r\nx-linked-etag: \"{sum}\"\r\n", content.len());
    if let Fault::Status(status) = fault {
        let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    } else if let Fault::Busy(status) = fault
        && line.starts_with("GET")
        && n_gets <= 2
    {
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
        let (at_once, drops) = body.split_at(if fault == Fault::Drips { n_bytes / 2 } else { body.len() });
        let _ = stream.write_all(at_once);
        for drop in drops.chunks(1) {
            thread::sleep(Duration::from_millis(50));
            if stream.write_all(drop).is_err() {
                break;
            }
        }
    }
}

fn content() -> Vec<u8> {
    (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn pull(sandbox: &Sandbox, endpoint: &str) -> crate::sandbox::Outcome {
    outcome(sandbox.command(&["pull", NAME]).env("HF_ENDPOINT", endpoint).output().unwrap())
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
    outcome(command.env("HF_ENDPOINT", endpoint).env("HF_TOKEN", "secret").output().unwrap()).succeeds();
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

/// What is worth going on from stays, and the user reads of it.
#[test]
fn a_download_that_is_stopped_or_fails_says_what_it_keeps() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let sandbox = Sandbox::new(&format!("hub-stopped{signal}"));
        let (endpoint, _requests) = serve(content(), Fault::Drips);
        let mut command = sandbox.command(&["pull", NAME]);
        let child =
            command.env("HF_ENDPOINT", endpoint).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let partial = sandbox.stored("hf/owner/repo/a b.gguf.partial");
        let n_kept = || fs::metadata(&partial).map_or(0, |partial| partial.len());
        wait_for("half of the file", || n_kept() > 4_000_000);
        kill(signal, &child);
        let stopped = outcome(child.wait_with_output().unwrap());
        assert_eq!(stopped.code, Some(code), "{stopped:?}");
        assert!(stopped.stderr.contains("3.8 MiB of hf:owner/repo/a b.gguf are kept"), "{stopped:?}");

        let n_bytes = n_kept();
        let (endpoint, _requests) = serve(content(), Fault::AlwaysDrops);
        let failed = pull(&sandbox, &endpoint);
        failed.fails(4);
        assert!(failed.stderr.contains("are kept") && n_kept() == n_bytes, "{failed:?}");
        let (endpoint, requests) = serve(content(), Fault::None);
        pull(&sandbox, &endpoint).succeeds();
        assert!(requests.try_iter().any(|request| request.ends_with(&format!("bytes={n_bytes}-"))));
        assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), content());
    }
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

#[test]
fn a_busy_hub_is_asked_again_when_it_says() {
    for (test, status, pauses) in [
        ("hub-503", "503 Service Unavailable", [1, 2]),
        ("hub-429", "429 Too Many Requests\r\nretry-after: 1", [1, 1]),
        ("hub-429-date", "429 Too Many Requests\r\nretry-after: Sun, 06 Nov 1994 08:49:37 GMT", [0, 0]),
    ] {
        let sandbox = Sandbox::new(test);
        let (endpoint, requests) = serve(content(), Fault::Busy(status));
        let start = Instant::now();
        let outcome = pull(&sandbox, &endpoint).succeeds();
        assert!(start.elapsed() >= Duration::from_secs(pauses.iter().sum()), "{outcome:?}");
        for pause in pauses {
            assert!(outcome.stderr.contains(&format!(": trying again in {pause} s\n")), "{outcome:?}");
        }
        assert_eq!(outcome.stderr.matches("trying again in").count(), 2, "{outcome:?}");
        assert_eq!(requests.try_iter().filter(|request| request.starts_with("GET")).count(), 3);
        assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), content());
    }
}

#[test]
fn a_hub_that_asks_for_an_hour_is_not_waited_for() {
    let sandbox = Sandbox::new("hub-hour");
    let start = Instant::now();
    let (endpoint, _requests) = serve(content(), Fault::Busy("503 Service Unavailable\r\nretry-after: 3600"));
    let outcome = pull(&sandbox, &endpoint);
    assert!(outcome.fails(4).contains("it asks to wait 3600 seconds"), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn ctrl_c_ends_the_wait_and_what_came_stays() {
    let sandbox = Sandbox::new("hub-wait");
    fs::create_dir_all(sandbox.stored("hf/owner/repo")).unwrap();
    fs::write(sandbox.stored("hf/owner/repo/a b.gguf.partial"), &content()[..1234]).unwrap();
    let (endpoint, requests) = serve(content(), Fault::Busy("503 Service Unavailable\r\nretry-after: 200"));
    let mut command = sandbox.command(&["pull", NAME]);
    let child = command.env("HF_ENDPOINT", endpoint).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("a refusal", || requests.try_iter().any(|request| request.starts_with("GET")));
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let outcome = outcome(child.wait_with_output().unwrap());
    assert_eq!(outcome.code, Some(130), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(sandbox.store_files(), ["hf/owner/repo/a b.gguf.partial"]);
}

#[test]
fn what_is_left_of_another_version_is_thrown_away() {
    let sandbox = Sandbox::new("hub-stale");
    fs::create_dir_all(sandbox.stored("hf/owner/repo")).unwrap();
    fs::write(sandbox.stored("hf/owner/repo/a b.gguf.partial"), "of an older version").unwrap();
    let (endpoint, _requests) = serve(content(), Fault::None);
    let outcome = pull(&sandbox, &endpoint).succeeds();
    assert!(outcome.stderr.contains("another version"), "{outcome:?}");
    assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), content());
}

#[test]
fn a_file_that_changed_at_the_hub_is_told_and_kept() {
    let sandbox = Sandbox::new("hub-moved");
    fs::create_dir_all(sandbox.stored("hf/owner/repo")).unwrap();
    let (endpoint, _requests) = serve(content(), Fault::None);
    let mut changed = content();
    changed[7] ^= 1;
    for (here, is_told) in [(content(), false), (changed, true), (vec![1], true)] {
        fs::write(sandbox.stored(STORED), &here).unwrap();
        let outcome = pull(&sandbox, &endpoint).succeeds();
        assert!(outcome.stderr.contains("in the store already"), "{outcome:?}");
        assert_eq!(outcome.stderr.contains("another file of that name by now"), is_told, "{outcome:?}");
        assert_eq!(fs::read(sandbox.stored(STORED)).unwrap(), here);
    }
    let offline = sandbox.run(&["pull", NAME]).succeeds();
    assert!(offline.stderr.contains("unknown") && offline.stdout.contains("a b.gguf"), "{offline:?}");
}

/// A file system of one megabyte, where the machine lets us make one.
#[test]
fn a_file_that_the_disk_has_no_room_for_is_not_begun() {
    let sandbox = Sandbox::new("hub-space");
    let (endpoint, requests) = serve(content(), Fault::None);
    let setup = format!("export METALLIC_CACHE=$PWD/small HF_ENDPOINT={endpoint}");
    let Some(outcome) = sandbox.run_on_a_small_disk(&setup, &["pull", NAME], "small/models") else {
        println!("skipped: this machine doesn't let a test mount a small file system");
        return;
    };
    let line = outcome.fails(1);
    assert!(line.contains("7.6 MiB") && line.contains("free some space"), "{outcome:?}");
    assert!(requests.try_iter().all(|request| request.starts_with("HEAD")));
}
