//! The way to the server: where it is, which key to show, and what its answers mean.
//!
//! `ORCHESTRATOR_URL` and `ORCHESTRATOR_API_KEY` say so; otherwise a `.orchestrator/` in the current
//! folder does, which `orchestrator dev` keeps there. That key is shown to servers on this machine
//! alone.

use std::path::Path;
use std::time::Duration;

use orchestrator_engine::config::{Env, Problems, Secret};
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use crate::failure::{Failure, Problem};

/// Where a server is when nobody says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The folder that `orchestrator dev` keeps its things in.
pub const DATA_DIR: &str = ".orchestrator";

/// How long to wait for an answer. The slowest, a preview of a hard rule, takes a second.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The most rows the server gives at once.
const PAGE_MAX: usize = 200;

/// A server, and the key for it.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<Secret>,
}

impl Client {
    /// The server that `env`, or a `.orchestrator/` in `folder`, names. Asks nothing yet.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] when the URL is not one.
    pub fn find(env: &Env, folder: &Path) -> Result<Self, Failure> {
        let data_dir = folder.join(DATA_DIR);
        let url = env
            .text("ORCHESTRATOR_URL")
            .map(str::to_owned)
            .or_else(|| url_of_dev(&data_dir))
            .unwrap_or_else(|| DEFAULT_URL.to_owned());
        let base = base_url(&url)?;
        let mut problems = Problems::default();
        let mut key = env.secret("ORCHESTRATOR_API_KEY", &mut problems);
        if !problems.is_empty() {
            return Err(Failure::Usage(problems.to_string()));
        }
        if key.is_none() && is_this_machine(&base) {
            let file = std::fs::read_to_string(data_dir.join("admin.key")).ok();
            key = file.map(|text| Secret::new(text.trim()));
        }
        let http = reqwest::Client::builder()
            .timeout(ANSWER_MAX)
            .user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Failure::while_doing("prepare the HTTP client"))?;
        Ok(Self { http, base, key })
    }

    /// The server's root.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// A request to `path` (from the root, without a slash at its start) with the key, for whoever
    /// needs more than [`Client::send`]: headers, a stream.
    ///
    /// # Errors
    ///
    /// When `path` does not make a URL.
    pub fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, Failure> {
        let url = self.base.join(path).map_err(Failure::while_doing("make the URL"))?;
        let request = self.http.request(method, url);
        Ok(match &self.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        })
    }

    /// Sends `body` (or nothing) and returns the answer, null when it is empty.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`] for 4xx and 5xx; [`Failure::Failed`] when there is no server there.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.request(method, path)?.query(query);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.answer(request).await
    }

    /// Sends a request made by [`Client::request`]; see [`Client::send`].
    ///
    /// # Errors
    ///
    /// As [`Client::send`].
    pub async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(self.refused(status.as_u16(), &body));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| {
            Failure::failed(format!("{} answered with something that is not JSON", self.base))
        })
    }

    /// What is at `path`.
    ///
    /// # Errors
    ///
    /// As [`Client::send`].
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, &[], None).await
    }

    /// Sends `body` to `path`.
    ///
    /// # Errors
    ///
    /// As [`Client::send`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    /// The newest `limit` (at least one) of a list, over as many pages as that takes, in the form of one
    /// page.
    ///
    /// # Errors
    ///
    /// As [`Client::send`].
    pub async fn list(
        &self,
        path: &str,
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Value, Failure> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let size = limit.saturating_sub(items.len()).min(PAGE_MAX).to_string();
            let mut query: Vec<_> = query.iter().map(|(name, text)| (*name, &text[..])).collect();
            query.push(("limit", &size));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let mut page = self.send(Method::GET, path, &query, None).await?;
            if let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) {
                items.extend(found);
            }
            cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() || items.len() >= limit {
                return Ok(json!({"items": items, "next_cursor": cursor}));
            }
        }
    }

    /// Whether there is a key to show.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    fn refused(&self, status: u16, body: &[u8]) -> Failure {
        let mut problem = Problem::read(status, body);
        if status == 401 {
            problem.detail = Some(match &self.key {
                None => "no key was shown: set ORCHESTRATOR_API_KEY, or go to the folder where \
                         `orchestrator dev` was started. An administrator makes keys with \
                         `orchestrator agent create NAME --scope SCOPE`"
                    .to_owned(),
                Some(_) => "the key that was shown is unknown or revoked, or its agent is disabled. \
                            An administrator makes another with `orchestrator agent key create NAME`"
                    .to_owned(),
            });
        }
        Failure::Refused(problem)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let what = if error.is_timeout() {
            "did not answer in time"
        } else if error.is_connect() {
            "is not there"
        } else {
            "broke off"
        };
        Failure::failed(format!(
            "the server at {} {what}; start one with `orchestrator dev`, or set ORCHESTRATOR_URL",
            self.base
        ))
    }
}

