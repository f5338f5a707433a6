//! The sections of [`super::Settings`]. Each field names its variable, its range and its default.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::{AllowList, Env, Problems, Secret};
use crate::problem::nearest;

/// Where Postgres is and how much of it a process takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// `DATABASE_URL`: `postgres://user:password@host:port/database`. Required.
    pub url: Secret,
    /// `DATABASE_DIRECT_URL`: the same database past the pooler that `url` goes through. `None`: `url`
    /// goes to Postgres itself.
    pub direct_url: Option<Secret>,
    /// `DATABASE_MAX_CONNECTIONS`: the most connections of one process. 2 to 200, default 10.
    pub max_connections: u32,
    /// `DEBUG_MODE`: whether every query is logged, and not only the slow ones.
    pub log_queries: bool,
}

impl Database {
    /// Reads the section, adding what is wrong to `problems`.
    pub fn read(env: &Env, problems: &mut Problems) -> Self {
        let before = problems.clone();
        let url = env.secret("DATABASE_URL", problems).unwrap_or_else(|| {
            problems.require(
                *problems != before,
                "DATABASE_URL is not set; it is postgres://user:password@host:5432/database",
            );
            Secret::new("")
        });
        check_database_url("DATABASE_URL", &url, problems);
        let direct_url = env.secret("DATABASE_DIRECT_URL", problems);
        if let Some(direct) = &direct_url {
            check_database_url("DATABASE_DIRECT_URL", direct, problems);
        }
        Self {
            direct_url: direct_url.filter(|direct| *direct != url),
            url,
            max_connections: env.number("DATABASE_MAX_CONNECTIONS", 10, 2..=200, problems),
            log_queries: debug_mode(env, problems),
        }
    }
}

fn check_database_url(name: &str, url: &Secret, problems: &mut Problems) {
    let right = ["postgres://", "postgresql://"].iter().any(|s| url.expose().starts_with(s))
        && sqlx::postgres::PgConnectOptions::from_str(url.expose()).is_ok();
    problems.require(
        right || url.expose().is_empty(),
        format!(
            "{name}: not of the form postgres://user:password@host:5432/database \
             (special characters in the password must be percent-encoded)"
        ),
    );
}

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// `REDIS_URL`: `redis://:password@host:port/0`. `None`: the system runs without, by polling.
    pub url: Option<Secret>,
}

impl Redis {
    /// Reads the section, adding what is wrong to `problems`.
    pub fn read(env: &Env, problems: &mut Problems) -> Self {
        let url = env.secret("REDIS_URL", problems);
        problems.require(
            url.as_ref().is_none_or(|url| redis::parse_redis_url(url.expose()).is_some()),
            "REDIS_URL: not of the form redis://:password@host:6379/0 (or rediss:// for TLS)",
        );
        Self { url }
    }
}

crate::text_enum! {
    /// How much is logged.
    LogLevel {
        /// Everything, for finding a fault.
        Debug = "DEBUG",
        /// What happened.
        Info = "INFO",
        /// What somebody should look at some day.
        Warning = "WARNING",
        /// What somebody should look at now.
        Error = "ERROR",
    }
}

crate::text_enum! {
    /// What a log line looks like.
    LogFormat {
        /// One JSON object a line, for collectors.
        Json = "json",
        /// Text with fields, for people.
        Structured = "structured",
    }
}

/// What is logged, and how. Logs go to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// `LOG_LEVEL`. Default INFO, or DEBUG in `DEBUG_MODE`.
    pub level: LogLevel,
    /// `LOG_FORMAT`. Default structured.
    pub format: LogFormat,
}

impl Log {
    /// Reads the section, adding what is wrong to `problems`.
    pub fn read(env: &Env, problems: &mut Problems) -> Self {
        Self {
            level: env.parsed(
                "LOG_LEVEL",
                if debug_mode(env, &mut Problems::default()) {
                    LogLevel::Debug
                } else {
                    LogLevel::Info
                },
                "one of DEBUG, INFO, WARNING, ERROR",
                problems,
            ),
            format: env.parsed(
                "LOG_FORMAT",
                LogFormat::Structured,
                "one of json, structured",
                problems,
            ),
        }
    }
}

