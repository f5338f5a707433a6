//! `healthcheck`: what the containers' HEALTHCHECK runs. Asks the own port whether we are ready.
//!
//! Ten lines of HTTP/1.0 over a socket: it runs every few seconds and must cost nothing.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The whole check must fit the three to five seconds that supervisors allow.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Enough for the status line and a sentence.
const ANSWER_MAX_BYTES: u64 = 4096;

/// Asks `/health/ready` at `listening`; an unspecified address (0.0.0.0) is asked on loopback.
///
/// # Errors
///
/// What was answered, or why nothing was.
pub(crate) fn ask(listening: SocketAddr) -> Result<(), String> {
    let host = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(host, listening.port());
    let answer =
        exchange(address).map_err(|error| format!("{address} does not answer: {error}"))?;
    let status = answer.split_ascii_whitespace().nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Err(format!("{address} answered {status}: {body}"))
}

fn exchange(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT_MAX)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.set_write_timeout(Some(WAIT_MAX))?;
    // In one piece: a server may answer and close as soon as it has seen the first line.
    let request = format!("GET /health/ready HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_once(answer: &'static str) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /health/ready HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn ready_is_200_and_everything_else_is_told() {
        let ready = ask(answer_once("HTTP/1.0 200 OK\r\n\r\n{}"));
        let not = ask(answer_once("HTTP/1.1 503 Service Unavailable\r\n\r\nstarting"));

        assert_eq!(ready, Ok(()));
        assert!(not.unwrap_err().ends_with("answered 503: starting"));
    }
}
