//! Who a request comes from, when proxies stand in between.
//!
//! The socket names the last proxy. What a header adds is believed as far as proxies that were named
//! in `TRUSTED_PROXIES` wrote it: each appends the address that it saw, so the list is read from its
//! end, and the first address that is no trusted proxy's is the client's. What stands before it the
//! client may have written itself.
//!
//! `X-Forwarded-For` counts; `Forwarded` (RFC 7239) only where that is missing, since a proxy that
//! writes the one passes the other on as the client sent it. `X-Forwarded-Proto` is not looked at:
//! nothing here depends on the scheme, and no answer holds a whole URL.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, header};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::door::Peer;

/// The most addresses that are looked at. A longer list was written to keep us busy.
const HOPS_MAX: usize = 32;

/// Who a request comes from, as an extension of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(pub IpAddr);

/// The client of `request`; `None` where there is no connection.
#[must_use]
pub fn of(request: &Request, trusted: &[IpNet]) -> Option<Client> {
    let peer = request.extensions().get::<ConnectInfo<Peer>>()?.0.0.ip();
    Some(Client(behind(peer, request.headers(), trusted)))
}

/// The client of a request that came from `peer` with `headers`.
fn behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut nearest = peer.to_canonical();
    if !is_trusted(nearest) {
        return nearest;
    }
    for said in forwarded(headers).into_iter().rev().take(HOPS_MAX) {
        // `unknown`, a made-up name, nonsense: whoever is before the last known one is not known.
        let Some(address) = said else { break };
        nearest = address;
        if !is_trusted(address) {
            break;
        }
    }
    nearest
}

/// The addresses that the headers name, the nearest last; `None` for what is no address.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
            .collect()
    };
    let plain = lines("x-forwarded-for");
    if !plain.is_empty() {
        return plain.iter().flat_map(|line| line.split(',')).map(address).collect();
    }
    lines(header::FORWARDED.as_str())
        .iter()
        .flat_map(|line| line.split(','))
        .map(|element| {
            let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
            let mut nodes = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
            nodes.next().and_then(|(_, node)| address(node))
        })
        .collect()
}

/// An address, also quoted, in brackets, and with a port, which proxies add now and then.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"').trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address =
        bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?;
    Some(IpAddr::to_canonical(&address))
}

/// What limits count by: whoever has an address of IPv6 has the other 2⁶⁴ of its network as well.
#[must_use]
pub fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// `detail` of an audit record, with the client.
#[must_use]
pub fn in_detail(mut detail: Value, client: Option<Client>) -> Value {
    if let (Some(fields), Some(Client(address))) = (detail.as_object_mut(), client) {
        fields.insert("client".to_owned(), json!(address));
    }
    detail
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.9";

    /// The peer, the lines of the header, whom they stand for, and why.
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);

    fn client(peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).into();
        behind(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxys() {
        let cases: &[Case] = &[
            ("203.0.113.7", &[], "203.0.113.7", "nobody in between"),
            (
                "203.0.113.7",
                &[("x-forwarded-for", "198.51.100.1")],
                "203.0.113.7",
                "a stranger's word",
            ),
            ("203.0.113.7", &[("forwarded", "for=198.51.100.1")], "203.0.113.7", "the same"),
            (PROXY, &[], PROXY, "a proxy that says nothing"),
            (PROXY, &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1", "one proxy"),
            (
                PROXY,
                &[("x-forwarded-for", "1.1.1.1, 198.51.100.1")],
                "198.51.100.1",
                "spoofed in front",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "1.1.1.1, 198.51.100.1, 10.0.0.3")],
                "198.51.100.1",
                "two",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "10.0.0.5, 198.51.100.1")],
                "198.51.100.1",
                "a proxy spoofed",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.1")],
                "198.51.100.1",
                "lines are one list",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "10.0.0.7, 10.0.0.3")],
                "10.0.0.7",
                "everybody is trusted",
            ),
            (
                PROXY,
                &[("x-forwarded-for", "1.1.1.1, unknown")],
                PROXY,
                "what is unknown ends the list",
            ),
            (PROXY, &[("x-forwarded-for", "1.1.1.1, ")], PROXY, "so does nothing"),
            (PROXY, &[("x-forwarded-for", "198.51.100.1:4711")], "198.51.100.1", "with a port"),
            (PROXY, &[("x-forwarded-for", "[2001:db8::1]:80")], "2001:db8::1", "with a port"),
            (PROXY, &[("x-forwarded-for", "::ffff:198.51.100.1")], "198.51.100.1", "IPv4 in IPv6"),
            (
                "::ffff:10.0.0.9",
                &[("x-forwarded-for", "198.51.100.1")],
                "198.51.100.1",
                "the peer too",
            ),
            (
                PROXY,
                &[("forwarded", "for=1.1.1.1, For=\"[2001:db8::1]:80\";proto=https;by=10.0.0.9")],
                "2001:db8::1",
                "RFC 7239",
            ),
            (PROXY, &[("forwarded", "for=1.1.1.1, for=_hidden")], PROXY, "a made-up name"),
            (PROXY, &[("forwarded", "proto=https")], PROXY, "names nobody"),
            (
                PROXY,
                &[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "198.51.100.1")],
                "198.51.100.1",
                "the client sent the one, the proxy wrote the other",
            ),
        ];
        for (peer, lines, expected, why) in cases {
            assert_eq!(client(peer, lines), *expected, "{why}");
        }
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let net = |text: &str| network(text.parse().unwrap());

        assert_eq!(net("2001:db8:1:2:3:4:5:6"), net("2001:db8:1:2::9"));
        assert_ne!(net("2001:db8:1:2::9"), net("2001:db8:1:3::9"));
        assert_eq!(net("198.51.100.1"), "198.51.100.1");
    }

    proptest! {
        /// Whatever a client writes, the proxy appends what it saw.
        #[test]
        fn a_client_cannot_choose_its_address(written in "[ -~]{0,200}") {
            let line = format!("{written}, 198.51.100.1");
            prop_assert_eq!(client(PROXY, &[("x-forwarded-for", &line)]), "198.51.100.1");
        }
    }
}