/// Where traces are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: the root of a receiver of OTLP over HTTP. Default
    /// `http://localhost:4318`.
    pub endpoint: String,
    /// `OTEL_EXPORTER_OTLP_HEADERS`: as written, `name=value,name=value`.
    pub headers: Option<Secret>,
    /// `OTEL_TRACES_SAMPLER_ARG`: the part of all traces that is sent. 0 to 1, default 1.
    pub ratio: f64,
}

impl Tracing {
    /// Reads the section, adding what is wrong to `problems`; `None` without `ENABLE_TRACING`.
    pub fn read(env: &Env, problems: &mut Problems) -> Option<Self> {
        let enabled = env.flag("ENABLE_TRACING", false, problems);
        let endpoint = env.text("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or("http://localhost:4318");
        problems.require(
            ["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)),
            "OTEL_EXPORTER_OTLP_ENDPOINT: does not begin with http:// or https://",
        );
        let headers = env.secret("OTEL_EXPORTER_OTLP_HEADERS", problems);
        let is_pair =
            |part: &str| part.split_once('=').is_some_and(|(name, _)| !name.trim().is_empty());
        problems.require(
            headers.as_ref().is_none_or(|written| written.expose().split(',').all(is_pair)),
            "OTEL_EXPORTER_OTLP_HEADERS: not of the form name=value,name=value",
        );
        let right = "a number from 0 to 1";
        let ratio = env.parsed("OTEL_TRACES_SAMPLER_ARG", 1.0, right, problems);
        problems.require(
            (0.0..=1.0).contains(&ratio),
            format!("OTEL_TRACES_SAMPLER_ARG: {ratio} is not {right}"),
        );
        enabled.then(|| Self { endpoint: endpoint.to_owned(), headers, ratio })
    }
}

/// The shortest admin key accepted: 128 bits in hexadecimal.
const ADMIN_KEY_MIN_CHARS: usize = 32;

/// The REST service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// `API_HOST`: the address it listens on. Default 0.0.0.0.
    pub host: std::net::IpAddr,
    /// `API_PORT`: default 8080; 0 takes any free one.
    pub port: u16,
    /// `API_WORKERS`: threads that serve requests. 0 (default): as many as the machine has cores.
    pub workers: u16,
    /// `API_RATE_LIMIT`: requests a minute and agent. 0: no limit. Default 6000.
    pub rate_limit_per_minute: u32,
    /// `TRUSTED_PROXIES`: whose word about where a request comes from is believed. Default: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// `AUTH_TOKEN_EXPIRE`: how long an access token lives. 60 s to 30 days, default one hour.
    pub token_lifetime: Duration,
    /// `ADMIN_API_KEY`: a key that is made an admin's at the start, if it is not yet one.
    pub admin_key: Option<Secret>,
}

impl Api {
    /// Reads the section, adding what is wrong to `problems`.
    pub fn read(env: &Env, problems: &mut Problems) -> Self {
        let admin_key = env.secret("ADMIN_API_KEY", problems);
        problems.require(
            admin_key
                .as_ref()
                .is_none_or(|key| key.expose().chars().count() >= ADMIN_KEY_MIN_CHARS),
            format!(
                "ADMIN_API_KEY: shorter than {ADMIN_KEY_MIN_CHARS} characters; make one with: openssl rand -hex 32"
            ),
        );
        Self {
            host: env.parsed(
                "API_HOST",
                std::net::Ipv4Addr::UNSPECIFIED.into(),
                "an IP address such as 0.0.0.0 or 127.0.0.1",
                problems,
            ),
            port: env.number("API_PORT", 8080, 0..=u16::MAX, problems),
            workers: env.number("API_WORKERS", 0, 0..=256, problems),
            rate_limit_per_minute: env.number("API_RATE_LIMIT", 6_000, 0..=1_000_000, problems),
            trusted_proxies: trusted_proxies(env, problems),
            token_lifetime: Duration::from_secs(env.number(
                "AUTH_TOKEN_EXPIRE",
                3_600,
                60..=2_592_000,
                problems,
            )),
            admin_key,
        }
    }
}

/// What `private` stands for in `TRUSTED_PROXIES`: this machine, and networks that no router of the
/// internet knows (RFC 1918, 4193, 6598).
const PRIVATE: &[&str] = &[
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
];

fn trusted_proxies(env: &Env, problems: &mut Problems) -> Vec<IpNet> {
    const NAME: &str = "TRUSTED_PROXIES";
    let mut trusted = Vec::new();
    let listed = env.text(NAME).unwrap_or_default().split(',').map(str::trim);
    for entry in listed.filter(|entry| !entry.is_empty()) {
        if entry == "private" {
            trusted.extend(PRIVATE.iter().filter_map(|net| net.parse::<IpNet>().ok()));
            continue;
        }
        let net = entry.parse().or_else(|_| entry.parse::<std::net::IpAddr>().map(IpNet::from));
        match net {
            Ok(net) if net.prefix_len() > 0 => trusted.push(net),
            Ok(_) => problems.add(format!(
                "{NAME}: {entry:?} is everybody, who could then say to be anybody; name the proxies"
            )),
            Err(_) => problems.add(format!(
                "{NAME}: {entry:?} is neither an address, nor a network such as 10.0.0.0/8, nor `private`"
            )),
        }
    }
    trusted
}

/// The scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// `SCHEDULER_INTERVAL`: the longest sleep between two looks for due schedules. 1 to 300 s,
    /// default 10 s. It wakes earlier for the next due time and for hints.
    pub interval: Duration,
    /// `CATCH_UP_RATE`: how many missed runs begin in a second after an outage, over all schedulers.
    /// 1 to 10,000, default 10.
    pub catch_up_rate: u32,
    /// `METRICS_HOST`: the address its health and metrics port listens on. Default 0.0.0.0.
    pub metrics_host: std::net::IpAddr,
    /// `METRICS_PORT`: default 9101 here; 0 takes any free one.
    pub metrics_port: u16,
}

