//! A connection whose client may be slow, silent or gone.
//!
//! hyper speaks HTTP over it and knows no deadlines but one. So it is given a socket that notes when bytes come and go, and
//! whoever polls it looks at those notes: how long a client has been silent between requests, how long the head of a
//! request has been on its way, and how long an answer has not been read. (How long a body may take is a matter of the
//! router: see `body`.)
//!
//! hyper finds out that a client has gone by reading, and stops reading once there is something that it has no use for yet:
//! a pipelined request, or an odd byte. Then an answer would be made to its end for nobody. So hyper is told to take no notice
//! (`half_close`), and while an answer is being made and hyper doesn't read, this reads ahead, [`MAX_AHEAD`] bytes at most. A
//! client that closes its side of the connection for writing counts as gone, because nothing tells one from the other; but it
//! gets what is answered at once.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ending::{Answer, UntilEnd};

/// Bytes that hyper keeps of what it reads, which a head must fit, and of what it writes.
pub(crate) const MAX_BUFFER: usize = 64 << 10;

/// Bytes of further requests that are read while an answer is made. Of a client that sends more and goes, it is noticed when
/// something is written to it.
pub(crate) const MAX_AHEAD: usize = 16 << 10;

/// Bytes that the system is to keep of what a client has not read; it takes twice as much.
pub(crate) const SEND_BUFFER: usize = 64 << 10;

/// How long a client may take with what it is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// For asking nothing.
    pub(crate) idle: Duration,
    /// For the head of a request, from its first byte.
    pub(crate) head: Duration,
    /// For leaving unread what is written to it.
    pub(crate) unread: Duration,
}

/// What a server is about to do with its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    /// Answers are made to their ends, and nothing more is asked.
    Draining,
    /// Nothing goes on.
    Over,
}

/// Why a connection was ended before its answer was: for the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate(Arc<OnceLock<&'static str>>);

impl Fate {
    /// What has become of whoever does not hear an answer to its end.
    pub(crate) fn reason(&self) -> &'static str {
        self.0.get().copied().unwrap_or("the client has gone")
    }
}

/// Serves a connection to its end.
pub(crate) async fn run(stream: TcpStream, router: Router, times: Times, mut stage: watch::Receiver<Stage>) {
    // Where the system refuses, its own sizes do; and small pieces of answers are not to wait for each other.
    let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    let _ = stream.set_nodelay(true);
    let socket = Arc::new(Socket::new(stream));
    let fate = Fate::default();
    let service = answering(router, &socket, &fate);
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_BUFFER).header_read_timeout(None).half_close(true);
    let mut served = pin!(http.serve_connection(TokioIo::new(Half(Arc::clone(&socket))), service));
    let mut timer = pin!(tokio::time::sleep(times.idle));
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|cx| {
                socket.lock().is_hyper_reading = false;
                if served.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                if socket.poll_gone(cx).is_ready() {
                    return Poll::Ready(Some("the client has gone"));
                }
                let Some((deadline, reason)) = socket.deadline(&times) else { return Poll::Pending };
                if timer.deadline() != deadline {
                    timer.as_mut().reset(deadline);
                }
                timer.as_mut().poll(cx).map(|()| Some(reason))
            }) => break ended,
            changed = stage.changed() => {
                if changed.is_err() || *stage.borrow_and_update() == Stage::Over {
                    break Some("the server has stopped");
                }
                served.as_mut().graceful_shutdown();
            }
        }
    };
    if let Some(reason) = ended {
        let _ = fate.0.set(reason);
        tracing::debug!("a connection is ended: {reason}");
    }
}

/// The router as hyper calls it, which notes when a request comes and when its answer ends.
fn answering(
    router: Router,
    socket: &Arc<Socket>,
    fate: &Fate,
) -> impl Service<
    hyper::Request<Incoming>,
    Response = hyper::Response<Answer<Open>>,
    Error = Infallible,
    Future: Send,
> {
    let (socket, fate) = (Arc::clone(socket), fate.clone());
    let router = TowerToHyperService::new(router);
    service_fn(move |mut request: hyper::Request<Incoming>| {
        socket.lock().enter(Phase::Open);
        let open = Open(Arc::clone(&socket));
        request.extensions_mut().insert(fate.clone());
        let response = router.call(request.map(Body::new));
        async move { Ok(response.await?.map(|body| Answer::new(body, open))) }
    })
}

/// Where a connection is between its client's bytes and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is asked.
    Idle,
    /// A request has begun to come.
    Head,
    /// A request is being answered.
    Open,
}

