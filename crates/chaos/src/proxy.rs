//! A TCP proxy that can be cut, slowed down and silenced.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Outcome;

/// How the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As if it were not there.
    Pass,
    /// Every piece of data takes so long, in each direction.
    Slow(Duration),
    /// Open connections are closed, new ones at once.
    Cut,
    /// Nothing comes through and nobody is told; afterwards everything goes on.
    Stalled,
    /// Nothing comes through and nobody is told; connections of this time stay silent for ever, as
    /// behind a router that has forgotten them. (The server's end is closed.)
    Lost,
}

/// A proxy before one server.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy on a free port of loopback before `server`.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub async fn before(server: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, mode) = watch::channel(Mode::Pass);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, server, mode.clone()));
            }
        });
        Ok(Self { address, mode: sender, accepting })
    }

    /// Changes how the network is, for all connections.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection, until either side closes it or the network does.
async fn serve(client: TcpStream, server: SocketAddr, mode: watch::Receiver<Mode>) {
    let mut watched = mode.clone();
    let mut end = mode.clone();
    let fate = async move {
        // The sender is gone when the trial is over: everything may be closed.
        watched.wait_for(|mode| matches!(mode, Mode::Cut | Mode::Lost)).await.map(|mode| *mode)
    };
    tokio::pin!(fate);
    let (from_client, mut to_client) = client.into_split();
    let forwarding = async {
        let mut ready = mode.clone();
        if ready.wait_for(|mode| *mode != Mode::Stalled).await.is_err() {
            return;
        }
        let Ok(server) = TcpStream::connect(server).await else { return };
        drop(server.set_nodelay(true));
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            () = forward(from_client, to_server, mode.clone()) => {}
            () = forward_to(from_server, &mut to_client, mode.clone()) => {}
        }
    };
    tokio::select! {
        biased;
        mode = &mut fate => {
            if mode.is_ok_and(|mode| mode == Mode::Lost) {
                // `to_client` is half of the connection: it stays open, and silent.
                while end.changed().await.is_ok() {}
                drop(to_client);
            }
        }
        () = forwarding => {}
    }
}

async fn forward(from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: watch::Receiver<Mode>) {
    forward_to(from, &mut to, mode).await;
}

async fn forward_to(
    mut from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let Ok(length) = from.read(&mut piece).await else { return };
        if length == 0 {
            return;
        }
        let Ok(now) = mode.wait_for(|mode| *mode != Mode::Stalled).await.map(|mode| *mode) else {
            return;
        };
        if let Mode::Slow(pause) = now {
            tokio::time::sleep(pause).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
