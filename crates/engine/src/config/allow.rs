//! What the operator allows tools to reach besides public addresses (`HTTP_ALLOW_PRIVATE`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// What tools may reach besides public addresses: hosts, addresses and networks, each with a port or
/// for all ports. Parsed from `"127.0.0.1, 10.0.0.0/8, localhost:8080, *.lan, [::1]:80"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Allowed>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed {
    what: What,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Net(IpNet),
    Host(String),
    /// `.lan`: every name that ends so.
    Under(String),
}

/// One entry of an [`AllowList`] that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} {reason}")]
pub struct AllowListError {
    /// The entry as it was written.
    pub entry: String,
    /// What is wrong with it, and what would be right.
    pub reason: &'static str,
}

impl FromStr for AllowList {
    type Err = AllowListError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(|c: char| c == ',' || c.is_whitespace())
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                parse(entry).map_err(|reason| AllowListError { entry: entry.to_owned(), reason })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn parse(entry: &str) -> Result<Allowed, &'static str> {
    if entry.contains("://") {
        return Err("is a URL; write the host alone, with its port if need be");
    }
    if entry == "*" {
        return Err("would allow every private address; name the hosts or networks");
    }
    if entry.contains('/') {
        let net = entry.parse().map_err(|_| "is not a network such as 10.0.0.0/8")?;
        return Ok(Allowed { what: What::Net(net), port: None });
    }
    if let Ok(ip) = entry.parse::<IpAddr>() {
        return Ok(Allowed { what: What::Net(ip.to_canonical().into()), port: None });
    }
    if let Ok(at) = entry.parse::<SocketAddr>() {
        let what = What::Net(at.ip().to_canonical().into());
        return Ok(Allowed { what, port: Some(at.port()) });
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) => {
            let port = port.parse().ok().filter(|port| *port != 0);
            (name, Some(port.ok_or("has a port that is not a number from 1 to 65535")?))
        }
        None => (entry, None),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let (bare, under) = match name.strip_prefix("*.") {
        Some(bare) => (bare, true),
        None => (name.as_str(), false),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if bare.is_empty() || !bare.chars().all(fits) {
        return Err("is neither a host name nor an address nor a network");
    }
    if bare.rsplit('.').next().is_some_and(|last| last.parse::<u32>().is_ok()) {
        return Err("is not an IP address; all four numbers are needed");
    }
    let what = if under { What::Under(format!(".{bare}")) } else { What::Host(name) };
    Ok(Allowed { what, port })
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, entry) in self.0.iter().enumerate() {
            f.write_str(if nth == 0 { "" } else { ", " })?;
            match &entry.what {
                What::Net(net) => write!(f, "{net}")?,
                What::Host(name) => f.write_str(name)?,
                What::Under(end) => write!(f, "*{end}")?,
            }
            if let Some(port) = entry.port {
                write!(f, " port {port}")?;
            }
        }
        Ok(())
    }
}

impl AllowList {
    fn any(&self, port: Option<u16>, fits: impl Fn(&What) -> bool) -> bool {
        self.0.iter().any(|entry| (entry.port.is_none() || entry.port == port) && fits(&entry.what))
    }

    /// Whether an address is listed, for this port.
    #[must_use]
    pub fn allows_ip(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.any(port, |what| matches!(what, What::Net(net) if net.contains(&ip.to_canonical())))
    }

    /// Whether a name is listed, for this port.
    #[must_use]
    pub fn allows_host(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.any(port, |what| match what {
            What::Net(_) => false,
            What::Host(name) => *name == host,
            What::Under(end) => host.ends_with(end.as_str()),
        })
    }

    /// The ports that entries name; for any other port only entries without a port count.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.0.iter().filter_map(|entry| entry.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_list_says_what_it_cannot_read() {
        for entry in [
            "http://localhost",
            "*",
            "10.0.0.0/33",
            "localhost:0",
            "localhost:http",
            "a b:99999",
            "*.",
            "ho$t",
            "10.0.0",
            "[::1",
            "lan*",
        ] {
            assert!(entry.parse::<AllowList>().is_err(), "{entry} was taken");
        }
        let said = "10.0.0.0/8, http://x/".parse::<AllowList>().unwrap_err().to_string();
        assert!(said.starts_with("\"http://x/\" is "), "{said}");
    }

    #[test]
    fn an_allow_list_reads_hosts_addresses_networks_and_ports() {
        let list: AllowList =
            "127.0.0.1, 10.0.0.0/8 ,localhost:8080,*.LAN., [::1]:80 192.168.0.9:1".parse().unwrap();

        assert_eq!(
            list.to_string(),
            "127.0.0.1/32, 10.0.0.0/8, localhost port 8080, *.lan, ::1/128 port 80, \
             192.168.0.9/32 port 1"
        );
        assert!(list.allows_ip("::ffff:10.1.2.3".parse().unwrap(), None), "mapped is the same");
        assert!(!list.allows_ip("192.168.0.9".parse().unwrap(), Some(2)), "another port");
        assert!(list.allows_host("LocalHost.", Some(8080)) && !list.allows_host("localhost", None));
        assert!(list.allows_host("nas.lan", None) && !list.allows_host("lan", None));
        assert!(!list.allows_host("evil-lan", None));
        assert_eq!("".parse::<AllowList>().unwrap(), AllowList::default());
    }
}