/// A socket with notes of what has happened on it.
struct Socket {
    stream: TcpStream,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    since: Instant,
    /// What was read while hyper did not.
    ahead: Vec<u8>,
    /// Whether hyper waits for bytes, and so will hear of the end by itself.
    is_hyper_reading: bool,
    /// Since when nothing could be written that was to be.
    unread_since: Option<Instant>,
}

impl State {
    fn enter(&mut self, phase: Phase) {
        (self.phase, self.since) = (phase, Instant::now());
    }
}

impl Socket {
    fn new(stream: TcpStream) -> Self {
        let (phase, since) = (Phase::Idle, Instant::now());
        let state = State { phase, since, ahead: Vec::new(), is_hyper_reading: false, unread_since: None };
        Self { stream, state: Mutex::new(state) }
    }

    /// Notes that a panic left are as good as others.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the connection has lasted too long as it is, and what is to be said of it then.
    fn deadline(&self, times: &Times) -> Option<(Instant, &'static str)> {
        let state = self.lock();
        if let Some(since) = state.unread_since {
            return Some((since + times.unread, "the client does not read"));
        }
        match state.phase {
            Phase::Idle => Some((state.since + times.idle, "nothing was asked for long")),
            Phase::Head => Some((state.since + times.head, "the head of a request did not come")),
            Phase::Open => None,
        }
    }

    /// Ready when the client has gone whose request is being answered, where hyper would not notice.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.phase != Phase::Open || state.is_hyper_reading {
            return Poll::Pending;
        }
        let mut bytes = [0; 4096];
        loop {
            let room = bytes.len().min(MAX_AHEAD - state.ahead.len());
            if room == 0 {
                return Poll::Pending;
            }
            if ready!(self.stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match self.stream.try_read(&mut bytes[..room]) {
                Ok(0) => return Poll::Ready(()),
                Ok(n) => state.ahead.extend(&bytes[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Has something written as soon as the client makes room for it.
    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(is_ready) = self.stream.poll_write_ready(cx) else {
                self.lock().unread_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            is_ready?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.lock().unread_since = None;
                    return Poll::Ready(written);
                }
            }
        }
    }
}

/// The socket as hyper has it.
struct Half(Arc<Socket>);

impl AsyncRead for Half {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Socket { stream, .. } = &*self.0;
        let mut state = self.0.lock();
        let n_read = if state.ahead.is_empty() {
            loop {
                let Poll::Ready(is_ready) = stream.poll_read_ready(cx) else {
                    state.is_hyper_reading = true;
                    return Poll::Pending;
                };
                is_ready?;
                match stream.try_read(buffer.initialize_unfilled()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(n) => {
                        buffer.advance(n);
                        break n;
                    }
                }
            }
        } else {
            let n = buffer.remaining().min(state.ahead.len());
            buffer.put_slice(&state.ahead[..n]);
            state.ahead.drain(..n);
            n
        };
        if n_read > 0 && state.phase == Phase::Idle {
            state.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Half {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&self.0.stream).shutdown(Shutdown::Write))
    }
}

/// For as long as a request is being answered.
struct Open(Arc<Socket>);

