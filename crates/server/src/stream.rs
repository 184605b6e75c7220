//! Answers as they come: from what is said to what a client reads.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, SelectAll, Stream, StreamExt};

use crate::ask::{Reply, Said};
use crate::error::{Error, Result};

/// How long a client of server-sent events hears nothing, at most: while a long prompt is read, it hears that there is life.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Makes what a client reads of what is said.
pub(crate) trait Writer: Send + 'static {
    /// What a client reads at a time.
    type Item: Send + 'static;
    /// Adds what becomes of something that an answer says.
    fn said(&mut self, choice: usize, said: Said, items: &mut VecDeque<Self::Item>);
    /// Adds what comes when all answers have ended.
    fn ended(&mut self, items: &mut VecDeque<Self::Item>);
    /// What becomes of an error, after which nothing comes: with what the others are to say it is no answer.
    fn failed(&mut self, error: Error) -> Self::Item;
}

/// What all answers say, with the number of each, until the end of all.
type Merged = SelectAll<BoxStream<'static, (usize, Result<Said>)>>;

struct Writing<W: Writer> {
    merged: Merged,
    items: VecDeque<W::Item>,
    writer: W,
    has_ended: bool,
}

/// As server-sent events, with something else where a client waits for long.
pub(crate) fn server_sent(
    replies: Vec<Reply>,
    writer: impl Writer<Item = Event>,
    heartbeat: Event,
) -> Response {
    let events = written(replies, writer).map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).event(heartbeat)).into_response()
}

/// As lines of JSON.
pub(crate) fn lines(reply: Reply, writer: impl Writer<Item = Bytes>) -> Response {
    let body = Body::from_stream(written(vec![reply], writer).map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn written<W: Writer>(replies: Vec<Reply>, writer: W) -> impl Stream<Item = W::Item> + Send {
    let merged = replies.into_iter().enumerate().map(|(choice, reply)| one(choice, reply)).collect();
    let writing = Writing { merged, items: VecDeque::new(), writer, has_ended: false };
    stream::unfold(Some(writing), |writing| async {
        let mut writing = writing?;
        let (item, goes_on) = writing.next().await?;
        Some((item, goes_on.then_some(writing)))
    })
}

/// What one answer says.
fn one(choice: usize, reply: Reply) -> BoxStream<'static, (usize, Result<Said>)> {
    let said = stream::unfold(Some(reply), move |reply| async move {
        let mut reply = reply?;
        let said = reply.next().await;
        let goes_on = !matches!(said, Ok(Said::End { .. }) | Err(_));
        Some(((choice, said), goes_on.then_some(reply)))
    });
    said.boxed()
}

impl<W: Writer> Writing<W> {
    /// What comes next, and whether more may follow; `None` at the end.
    async fn next(&mut self) -> Option<(W::Item, bool)> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Some((item, true));
            }
            if self.has_ended {
                return None;
            }
            match self.merged.next().await {
                Some((choice, Ok(said))) => self.writer.said(choice, said, &mut self.items),
                Some((_, Err(error))) => return Some((self.writer.failed(error), false)),
                None => {
                    self.has_ended = true;
                    self.writer.ended(&mut self.items);
                }
            }
        }
    }
}
