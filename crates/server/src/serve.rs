//! Serving until told to stop, for programs that have no runtime of their own.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use axum::Router;

/// How often one who serves looks whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// Serves a router until `is_stopped`: then no connections are taken any more, and requests that are being answered have `drain` to
/// end.
///
/// # Errors
/// The system's reason for no threads, or for not taking connections.
pub fn serve(
    listener: TcpListener,
    router: Router,
    drain: Duration,
    is_stopped: impl Fn() -> bool + Send + Sync + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            until(is_stopped).await;
            let _ = stop.send(true);
        });
        let mut graceful = stopped.clone();
        let serving = axum::serve(listener, router)
            .with_graceful_shutdown(async move { drop(graceful.wait_for(|stop| *stop).await) });
        tokio::select! {
            served = serving.into_future() => served,
            () = async {
                drop(stopped.wait_for(|stop| *stop).await);
                tokio::time::sleep(drain).await;
            } => Ok(()),
        }
    });
    // What still runs is given up.
    runtime.shutdown_background();
    served
}

async fn until(is_stopped: impl Fn() -> bool) {
    while !is_stopped() {
        tokio::time::sleep(POLL).await;
    }
}
