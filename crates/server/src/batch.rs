//! Requests of a program instead of connections, answered many at a time.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

/// How often one who answers looks whether to stop.
const POLL: Duration = Duration::from_millis(50);

/// What is asked of an endpoint, as a client would POST it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The endpoint, such as `/v1/chat/completions`.
    pub path: String,
    /// JSON.
    pub body: Vec<u8>,
}

/// What a client would get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status of HTTP.
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
}

/// Answers questions, so many at a time, and hands each to `done` when it is. `next` gives the next question, with whatever tells
/// it from others. When one of both fails, which is then the result, or `is_stopped`, what is being answered is given up.
///
/// # Errors
/// The system's reason for no threads.
pub fn answer_all<T, E>(
    router: &Router,
    n_at_a_time: usize,
    mut next: impl FnMut() -> Result<Option<(T, Question)>, E>,
    mut done: impl FnMut(T, Response) -> Result<(), E>,
    is_stopped: impl Fn() -> bool,
) -> io::Result<Result<(), E>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let answered = runtime.block_on(async {
        let mut asked = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(POLL);
        let mut has_more = true;
        loop {
            while has_more && asked.len() < n_at_a_time {
                match next() {
                    Ok(Some((which, question))) => {
                        let answer = answer(router.clone(), question);
                        asked.push(async move { (which, answer.await) });
                    }
                    Ok(None) => has_more = false,
                    Err(error) => return Ok(Err(error)),
                }
            }
            tokio::select! {
                answered = asked.next() => match answered {
                    Some((which, answer)) => {
                        if let Err(error) = done(which, answer?) {
                            return Ok(Err(error));
                        }
                    }
                    None => return Ok(Ok(())),
                },
                _ = ticks.tick() => if is_stopped() { return Ok(Ok(())) },
            }
        }
    });
    runtime.shutdown_background();
    answered
}

async fn answer(router: Router, Question { path, body }: Question) -> io::Result<Response> {
    let request = Request::post(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .body(Body::from(body))
        .map_err(io::Error::other)?;
    let Ok(response) = TowerToHyperService::new(router).call(request).await;
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.map_err(io::Error::other)?;
    Ok(Response { status, body: body.into() })
}
