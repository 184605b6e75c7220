//! Serving until told to stop, for programs that have no runtime of their own.
//!
//! hyper is driven here and not by axum, which takes any number of connections and leaves them any time.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::connection::{self, Stage, Times};
use crate::limits::Limits;

/// How often one who serves looks whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// How long nobody is let in when the system has no more files or memory for connections.
const PAUSE: Duration = Duration::from_secs(1);

/// How long what is given up has to say so in the log.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(15);

/// How long a client may leave unread what is written to it.
const UNREAD: Duration = Duration::from_secs(30);

/// Bytes that the system is to keep of what a client has sent and nobody has read; it takes twice as much.
pub(crate) const RECEIVE_BUFFER: usize = 128 << 10;

/// Serves a router until `is_stopped`: then no connections are taken any more, and requests that are being answered have `drain` to
/// end. Of the limits, those of connections hold here, and those of requests in the router.
///
/// # Errors
/// The system's reason for no threads, or for not taking connections.
pub fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    drain: Duration,
    is_stopped: impl Fn() -> bool + Send + Sync + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        listener.set_nonblocking(true)?;
        // Connections have it from their listener; where the system refuses, its own size does.
        let _ = SockRef::from(&listener).set_recv_buffer_size(RECEIVE_BUFFER);
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let n_places = u32::try_from(limits.connections).unwrap_or(u32::MAX).clamp(1, MAX_CONNECTIONS);
        let places = Arc::new(Semaphore::new(n_places as usize));
        let times = Times { idle: limits.idle, head: HEAD, unread: UNREAD };
        let (stage, stages) = watch::channel(Stage::Serving);
        tokio::select! {
            () = take_all(&listener, &places, &router, times, &stages) => {}
            () = until(is_stopped) => {}
        }
        drop(listener);
        // All places are free when all connections have ended.
        let _ = stage.send(Stage::Draining);
        if tokio::time::timeout(drain, places.acquire_many(n_places)).await.is_err() {
            let _ = stage.send(Stage::Over);
            let _ = tokio::time::timeout(LAST_WORDS, places.acquire_many(n_places)).await;
        }
        Ok(())
    });
    // What still runs is given up.
    runtime.shutdown_background();
    served
}

/// More than any system has files for.
const MAX_CONNECTIONS: u32 = 1 << 20;

/// Takes connections for which there is a place; others wait with the system.
async fn take_all(
    listener: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
    router: &Router,
    times: Times,
    stages: &watch::Receiver<Stage>,
) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
        let stream = take(listener).await;
        let served = connection::run(stream, router.clone(), times, stages.clone());
        tokio::spawn(async move {
            served.await;
            drop(place);
        });
    }
}

/// The next connection.
async fn take(listener: &tokio::net::TcpListener) -> TcpStream {
    loop {
        let error = match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => error,
        };
        match error.kind() {
            // Of one client, and not of the next.
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset => {}
            _ => {
                tracing::error!("can't take connections: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn until(is_stopped: impl Fn() -> bool) {
    while !is_stopped() {
        tokio::time::sleep(POLL).await;
    }
}