impl Scheduler {
    /// Reads the section, adding what is wrong to `problems`.
    pub fn read(env: &Env, problems: &mut Problems) -> Self {
        Self {
            interval: Duration::from_secs(env.number("SCHEDULER_INTERVAL", 10, 1..=300, problems)),
            catch_up_rate: env.number("CATCH_UP_RATE", 10, 1..=10_000, problems),
            metrics_host: metrics_host(env, problems),
            metrics_port: env.number("METRICS_PORT", 9101, 0..=u16::MAX, problems),
        }
    }
}

/// The worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// `WORKER_CONCURRENCY`: runs executed at once in one process. 1 to 50, default 5.
    pub concurrency: u16,
    /// `WORKER_LEASE_SECONDS`: how long a run is ours without renewal; renewed at a third of it.
    /// 5 to 3600 s, default 30 s.
    pub lease: Duration,
    /// `PRIORITY_AGEING_SECONDS`: a run that is due for longer goes before runs of a better priority,
    /// up to a quarter of what a worker takes. 1 to 86400 s, default 60 s.
    pub ageing: Duration,
    /// `METRICS_HOST`: the address its health and metrics port listens on. Default 0.0.0.0.
    pub metrics_host: std::net::IpAddr,
    /// `METRICS_PORT`: default 9102 here; 0 takes any free one.
    pub metrics_port: u16,
}

impl Worker {
    /// Reads the section. `METRICS_*` are checked by [`Scheduler::read`], which reads the same
    /// variables: told once is enough.
    pub fn read(env: &Env, problems: &mut Problems) -> Self {
        let mut told = Problems::default();
        Self {
            concurrency: env.number("WORKER_CONCURRENCY", 5, 1..=50, problems),
            lease: Duration::from_secs(env.number("WORKER_LEASE_SECONDS", 30, 5..=3_600, problems)),
            ageing: Duration::from_secs(env.number(
                "PRIORITY_AGEING_SECONDS",
                60,
                1..=86_400,
                problems,
            )),
            metrics_host: metrics_host(env, &mut told),
            metrics_port: env.number("METRICS_PORT", 9102, 0..=u16::MAX, &mut told),
        }
    }
}

