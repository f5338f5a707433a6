//! The file that names MCP servers, in the form that many programs share:
//!
//! ```json
//! {"mcpServers": {
//!     "time": {"command": "mcp-server-time", "args": ["--local-timezone", "UTC"], "env": {"A": "b"}},
//!     "web":  {"url": "https://example.com/mcp", "headers": {"Authorization": "Bearer …"}}
//! }}
//! ```
//!
//! Fields that other programs understand and we do not are passed over.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::RESERVED;
use crate::registry::StartError;

/// The most servers in one file.
pub const SERVERS_MAX: usize = 100;

/// One server of the file.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The first part of its tools' addresses.
    pub name: String,
    /// How it is reached.
    pub transport: TransportConfig,
}

/// How a server is reached. What may be secret is not shown.
#[derive(Clone)]
pub enum TransportConfig {
    /// A child process that speaks on its standard input and output.
    Stdio {
        /// The program, looked for in `PATH`.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its variables, besides the few that are inherited.
        env: BTreeMap<String, String>,
        /// Where it is started.
        cwd: Option<PathBuf>,
    },
    /// Streamable HTTP.
    Http {
        /// Its endpoint.
        url: Url,
        /// Sent with every request.
        headers: HashMap<HeaderName, HeaderValue>,
    },
}

impl fmt::Debug for TransportConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio { command, .. } => write!(f, "Stdio({command})"),
            Self::Http { url, .. } => write!(f, "Http({})", url.origin().ascii_serialization()),
        }
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: Option<String>,
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    disabled: bool,
}

/// The servers that the file at `path` names, without those that are `disabled`.
///
/// # Errors
///
/// [`StartError::Unreadable`] and [`StartError::Wrong`]; the latter names the server.
pub async fn read(path: &Path) -> Result<Vec<ServerConfig>, StartError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|source| StartError::Unreadable { path: path.to_owned(), source })?;
    parse(&text).map_err(|reason| StartError::Wrong { path: path.to_owned(), reason })
}

fn parse(text: &str) -> Result<Vec<ServerConfig>, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let servers: &Map<String, Value> = file
        .get("mcpServers")
        .ok_or("the field mcpServers is missing")?
        .as_object()
        .ok_or("mcpServers is not an object")?;
    if servers.len() > SERVERS_MAX {
        return Err(format!("more than {SERVERS_MAX} servers"));
    }
    let mut wanted = Vec::new();
    for (name, raw) in servers {
        let wrong = |reason: String| format!("server {name:?}: {reason}");
        let raw = Raw::deserialize(raw).map_err(|error| wrong(error.to_string()))?;
        if raw.disabled {
            continue;
        }
        check_name(name).map_err(wrong)?;
        let transport = transport(raw).map_err(wrong)?;
        wanted.push(ServerConfig { name: name.clone(), transport });
    }
    Ok(wanted)
}

fn check_name(name: &str) -> Result<(), String> {
    if RESERVED.contains(&name) {
        return Err("the name is taken by built-in tools".to_owned());
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err("a name is made of up to 64 letters, digits, - and _".to_owned());
    }
    Ok(())
}

fn transport(raw: Raw) -> Result<TransportConfig, String> {
    match raw.kind.as_deref() {
        None
        | Some("stdio" | "http" | "streamable-http" | "streamable_http" | "streamableHttp") => {}
        Some("sse") => {
            return Err("the old SSE transport is not spoken here; give the server's streamable \
                        HTTP endpoint, with type http"
                .to_owned());
        }
        Some(other) => return Err(format!("type {other:?} is neither stdio nor http")),
    }
    match (raw.command, raw.url) {
        (Some(_), Some(_)) => Err("has both a command and a url".to_owned()),
        (None, None) => Err("has neither a command nor a url".to_owned()),
        (Some(command), None) => {
            if command.trim().is_empty() {
                return Err("the command is empty".to_owned());
            }
            Ok(TransportConfig::Stdio { command, args: raw.args, env: raw.env, cwd: raw.cwd })
        }
        (None, Some(url)) => {
            let url = Url::parse(&url).map_err(|error| format!("url: {error}"))?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(format!("url: {}: is not http: or https:", url.scheme()));
            }
            Ok(TransportConfig::Http { url, headers: headers(&raw.headers)? })
        }
    }
}

fn headers(raw: &BTreeMap<String, String>) -> Result<HashMap<HeaderName, HeaderValue>, String> {
    raw.iter()
        .map(|(name, value)| {
            let key = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("headers: {name:?} cannot be the name of a header"))?;
            if matches!(key.as_str(), "accept" | "mcp-session-id" | "last-event-id") {
                return Err(format!("headers: {name} is set by the protocol"));
            }
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("headers: the value of {name} cannot be that of a header"))?;
            value.set_sensitive(true);
            Ok((key, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_form_is_read_and_foreign_fields_are_passed_over() {
        let servers = parse(
            r#"{"mcpServers": {
                "time": {"command": "mcp-server-time", "args": ["-v"], "autoApprove": ["x"]},
                "web": {"type": "http", "url": "https://example.com/mcp", "headers": {"X-Key": "k"}},
                "off": {"disabled": true, "type": "sse", "url": "nonsense"}
            }, "theme": "dark"}"#,
        )
        .unwrap();

        let names: Vec<_> = servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["time", "web"]);
        assert_eq!(format!("{:?}", servers[1].transport), "Http(https://example.com)");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_name_of_the_server() {
        for (text, said) in [
            ("{", "no JSON"),
            ("{}", "mcpServers is missing"),
            (r#"{"mcpServers": {"a": {}}}"#, "\"a\": has neither a command nor a url"),
            (r#"{"mcpServers": {"a": {"command": "x", "url": "http://y"}}}"#, "both"),
            (r#"{"mcpServers": {"core": {"command": "x"}}}"#, "taken by built-in"),
            (r#"{"mcpServers": {"a.b": {"command": "x"}}}"#, "a name is made of"),
            (r#"{"mcpServers": {"a": {"type": "sse", "url": "http://y"}}}"#, "old SSE"),
            (r#"{"mcpServers": {"a": {"url": "ftp://y"}}}"#, "ftp: is not"),
            (r#"{"mcpServers": {"a": {"url": "http://y", "headers": {"Accept": "z"}}}}"#, "Accept"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{error} does not say {said}");
        }
    }
}