impl UntilEnd for Open {}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().enter(Phase::Idle);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::Bytes;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);
    const ASKED: &[u8] = b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n";

    /// A client of a server that answers `/now` at once, `/never` never, and `/much` with all that is read of it.
    struct Pair {
        client: TcpStream,
        served: tokio::task::JoinHandle<()>,
        /// Of requests that are being answered.
        n_open: Arc<AtomicUsize>,
        stage: watch::Sender<Stage>,
    }

    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    async fn pair(times: Times) -> Pair {
        let n_open = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&n_open);
        let never = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let counted = Counted(Arc::clone(&counted));
            async move {
                std::future::pending::<()>().await;
                drop(counted);
            }
        };
        let much = || async {
            let bytes = futures_util::stream::repeat(Ok::<_, Infallible>(Bytes::from_static(&[b'a'; 4096])));
            Body::from_stream(bytes)
        };
        let router = Router::new()
            .route("/now", get(|| async { "now" }))
            .route("/never", get(never))
            .route("/much", get(much));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stage, stages) = watch::channel(Stage::Serving);
        let stream = listener.accept().await.unwrap().0;
        let served = tokio::spawn(run(stream, router, times, stages));
        Pair { client, served, n_open, stage }
    }

    impl Pair {
        async fn send(&self, bytes: &[u8]) {
            self.client.writable().await.unwrap();
            assert_eq!(self.client.try_write(bytes).unwrap(), bytes.len());
        }

        async fn is_asked(&self) {
            while self.n_open.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }

        /// That the server ends the connection by itself.
        async fn ends(self) {
            tokio::time::timeout(Duration::from_secs(10), self.served).await.unwrap().unwrap();
            assert_eq!(self.n_open.load(Ordering::SeqCst), 0);
        }
    }

    fn times() -> Times {
        Times { idle: LONG, head: LONG, unread: LONG }
    }

    #[tokio::test]
    async fn who_asks_nothing_is_not_waited_for() {
        pair(Times { idle: SHORT, ..times() }).await.ends().await;
        // Nor between two requests; but while the first is answered.
        let pair = pair(Times { idle: SHORT, ..times() }).await;
        pair.send(b"GET /now HTTP/1.1\r\nhost: a\r\n\r\n").await;
        pair.ends().await;
    }

    #[tokio::test]
    async fn an_answer_takes_the_time_it_takes() {
        let pair = pair(Times { idle: SHORT, head: SHORT, unread: SHORT }).await;
        pair.send(ASKED).await;
        pair.is_asked().await;
        tokio::time::sleep(3 * SHORT).await;
        assert!(!pair.served.is_finished());
    }

    #[tokio::test]
    async fn a_head_that_comes_byte_by_byte_has_its_time() {
        let pair = pair(Times { head: 2 * SHORT, ..times() }).await;
        for byte in &ASKED[..ASKED.len() - 1] {
            pair.send(&[*byte]).await;
            tokio::time::sleep(SHORT / 4).await;
            if pair.served.is_finished() {
                return;
            }
        }
        panic!("all of it was waited for");
    }

    #[tokio::test]
    async fn who_does_not_read_is_not_written_to() {
        let pair = pair(Times { unread: SHORT, ..times() }).await;
        pair.send(b"GET /much HTTP/1.1\r\nhost: a\r\n\r\n").await;
        pair.ends().await;
    }

    #[tokio::test]
    async fn it_is_noticed_that_a_client_has_gone() {
        // Whatever it has sent behind its request.
        for more in [&b""[..], b"x", b"\r\n", ASKED, &[b'x'; MAX_AHEAD - 1]] {
            let pair = pair(times()).await;
            pair.send(ASKED).await;
            pair.is_asked().await;
            pair.send(more).await;
            tokio::time::sleep(SHORT / 4).await;
            assert_eq!(pair.n_open.load(Ordering::SeqCst), 1, "it waits");
            let Pair { client, served, n_open, stage } = pair;
            drop(client);
            tokio::time::timeout(Duration::from_secs(10), served).await.unwrap().unwrap();
            assert_eq!(n_open.load(Ordering::SeqCst), 0);
            drop(stage);
        }
    }

    #[tokio::test]
    async fn who_closes_its_side_gets_what_is_answered_at_once() {
        let pair = pair(times()).await;
        pair.send(b"GET /now HTTP/1.1\r\nhost: a\r\n\r\n").await;
        SockRef::from(&pair.client).shutdown(Shutdown::Write).unwrap();
        pair.client.readable().await.unwrap();
        let mut bytes = [0; 1024];
        let n = pair.client.try_read(&mut bytes).unwrap();
        assert!(bytes[..n].ends_with(b"\r\n\r\nnow"));
        pair.ends().await;
    }

    #[tokio::test]
    async fn pipelined_requests_are_answered_in_turn() {
        let pair = pair(Times { idle: SHORT, ..times() }).await;
        pair.send(&b"GET /now HTTP/1.1\r\nhost: a\r\n\r\n".repeat(40)).await;
        let mut read: Vec<u8> = Vec::new();
        while read.windows(7).filter(|bytes| *bytes == b"\r\n\r\nnow").count() < 40 {
            pair.client.readable().await.unwrap();
            let mut bytes = [0; 1024];
            match pair.client.try_read(&mut bytes) {
                Ok(n) => read.extend(&bytes[..n]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        pair.ends().await;
    }

    #[tokio::test]
    async fn what_drains_ends_with_its_answer_and_what_is_over_at_once() {
        let idle = pair(times()).await;
        idle.stage.send(Stage::Draining).unwrap();
        idle.ends().await;
        let busy = pair(times()).await;
        busy.send(ASKED).await;
        busy.is_asked().await;
        busy.stage.send(Stage::Draining).unwrap();
        tokio::time::sleep(SHORT).await;
        assert!(!busy.served.is_finished());
        busy.stage.send(Stage::Over).unwrap();
        busy.ends().await;
    }
}
