//! A network that can fall silent, between a service and its database.

use std::net::SocketAddr;

use sqlx::PgPool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A TCP proxy before one server. Silent, it keeps what it is told, closes nothing and says nothing.
pub struct Network {
    /// Where it listens.
    pub address: SocketAddr,
    is_silent: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Network {
    /// On a free port of loopback, before `server`.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let (is_silent, silence) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server, silence.clone()));
            }
        });
        Self { address, is_silent, accepting }
    }

    /// Lets nothing through any more, once `pool` has all its connections back. Those that are open then
    /// never say anything again.
    pub async fn fall_silent(&self, pool: &PgPool) {
        while pool.num_idle() < pool.size() as usize {
            tokio::task::yield_now().await;
        }
        self.is_silent.send_replace(true);
    }

    /// Lets new connections through.
    pub fn come_back(&self) {
        self.is_silent.send_replace(false);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection. Once silent it stays so until the test is over.
async fn forward(mut client: TcpStream, server: SocketAddr, mut silence: watch::Receiver<bool>) {
    let passing = async {
        let Ok(mut server) = TcpStream::connect(server).await else { return };
        drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
    };
    tokio::select! {
        biased;
        silent = silence.wait_for(|is_silent| *is_silent) => if silent.is_err() { return },
        () = passing => return,
    }
    let mut heard = [0; 1024];
    while client.read(&mut heard).await.is_ok_and(|length| length > 0) {}
    client.shutdown().await.ok();
}