/// How many rows of a list somebody asks for.
///
/// # Errors
///
/// A sentence that says what can be written.
pub fn limit(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|limit| *limit > 0)
        .ok_or_else(|| "is not a whole number from 1 on".to_owned())
}

/// The path of these segments, each written so that it stays one segment.
///
/// # Errors
///
/// [`Failure::Usage`] for a segment that names nothing: it is empty or one of the dots.
pub fn path(segments: &[&str]) -> Result<String, Failure> {
    if let Some(wrong) = segments.iter().find(|segment| matches!(**segment, "" | "." | "..")) {
        return Err(Failure::Usage(format!("{wrong:?} is neither a name nor an id")));
    }
    // Form encoding differs from what paths need in the blank alone.
    let encode = |segment: &&str| {
        url::form_urlencoded::byte_serialize(segment.as_bytes())
            .collect::<String>()
            .replace('+', "%20")
    };
    Ok(segments.iter().map(encode).collect::<Vec<_>>().join("/"))
}

fn base_url(text: &str) -> Result<Url, Failure> {
    let wrong = || {
        Failure::Usage(format!("ORCHESTRATOR_URL: {text:?} is not of the form http://host:8080"))
    };
    let mut url: Url = text.parse().map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong());
    }
    // `join` replaces what stands behind the last slash.
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// What `orchestrator dev` wrote into its `env` file.
fn url_of_dev(data_dir: &Path) -> Option<String> {
    let env = std::fs::read_to_string(data_dir.join("env")).ok()?;
    env.lines().find_map(|line| line.strip_prefix("ORCHESTRATOR_URL=")).map(str::to_owned)
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pairs: &[(&str, &str)], folder: &Path) -> Result<Client, Failure> {
        orchestrator_boot::install_crypto();
        Client::find(&Env::from_pairs(pairs.iter().copied()), folder)
    }

    #[test]
    fn the_key_of_a_local_dev_server_is_shown_to_this_machine_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(DATA_DIR)).unwrap();
        std::fs::write(folder.path().join(".orchestrator/admin.key"), "local\n").unwrap();
        std::fs::write(
            folder.path().join(".orchestrator/env"),
            "ORCHESTRATOR_URL=http://127.0.0.1:9000\n",
        )
        .unwrap();

        let here = find(&[], folder.path()).unwrap();
        let far = find(&[("ORCHESTRATOR_URL", "https://example.com")], folder.path()).unwrap();
        let told = find(
            &[("ORCHESTRATOR_URL", "https://example.com/x"), ("ORCHESTRATOR_API_KEY", "theirs")],
            folder.path(),
        )
        .unwrap();

        assert_eq!(here.base().as_str(), "http://127.0.0.1:9000/");
        assert_eq!(here.key, Some(Secret::new("local")));
        assert_eq!(far.key, None);
        assert_eq!(told.key, Some(Secret::new("theirs")));
        assert_eq!(told.base().as_str(), "https://example.com/x/");
    }

    #[test]
    fn a_name_stays_one_segment_of_the_path() {
        assert_eq!(path(&["tasks", "a b/c+d?", "pause"]).unwrap(), "tasks/a%20b%2Fc%2Bd%3F/pause");
        assert!(matches!(path(&["tasks", ".."]), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_url_that_is_none_is_a_matter_of_usage() {
        let folder = tempfile::tempdir().unwrap();

        let failure = find(&[("ORCHESTRATOR_URL", "localhost:8080")], folder.path()).unwrap_err();

        assert!(matches!(failure, Failure::Usage(_)), "{failure}");
    }
}
