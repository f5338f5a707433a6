//! A client that costs next to nothing: one kept connection, one request after another, so that what
//! is measured is the server.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Outcome;

/// A connection to a port of this machine.
pub struct Http {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Http {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody listens.
    pub async fn connect(port: u16) -> Outcome<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(4096) })
    }

    /// The status and the body of what `path` answers.
    ///
    /// # Errors
    ///
    /// As [`Http::send`].
    pub async fn get(&mut self, path: &str) -> Outcome<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        let status = self.send(request.as_bytes()).await?;
        Ok((status, String::from_utf8_lossy(&self.received).into_owned()))
    }

    /// Sends a whole request and reads the whole answer, which must say its length. Returns the
    /// status; [`Http::body`] has the rest.
    ///
    /// # Errors
    ///
    /// When the connection ends, or the answer is no such one.
    pub async fn send(&mut self, request: &[u8]) -> Outcome<u16> {
        self.stream.write_all(request).await?;
        self.received.clear();
        let (status, head, length) = loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the connection was closed".into());
            }
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.received[..end])?;
                let status = head.get(9..12).unwrap_or_default().parse()?;
                break (status, end + 4, content_length(head));
            }
        };
        while self.received.len() < head + length {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the connection was closed within an answer".into());
            }
        }
        self.received.drain(..head);
        Ok(status)
    }

    /// The body of the last answer.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.received
    }
}

/// A POST of JSON with a key, as the bytes that go over the wire.
#[must_use]
pub fn post(path: &str, key: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn content_length(head: &str) -> usize {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}