/// What the tools need. Nothing here is required: a tool without its settings says so when called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolSettings {
    /// `MCP_CONFIG`: a file in the common `{"mcpServers": {…}}` form.
    pub mcp_config: Option<PathBuf>,
    /// `TOOL_CATALOG`: a file that declares further tools.
    pub tool_catalog: Option<PathBuf>,
    /// `HTTP_ALLOW_PRIVATE`: hosts and networks that tools may reach besides public ones.
    pub http_allow_private: AllowList,
    /// The language model.
    pub llm: LlmSettings,
    /// `SMTP_URL`: `smtp://user:password@host:587` or `smtps://…:465`.
    pub smtp_url: Option<Secret>,
    /// The few variables of our own that MCP servers started as child processes get, as the system
    /// calls them; never our settings.
    pub inherited_env: Vec<(String, String)>,
}

/// What a child process needs to find programs, its home and its language.
const INHERITED: &[&str] = &["PATH", "HOME", "LANG"];

/// The language model that `llm.*` tools ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LlmSettings {
    /// `LLM_BASE_URL`: the root of an API that speaks `/chat/completions`.
    pub base_url: Option<String>,
    /// `LLM_API_KEY`.
    pub api_key: Option<Secret>,
    /// `LLM_MODEL`: the model when a step names none.
    pub model: Option<String>,
}

impl ToolSettings {
    /// Reads the section, adding what is wrong to `problems`.
    pub fn read(env: &Env, problems: &mut Problems) -> Self {
        let base_url = env.text("LLM_BASE_URL").map(str::to_owned);
        problems.require(
            base_url.as_ref().is_none_or(|url| {
                ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
            }),
            "LLM_BASE_URL: does not begin with http:// or https://",
        );
        let smtp_url = env.secret("SMTP_URL", problems);
        problems.require(
            smtp_url.as_ref().is_none_or(|url| {
                ["smtp://", "smtps://"].iter().any(|scheme| url.expose().starts_with(scheme))
            }),
            "SMTP_URL: not of the form smtp://user:password@host:587 or smtps://user:password@host:465",
        );
        let allowed = env.text("HTTP_ALLOW_PRIVATE").unwrap_or_default().parse();
        let http_allow_private = allowed.unwrap_or_else(|error| {
            problems.add(format!("HTTP_ALLOW_PRIVATE: {error}"));
            AllowList::default()
        });
        Self {
            mcp_config: existing_file("MCP_CONFIG", env, problems),
            tool_catalog: existing_file("TOOL_CATALOG", env, problems),
            http_allow_private,
            llm: LlmSettings {
                base_url,
                api_key: env.secret("LLM_API_KEY", problems),
                model: env.text("LLM_MODEL").map(str::to_owned),
            },
            smtp_url,
            inherited_env: INHERITED
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), env.raw(name)?.to_owned())))
                .collect(),
        }
    }
}

/// Said by [`Database::read`] when it is wrong.
fn debug_mode(env: &Env, problems: &mut Problems) -> bool {
    env.flag("DEBUG_MODE", false, problems)
}

fn existing_file(name: &'static str, env: &Env, problems: &mut Problems) -> Option<PathBuf> {
    let path = PathBuf::from(env.text(name)?);
    problems.require(path.is_file(), format!("{name}: there is no file {}", path.display()));
    Some(path)
}

fn metrics_host(env: &Env, problems: &mut Problems) -> std::net::IpAddr {
    env.parsed(
        "METRICS_HOST",
        std::net::Ipv4Addr::UNSPECIFIED.into(),
        "an IP address such as 0.0.0.0 or 127.0.0.1",
        problems,
    )
}

pub(super) fn default_timezone(env: &Env, problems: &mut Problems) -> chrono_tz::Tz {
    let Some(name) = env.text("DEFAULT_TIMEZONE") else { return chrono_tz::UTC };
    name.parse().unwrap_or_else(|_| {
        let hint = nearest(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()))
            .map_or_else(String::new, |near| format!("; did you mean {near}?"));
        problems.add(format!(
            "DEFAULT_TIMEZONE: {name:?} is not a zone of the IANA database, such as Europe/Berlin{hint}"
        ));
        chrono_tz::UTC
    })
}
