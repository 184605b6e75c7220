//! The end of an answer: its body has been handed on, or nobody wants it any more.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};

/// What is kept for as long as an answer is being made. Its drop is the end of the answer, whether there ever was a body.
pub(crate) trait UntilEnd: Send + Unpin + 'static {
    /// The body has been handed on to its end. Without this before the drop, the answer was given up.
    fn body_has_ended(&mut self) {}
}

/// The body of an answer, with what is kept until its end.
pub(crate) struct Answer<T> {
    body: Body,
    kept: T,
}

impl<T: UntilEnd> Answer<T> {
    pub(crate) fn new(body: Body, mut kept: T) -> Self {
        // An empty body is never asked for anything.
        if body.is_end_stream() {
            kept.body_has_ended();
        }
        Self { body, kept }
    }
}

impl<T: UntilEnd> HttpBody for Answer<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if self.body.is_end_stream() || matches!(polled, Poll::Ready(None)) {
            self.kept.body_has_ended();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Writes down what it is told, and that it is dropped.
    struct Witness(Arc<Mutex<Vec<&'static str>>>);

    impl UntilEnd for Witness {
        fn body_has_ended(&mut self) {
            self.0.lock().unwrap().push("ended");
        }
    }

    impl Drop for Witness {
        fn drop(&mut self) {
            self.0.lock().unwrap().push("dropped");
        }
    }

    /// What is noted of a body of which so many frames are read before it is dropped.
    fn noted(body: Body, n_read: usize) -> Vec<&'static str> {
        let notes = Arc::default();
        let mut answer = Answer::new(body, Witness(Arc::clone(&notes)));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..n_read {
            assert!(Pin::new(&mut answer).poll_frame(&mut cx).is_ready());
        }
        assert!(!notes.lock().unwrap().contains(&"dropped"));
        drop(answer);
        let notes = notes.lock().unwrap();
        notes.clone()
    }

    /// Two frames, after which only a further poll tells the end.
    fn streamed() -> Body {
        let frames = ["a", "b"].map(|frame| Ok::<_, Infallible>(Bytes::from(frame)));
        Body::from_stream(futures_util::stream::iter(frames))
    }

    #[test]
    fn an_answer_ends_with_its_body_or_is_given_up() {
        assert_eq!(noted(Body::empty(), 0), ["ended", "dropped"]);
        // Of a length that is known, the end is known with the last byte.
        assert_eq!(noted(Body::from("a"), 0), ["dropped"]);
        assert_eq!(noted(Body::from("a"), 1), ["ended", "dropped"]);
        assert_eq!(noted(streamed(), 2), ["dropped"]);
        assert_eq!(noted(streamed(), 3), ["ended", "dropped"]);
    }
}
