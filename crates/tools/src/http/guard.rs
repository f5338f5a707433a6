//! Which addresses a tool may reach: public ones, and what the operator allows besides.
//!
//! A task's author chooses the URL, so without this an agent could read the cloud's metadata service
//! or the database next door through us (server-side request forgery). The check sits in the DNS
//! resolver of the HTTP client: what was checked is what is connected to, and a name that changes its
//! address between check and connection (rebinding) gains nothing.

use orchestrator_engine::config::AllowList;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Why an address is not connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address {ip} of host {host} is {kind}; allow it with HTTP_ALLOW_PRIVATE")]
pub struct Denied {
    host: String,
    ip: IpAddr,
    kind: &'static str,
}

/// Where names become addresses. The machine's resolver; tests bring their own.
pub(crate) trait Lookup: Send + Sync + 'static {
    /// All addresses of `host`.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The machine's resolver.
pub(crate) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|at| at.ip()).collect())
        })
    }
}

/// Checks addresses for connections to one port, or to all that the list does not name.
#[derive(Clone)]
pub(crate) struct Guard {
    allow: Arc<AllowList>,
    lookup: Arc<dyn Lookup>,
    port: Option<u16>,
}

impl Guard {
    pub(crate) fn new(allow: Arc<AllowList>, lookup: Arc<dyn Lookup>, port: Option<u16>) -> Self {
        Self { allow, lookup, port }
    }

    /// Refuses a URL whose host is an address that must not be reached. The HTTP client connects to
    /// such hosts without asking a resolver. Names pass here; [`Resolve`] checks them.
    pub(crate) fn check_literal(&self, url: &Url) -> Result<(), Denied> {
        let ip = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        self.check(url.host_str().unwrap_or_default(), ip)
    }

    fn check(&self, host: &str, ip: IpAddr) -> Result<(), Denied> {
        match not_public(ip) {
            Some(kind) if !self.allow.allows_ip(ip, self.port) => {
                Err(Denied { host: host.to_owned(), ip, kind })
            }
            _ => Ok(()),
        }
    }
}

impl Resolve for Guard {
    /// The addresses of a name, when every one of them may be reached.
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found = guard.lookup.lookup(host.to_owned()).await?;
            if !guard.allow.allows_host(host, guard.port) {
                for ip in &found {
                    guard.check(host, *ip)?;
                }
            }
            // Port 0 is replaced by the one of the URL.
            Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// What kind of address this is, when it is not one of the public internet (the IANA registries of
/// special-purpose addresses, RFC 6890). Forms of IPv6 that carry an IPv4 address are judged by that.
#[must_use]
pub fn not_public(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => not_public_v4(ip),
        IpAddr::V6(ip) => not_public_v6(ip),
    }
}

fn not_public_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = ip.octets();
    Some(match (a, b, c) {
        (0, ..) => "unspecified",
        (127, ..) => "private (this machine)",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "private",
        (100, 64..=127, _) => "private (shared by a provider)",
        (169, 254, _) => "private (link-local)",
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => "private (for documentation)",
        (192, 0, 0) | (192, 88, 99) | (198, 18..=19, _) | (240..=255, ..) => "private (reserved)",
        (224..=239, ..) => "private (multicast)",
        _ => return None,
    })
}

fn not_public_v6(ip: Ipv6Addr) -> Option<&'static str> {
    if let Some(ip) = carried_v4(ip) {
        return not_public_v4(ip);
    }
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("private (this machine)"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("private (for documentation)"),
        [0xfc00..=0xfdff, ..] => Some("private"),
        [0xfe80..=0xfebf, ..] => Some("private (link-local)"),
        [0xff00..=0xffff, ..] => Some("private (multicast)"),
        [0x2001, 0..=0x1ff, ..] => Some("private (reserved)"),
        [0x2000..=0x3fff, ..] => None,
        // Only 2000::/3 is given out as public; the rest is old, reserved or unassigned.
        _ => Some("private (reserved)"),
    }
}

/// The IPv4 address that an IPv6 address leads to.
fn carried_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    match ip.segments() {
        // IPv4-mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056), and ISATAP (RFC 5214), which
        // puts it at the end of any public prefix.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [0x2000..=0x3fff, .., 0 | 0x200, 0x5efe, high, low] => {
            Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Fixed(Vec<IpAddr>);

    impl Lookup for Fixed {
        fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let found = self.0.clone();
            Box::pin(async { Ok(found) })
        }
    }

    fn guard(allow: &str, found: &[&str], port: Option<u16>) -> Guard {
        let found = found.iter().map(|ip| ip.parse().unwrap()).collect();
        Guard::new(Arc::new(allow.parse().unwrap()), Arc::new(Fixed(found)), port)
    }

    #[test]
    fn every_form_of_a_private_address_is_known() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.250",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::8.8.8.8",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:0:1::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2a00::5efe:10.0.0.1",
            "2a00::200:5efe:127.0.0.1",
            "5f00::1",
        ] {
            assert!(not_public(ip.parse().unwrap()).is_some(), "{ip} counts as public");
        }
    }

    #[test]
    fn public_addresses_are_public() {
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "193.0.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert_eq!(not_public(ip.parse().unwrap()), None, "{ip}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_the_same_in_every_ipv6_form(bits: u32) {
            let ip = Ipv4Addr::from(bits);
            let (high, low) = ((bits >> 16) as u16, (bits & 0xffff) as u16);
            let forms = [
                ip.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ];
            for form in forms {
                prop_assert_eq!(not_public(form.into()), not_public(ip.into()), "{}", form);
            }
        }
    }

    #[tokio::test]
    async fn a_name_with_one_private_address_is_refused_whole() {
        let guard = guard("", &["93.184.216.34", "10.0.0.1"], None);

        let error = guard.resolve("both.example".parse().unwrap()).await.err().unwrap();

        assert_eq!(
            error.to_string(),
            "address 10.0.0.1 of host both.example is private; allow it with HTTP_ALLOW_PRIVATE"
        );
    }

    #[tokio::test]
    async fn an_allowed_name_may_have_any_address_and_an_allowed_network_any_name() {
        for (allow, port, passes) in [
            ("nas.lan", None, true),
            ("*.lan", Some(80), true),
            ("nas.lan:81", Some(80), false),
            ("10.0.0.0/8", None, true),
            ("10.0.0.1:80", Some(80), true),
            ("10.0.0.1:80", None, false),
            ("other.lan", None, false),
        ] {
            let found = guard(allow, &["10.0.0.1"], port).resolve("nas.lan".parse().unwrap()).await;
            assert_eq!(found.is_ok(), passes, "{allow} at {port:?}");
        }
    }

    #[test]
    fn addresses_written_strangely_are_still_addresses() {
        for url in [
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::]/",
            "http://0/",
            "http://①②⑦.0.0.1/",
        ] {
            let url = url.parse().unwrap();
            assert!(guard("", &[], None).check_literal(&url).is_err(), "{url}");
        }
    }
}
