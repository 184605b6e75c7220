//! Models that come and go: `/api/pull`, `/api/delete`, and for how long one stays.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Failure;
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::library::Progress;
use crate::service::Service;

/// How often a client hears how far its model has come.
const TICK: Duration = Duration::from_millis(250);

/// Lines that a client has not read, at most: what is more waits.
const MAX_LINES: usize = 16;

/// Seconds that a model may be asked to stay.
const MAX_SECONDS: f64 = 1e9;

/// Brings a model here, and says meanwhile how far it is. It comes also if the client goes.
pub(super) async fn pull(State(service): State<Service>, body: Bytes) -> Result<Response, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let name = name(&mut fields)?;
    let streams = fields.take("stream")?.unwrap_or(true);
    fields.refuse_rest(&["insecure", "username", "password"])?;
    service.allow_managing()?;
    let progress = Arc::<Progress>::default();
    if !streams {
        service.pull(&name, progress).await?;
        return Ok(Json(json!({ "status": "success" })).into_response());
    }
    let (lines, receiver) = mpsc::channel::<Value>(MAX_LINES);
    tokio::spawn(async move {
        let pulling = service.pull(&name, Arc::clone(&progress));
        tokio::pin!(pulling);
        let mut ticks = tokio::time::interval(TICK);
        let last = loop {
            tokio::select! {
                pulled = &mut pulling => break match pulled {
                    Ok(()) => json!({ "status": "success" }),
                    Err(error) => json!({ "error": error.to_string() }),
                },
                _ = ticks.tick() => {
                    let (completed, total) = progress.get();
                    let line = if total == 0 {
                        json!({ "status": "pulling manifest" })
                    } else {
                        json!({ "status": format!("pulling {name}"), "digest": name, "total": total, "completed": completed })
                    };
                    // One who does not read misses some.
                    let _ = lines.try_send(line);
                }
            }
        };
        // And one who has gone, the end.
        let _ = lines.send(last).await;
    });
    let lines = stream::unfold(receiver, async |mut receiver| {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(format!("{line}\n"))), receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// Removes a model's files; one that is loaded is unloaded before.
pub(super) async fn delete(State(service): State<Service>, body: Bytes) -> Result<(), Failure> {
    let mut fields = Fields::of_body(body).await?;
    let name = name(&mut fields)?;
    fields.refuse_rest(&[])?;
    service.allow_managing()?;
    Ok(service.remove(&service.full_name(Some(&name))?).await?)
}

fn name(fields: &mut Fields) -> Result<String> {
    let name: Option<String> = fields.take("model")?.or(fields.take("name")?);
    name.ok_or_else(|| Error::field("model", "it is missing"))
}

/// For how long a model is to stay after an answer: seconds, or a text such as `5m`; less than nothing is for good.
pub(super) fn keep_alive(fields: &mut Fields) -> Result<Option<Duration>> {
    let Some(value) = fields.value("keep_alive") else { return Ok(None) };
    let seconds = match &value {
        Value::Number(seconds) => seconds.as_f64(),
        Value::String(text) => seconds(text),
        _ => None,
    };
    let seconds = seconds.ok_or_else(|| {
        Error::field("keep_alive", "it must be seconds, or a text such as 5m or 1h30m; -1 keeps the model")
    })?;
    Ok((seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(MAX_SECONDS))))
}

/// Of numbers with units, as Go writes durations, or a number alone.
fn seconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    if !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Ok(seconds) = rest.parse::<f64>() {
        return Some(sign * seconds).filter(|seconds| seconds.is_finite());
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit_len =
            rest[number_len..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - number_len);
        let (number, unit) = (&rest[..number_len], &rest[number_len..number_len + unit_len]);
        let factor = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += factor * number.parse::<f64>().ok()?;
        rest = &rest[number_len + unit_len..];
    }
    Some(sign * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_clients_write_them() {
        let kept = |value: Value| {
            let mut fields = Fields::of("", json!({ "keep_alive": value })).unwrap();
            keep_alive(&mut fields).map(|kept| kept.map(|time| time.as_secs_f64()))
        };
        for (value, seconds) in [
            (json!("5m"), Some(300.0)),
            (json!("1h30m"), Some(5400.0)),
            (json!("1.5s"), Some(1.5)),
            (json!("250ms"), Some(0.25)),
            (json!(0), Some(0.0)),
            (json!("0"), Some(0.0)),
            (json!(10), Some(10.0)),
            (json!(1e300), Some(MAX_SECONDS)),
            (json!(-1), None),
            (json!("-1m"), None),
            (json!("-1"), None),
            (json!(null), None),
        ] {
            assert_eq!(kept(value.clone()).unwrap(), seconds, "{value}");
        }
        for value in
            ["", "m", "5 m", "5d", "1h30", "é", "nan", "--1", "+1", "1.2.3s", "-"].map(|text| json!(text))
        {
            assert!(kept(value.clone()).is_err(), "{value}");
        }
        assert!(kept(json!([1])).is_err());
    }
}
