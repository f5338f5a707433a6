//! Counts the statements that a process sends to Postgres, and nothing else that Postgres does: a
//! door before the server that reads the messages passing through (PostgreSQL 15, §55.7).

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::Outcome;

/// A door to a Postgres server.
pub struct Door {
    /// The database's address behind the door.
    pub url: String,
    counts: Arc<Counts>,
    open: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    statements: AtomicU64,
    trips: AtomicU64,
}

impl Door {
    /// Opens a door to the database of `url`.
    ///
    /// # Errors
    ///
    /// When there is no free port, or `url` names no host and port.
    pub async fn open(url: &str) -> Outcome<Self> {
        let options = PgConnectOptions::from_str(url)?;
        let server = format!("{}:{}", options.get_host(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let ours = format!("@{}/", listener.local_addr()?);
        let door = url.replace(&format!("@{server}/"), &ours);
        if !door.contains(&ours) {
            return Err("the URL of the database must name its host and its port".into());
        }
        // What is encrypted cannot be counted.
        let url = format!("{door}?sslmode=disable");
        let counts = Arc::new(Counts::default());
        let open = tokio::spawn({
            let counts = Arc::clone(&counts);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(client, server.clone(), Arc::clone(&counts)));
                }
            }
        });
        Ok(Self { url, counts, open })
    }

    /// Statements so far, `begin` and `commit` included.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.counts.statements.load(Ordering::Relaxed)
    }

    /// Times that somebody waited for an answer so far.
    #[must_use]
    pub fn trips(&self) -> u64 {
        self.counts.trips.load(Ordering::Relaxed)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.open.abort();
    }
}

async fn pass(client: TcpStream, server: String, counts: Arc<Counts>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        // An error only says that one of them is gone.
        drop(tokio::io::copy(&mut from_server, &mut to_client).await);
    });
    let mut messages = Messages::default();
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
        messages.feed(&bytes[..length], &counts);
        if to_server.write_all(&bytes[..length]).await.is_err() {
            break;
        }
    }
    drop(to_server.shutdown().await);
    drop(back.await);
}

/// What a client says, cut into messages however it comes in.
#[derive(Default)]
struct Messages {
    is_started: bool,
    head: Vec<u8>,
    left: usize,
}

impl Messages {
    fn feed(&mut self, mut bytes: &[u8], counts: &Counts) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = self.left.min(bytes.len());
                self.left -= length;
                bytes = &bytes[length..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            // The first message has no letter, all others have one before their length.
            let letter = usize::from(self.is_started);
            let Some(length) = self.head.get(letter..letter + 4) else { continue };
            let length: [u8; 4] = length.try_into().unwrap_or_default();
            self.left = (u32::from_be_bytes(length) as usize).saturating_sub(4);
            match self.head[0] {
                // A statement of text is answered at once; a prepared one when it is synced.
                b'Q' if self.is_started => {
                    counts.statements.fetch_add(1, Ordering::Relaxed);
                    counts.trips.fetch_add(1, Ordering::Relaxed);
                }
                b'E' if self.is_started => drop(counts.statements.fetch_add(1, Ordering::Relaxed)),
                b'S' if self.is_started => drop(counts.trips.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            }
            self.is_started = true;
            self.head.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(letter: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[letter][..], &length, body].concat()
    }

    #[test]
    fn statements_are_counted_however_their_bytes_come_in() {
        // The start-up message holds letters that would count behind it.
        let startup = [&12_u32.to_be_bytes()[..], b"QQQQEEEE"].concat();
        let said = [
            startup,
            message(b'Q', b"begin\0"),
            message(b'P', b"Q E S"),
            message(b'S', b""),
            message(b'B', b"SSS"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
            message(b'Q', b"commit\0"),
        ]
        .concat();

        for size in [1, 2, 3, 7, said.len()] {
            let counts = Counts::default();
            let mut messages = Messages::default();
            said.chunks(size).for_each(|chunk| messages.feed(chunk, &counts));

            assert_eq!(counts.statements.load(Ordering::Relaxed), 3, "in pieces of {size}");
            assert_eq!(counts.trips.load(Ordering::Relaxed), 4, "in pieces of {size}");
        }
    }
}
