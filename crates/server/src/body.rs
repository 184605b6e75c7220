//! Bodies of requests: how they come, and how they become JSON, within bounds of time and memory.
//!
//! The memory that JSON takes has little to do with its bytes: `[[],[],…` is a hundred times its size once it is read. So
//! values are counted before any is made, and who reads a large body takes a place first (see [`Limits::bytes`]). Large bodies
//! are read apart from the threads that serve all clients.
//!
//! [`Limits::bytes`]: crate::Limits::bytes

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::ask::in_background;
use crate::asked::{Asked, Shared};
use crate::error::{Error, Result};
use crate::guard;
use crate::limits::{SMALL_BODY, SMALL_READING_KIB, reading_kib};

/// How long a client may be silent in the midst of a body.
const SILENCE: Duration = Duration::from_secs(15);

/// How long a body may come however it likes; after that it must have come, from its first byte, at this rate.
const GRACE: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND: f64 = (64 << 10) as f64;

/// Bytes that are read where they are: less than a millisecond's work.
const AT_ONCE: usize = 16 << 10;

/// Takes a request's body whole, before anyone acts on it.
pub(crate) async fn receive(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match whole(&shared, &parts.headers, body).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err((status, reason)) => guard::refuse(parts.uri.path(), status, &reason),
    }
}

/// A large body with its place.
struct Large {
    bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

async fn whole(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<Bytes, (StatusCode, String)> {
    let most = shared.limits.body_bytes;
    let too_large = || (StatusCode::PAYLOAD_TOO_LARGE, format!("a body may have {most} bytes"));
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: usize| length > most) {
        return Err(too_large());
    }
    let (mut bytes, mut place) = (Vec::new(), None);
    let mut came = body.into_data_stream();
    let mut began = Instant::now();
    loop {
        let due = began + GRACE.max(Duration::from_secs_f64(bytes.len() as f64 / BYTES_PER_SECOND));
        let deadline = due.min(Instant::now() + SILENCE);
        let piece = match timeout_at(deadline, came.next()).await {
            Ok(None) => break,
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(_))) => return Err((StatusCode::BAD_REQUEST, "the body is cut".to_owned())),
            Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned())),
        };
        let n_bytes = bytes.len() + piece.len();
        if n_bytes > most {
            return Err(too_large());
        }
        if n_bytes > SMALL_BODY && place.is_none() {
            let since = Instant::now();
            // All that it may become, so that none waits in its midst for another.
            let n_bytes = declared.unwrap_or(most).max(n_bytes);
            place = place_of(&shared.coming, n_bytes).await;
            bytes.reserve_exact(n_bytes - bytes.len());
            // It is not the client that has waited.
            began += since.elapsed();
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(match place {
        Some(place) => Bytes::from_owner(Large { bytes, _place: place }),
        None => bytes.into(),
    })
}

/// A place for so much, once it is free.
async fn place_of(places: &Arc<tokio::sync::Semaphore>, n: usize) -> Option<OwnedSemaphorePermit> {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    // Fails where it is closed, which none is.
    Arc::clone(places).acquire_many_owned(n).await.ok()
}

/// The JSON of a body.
pub(crate) async fn json(body: Bytes) -> Result<Value> {
    let asked = Asked::current();
    let invalid = |reason| Error::Body { reason };
    let is_large = body.len() > AT_ONCE;
    let (body, marks) = if is_large {
        in_background(move || Ok((body.clone(), Marks::of(&body)))).await?
    } else {
        let marks = Marks::of(&body);
        (body, marks)
    };
    asked
        .count_values(marks.n_outside)
        .map_err(|reason| invalid(format!("the body can't be read: {reason}")))?;
    let kib = reading_kib(body.len(), marks.n.min(asked.shared.limits.values()));
    if kib > SMALL_READING_KIB
        && let Some(place) = place_of(&asked.shared.reading, kib).await
    {
        asked.hold(place);
    }
    let parse = move || {
        serde_json::from_slice(&body)
            .map_err(|error| Error::Body { reason: format!("the body is not JSON: {error}") })
    };
    if is_large { in_background(parse).await } else { parse() }
}

/// The JSON that a text inside a body is, which counts as the body's.
pub(crate) fn json_in_text(text: &str) -> Result<Value, String> {
    Asked::current().count_values(Marks::of(text.as_bytes()).n_outside)?;
    serde_json::from_str(text).map_err(|error| format!("they are not JSON: {error}"))
}

/// How many values a JSON text has at most: each but the first comes after one of these marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Outside of strings,
    pub(crate) n_outside: usize,
    /// and all: strings may be JSON, too.
    pub(crate) n: usize,
}

impl Marks {
    pub(crate) fn of(text: &[u8]) -> Self {
        let (mut n_outside, mut n) = (0, 0);
        let (mut is_inside, mut is_escaped) = (false, false);
        for byte in text {
            let is_mark = matches!(byte, b',' | b':' | b'[' | b'{');
            n += usize::from(is_mark);
            n_outside += usize::from(is_mark && !is_inside);
            is_inside ^= *byte == b'"' && !is_escaped;
            is_escaped = is_inside && *byte == b'\\' && !is_escaped;
        }
        Self { n_outside, n }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_values(value: &Value) -> usize {
        match value {
            Value::Array(values) => 1 + values.iter().map(n_values).sum::<usize>(),
            Value::Object(map) => 1 + map.values().map(|value| 1 + n_values(value)).sum::<usize>(),
            _ => 1,
        }
    }

    #[test]
    fn no_text_has_more_values_than_marks() {
        for text in [
            "1",
            "[]",
            "[[],[],[[]]]",
            r#"{"a": {"b": [1, 2, 3]}, "c": "d, e: [f] {g}"}"#,
            r#"["\\", "\"", "\\\",", ",\\\\"]"#,
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            let marks = Marks::of(text.as_bytes());
            // A field is a name and a value.
            assert!(n_values(&value) <= 1 + marks.n_outside, "{text}: {marks:?}");
        }
        assert_eq!(Marks::of(br#"["[,\",", ",", "\\"]"#), Marks { n_outside: 3, n: 7 });
    }

    #[test]
    fn a_text_of_too_many_values_is_refused_before_it_is_read() {
        let most = Asked::current().shared.limits.values();
        let text = format!("[{}1]", "1,".repeat(most));
        assert!(json_in_text(&text).unwrap_err().contains("values"));
        assert!(json_in_text("[1, 2").unwrap_err().contains("JSON"));
        assert_eq!(json_in_text("[1, 2]").unwrap(), serde_json::json!([1, 2]));
    }
}
