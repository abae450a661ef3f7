//! The plain server, for a developer's computer and for containers. It has no authentication.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long a client may take to send the headers of a request, and how long an idle connection stays open.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The most connections at a time. Further clients wait, so that the process never lacks file descriptors.
const MAX_CONNECTIONS: usize = 512;

/// Serves until the process ends.
///
/// # Errors
///
/// The address cannot be listened on.
pub async fn serve(address: SocketAddr, router: Router) -> io::Result<()> {
    serve_on(TcpListener::bind(address).await?, router).await;
    Ok(())
}

/// Serves on a listener.
pub async fn serve_on(mut listener: TcpListener, router: Router) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening");
    }
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        // axum's method waits and tries again if the system has no file descriptors left.
        let (stream, _) = Listener::accept(&mut listener).await;
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // The client caused the error of its connection, and no longer reads an answer.
            drop(connection.await);
            drop(place);
        });
    }
}
