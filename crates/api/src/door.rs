//! The door of the service, and how it is shut: no request is lost when a replica goes.
//!
//! A proxy that finds nobody listening sends its request to another replica: nothing was sent, so even a
//! POST may go. One whose connection is closed after it has sent a POST may not. So when the end begins,
//! first nobody new comes in, while those who are in may still speak; only after a while are connections
//! on which nothing is on closed.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long those who are in when the end begins have to begin a request: a connection that was made
/// just then has sent it by now, also on a machine that is busy.
pub const LAST_REQUESTS: Duration = Duration::from_millis(500);

/// Where a connection comes from, as far as the socket says.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Lets connections in until `stop`; from then on, connecting is refused.
struct Door {
    /// None: shut.
    listener: Option<TcpListener>,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        if let Some(listener) = &mut self.listener {
            tokio::select! {
                biased; // whoever has come before the stop is let in
                accepted = Listener::accept(listener) => return accepted,
                () = self.stop.cancelled() => {}
            }
        }
        self.listener = None;
        std::future::pending().await
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Serves `app` until `stop`; returns when all requests are answered.
///
/// # Errors
///
/// When the listener has no address.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    stop: CancellationToken,
    last_requests: Duration,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let door = Door { listener: Some(listener), address, stop: stop.clone() };
    let end = async move {
        stop.cancelled().await;
        tokio::time::sleep(last_requests).await;
    };
    axum::serve(door, app.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(end)
        .await
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn who_came_before_the_stop_is_answered_and_who_comes_later_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let app = Router::new().route("/", get(async || "here"));
        let never = Duration::MAX;
        let served = tokio::spawn(serve(listener, app, stop.clone(), never));
        let mut early = TcpStream::connect(address).await.unwrap();

        stop.cancel();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        early.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        early.read_to_string(&mut answer).await.unwrap();

        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with("here"), "{answer}");
        served.abort();
    }

    #[tokio::test]
    async fn it_ends_when_nothing_is_on_although_somebody_is_still_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, Router::new(), stop.clone(), Duration::ZERO));
        let _idle = TcpStream::connect(address).await.unwrap();

        stop.cancel();

        assert!(served.await.unwrap().is_ok());
    }
}
