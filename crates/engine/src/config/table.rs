//! The table of settings: the one source of `--help`, of `.env.example`, and of the table in
//! `docs/running.md`.
//!
//! To add one: a row here, then see the head of the module above. `default` is written as a person
//! would set it; empty means unset (or required, where `about` says so).

use std::fmt::Write as _; // writing into a String cannot fail

use super::Service;

/// What is said of one setting.
#[derive(Clone, Copy, Debug)]
pub struct SettingDoc {
    /// The variable.
    pub name: &'static str,
    /// What unset means, written as a value; empty where unset means "none".
    pub default: &'static str,
    /// Unit and range, or the values there are.
    pub range: &'static str,
    /// What it does, in a sentence or two.
    pub about: &'static str,
    /// Whether `NAME_FILE` may name a file that holds the value.
    pub secret: bool,
    /// Which programs it changes.
    pub services: &'static [Service],
}

use Service::{Api, Cli, Scheduler, Worker};

const ALL: &[Service] = &[Api, Scheduler, Worker, Cli];
/// `orchestrator dev` is every service, so what changes any of them changes it.
const API: &[Service] = &[Api, Cli];
const SCHEDULER: &[Service] = &[Scheduler, Cli];
const WORKER: &[Service] = &[Worker, Cli];
/// Tools run in the worker; the API checks tasks against their catalogue.
const TOOLS: &[Service] = &[Api, Worker, Cli];

const fn row(
    services: &'static [Service],
    name: &'static str,
    default: &'static str,
    range: &'static str,
    about: &'static str,
) -> SettingDoc {
    SettingDoc { name, default, range, about, secret: false, services }
}

const fn secret(
    services: &'static [Service],
    name: &'static str,
    range: &'static str,
    about: &'static str,
) -> SettingDoc {
    SettingDoc { name, default: "", range, about, secret: true, services }
}

/// Every setting, in the order in which people read about them.
pub const SETTINGS: &[SettingDoc] = &[
    secret(
        ALL,
        "DATABASE_URL",
        "postgres://user:password@host:5432/database",
        "Where Postgres is. Required (orchestrator dev starts its own when unset).",
    ),
    secret(
        ALL,
        "DATABASE_DIRECT_URL",
        "postgres://user:password@host:5432/database",
        "Where Postgres itself is, when DATABASE_URL goes through a pooler such as PgBouncer.",
    ),
    row(
        ALL,
        "DATABASE_MAX_CONNECTIONS",
        "10",
        "2 to 200",
        "The most database connections of one process.",
    ),
    secret(
        ALL,
        "REDIS_URL",
        "redis://:password@host:6379/0",
        "Where Redis is. Without it everything works, slower, by polling.",
    ),
    row(ALL, "LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING, ERROR", "How much is logged."),
    row(
        ALL,
        "LOG_FORMAT",
        "structured",
        "json, structured",
        "JSON lines for collectors, or text for people. Logs go to standard error.",
    ),
    row(ALL, "ENABLE_METRICS", "true", "true, false", "Whether /metrics answers."),
    row(
        ALL,
        "ENABLE_TRACING",
        "false",
        "true, false",
        "Whether traces are sent (OTLP): one for each run, whose id is the run's.",
    ),
    row(
        ALL,
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://localhost:4318",
        "a URL of http or https",
        "Where traces are sent, as OTLP over HTTP (protobuf); /v1/traces is added.",
    ),
    secret(
        ALL,
        "OTEL_EXPORTER_OTLP_HEADERS",
        "name=value,name=value, values percent-encoded",
        "Headers that go with traces, such as authorization=Basic%20dTpw.",
    ),
    row(
        ALL,
        "OTEL_TRACES_SAMPLER_ARG",
        "1",
        "0 to 1",
        "The part of all traces that is sent. The same in every service, or traces have holes.",
    ),
    row(
        ALL,
        "DEBUG_MODE",
        "false",
        "true, false",
        "Logs at DEBUG unless LOG_LEVEL is set, and every query (without its values).",
    ),
    row(
        ALL,
        "DEFAULT_TIMEZONE",
        "UTC",
        "a zone of the IANA database, as Europe/Berlin",
        "The zone of tasks that name none.",
    ),
    row(
        SCHEDULER,
        "RETENTION_DAYS",
        "30",
        "days, 1 to 3650",
        "How long finished runs, consumed events and decided occurrences, fired ones too, are kept.",
    ),
    row(
        ALL,
        "RUN_DATA_MAX_BYTES",
        "1048576",
        "bytes of JSON, 16384 to 16777216",
        "The largest params, event, step input or step output that is taken and kept. The same for all services.",
    ),
    row(API, "API_HOST", "0.0.0.0", "an IP address", "The address the API listens on."),
    row(API, "API_PORT", "8080", "0 to 65535; 0: any free", "The port the API listens on."),
    row(
        API,
        "API_WORKERS",
        "0",
        "threads, 0 to 256; 0: one a core",
        "Threads that serve requests.",
    ),
    row(
        API,
        "API_RATE_LIMIT",
        "6000",
        "requests a minute and agent, 0 to 1000000; 0: none",
        "How often an agent may call before it gets 429 with Retry-After.",
    ),
    row(
        API,
        "TRUSTED_PROXIES",
        "",
        "addresses and networks, separated by commas; `private`: all private ones",
        "Proxies in front of the API whose X-Forwarded-For is believed; unset: none, and clients are peers.",
    ),
    row(
        API,
        "AUTH_TOKEN_EXPIRE",
        "3600",
        "seconds, 60 to 2592000",
        "How long an access token from /auth/token lives.",
    ),
    secret(
        API,
        "ADMIN_API_KEY",
        "at least 32 characters",
        "A key that is made an admin's at the start: the way into an empty system.",
    ),
    row(
        SCHEDULER,
        "SCHEDULER_INTERVAL",
        "10",
        "seconds, 1 to 300",
        "The longest sleep between two looks for due schedules; it wakes earlier when one is due.",
    ),
    row(
        SCHEDULER,
        "CATCH_UP_RATE",
        "10",
        "runs a second, 1 to 10000",
        "How fast missed runs begin after an outage, by priority, over all schedulers.",
    ),
    row(WORKER, "WORKER_CONCURRENCY", "5", "runs, 1 to 50", "Runs executed at once in a process."),
    row(
        WORKER,
        "WORKER_LEASE_SECONDS",
        "30",
        "seconds, 5 to 3600",
        "How long a run is a worker's without renewal: how soon another takes over after a crash.",
    ),
    row(
        WORKER,
        "PRIORITY_AGEING_SECONDS",
        "60",
        "seconds, 1 to 86400",
        "A run due for longer goes before better priorities, up to a quarter of what is taken.",
    ),
    row(
        &[Scheduler, Worker],
        "METRICS_HOST",
        "0.0.0.0",
        "an IP address",
        "The address the health and metrics port of scheduler and worker listens on.",
    ),
    row(
        &[Scheduler, Worker],
        "METRICS_PORT",
        "",
        "0 to 65535; 0: any free; unset: scheduler 9101, worker 9102",
        "The health and metrics port of scheduler and worker.",
    ),
    row(
        TOOLS,
        "MCP_CONFIG",
        "",
        "a file",
        "MCP servers whose tools steps can use, in the common {\"mcpServers\": {…}} form.",
    ),
    row(TOOLS, "TOOL_CATALOG", "", "a file", "Further tools, declared by hand. Not used yet."),
    row(
        WORKER,
        "HTTP_ALLOW_PRIVATE",
        "",
        "hosts and networks, separated by commas",
        "What tools may reach besides public addresses, as 192.168.1.0/24,nas.home.",
    ),
    row(
        WORKER,
        "LLM_BASE_URL",
        "",
        "http(s)://…",
        "The language model's API (the root that has /chat/completions).",
    ),
    secret(WORKER, "LLM_API_KEY", "text", "The key for LLM_BASE_URL."),
    row(WORKER, "LLM_MODEL", "", "text", "The model when a step names none."),
    secret(
        WORKER,
        "SMTP_URL",
        "smtp://user:password@host:587 or smtps://…:465",
        "The mail server. Not used yet: there is no tool that sends mail.",
    ),
    row(
        &[Cli],
        "ORCHESTRATOR_URL",
        "http://127.0.0.1:8080",
        "http(s)://…",
        "Which server the command line talks to.",
    ),
    secret(
        &[Cli],
        "ORCHESTRATOR_API_KEY",
        "text",
        "The key the command line shows; unset: the admin.key of a .orchestrator/ here.",
    ),
];

/// Said at the end of the settings, here and in `.env.example`.
const PIPELINE_SECRETS: &str =
    "SECRET_<NAME>, SECRET_<NAME>_FILE: what pipelines use as ${secrets.<NAME>}";

/// The settings of `service` as `--help` prints them: name, default, range, meaning.
#[must_use]
pub fn help(service: Service) -> String {
    let mut text = String::from("Settings (environment):\n");
    for setting in SETTINGS.iter().filter(|setting| setting.services.contains(&service)) {
        let file = if setting.secret { " (or _FILE)" } else { "" };
        let default = if setting.default.is_empty() {
            String::new()
        } else {
            format!("; default {}", setting.default)
        };
        let _ = write!(
            text,
            "  {}{file}\n      {} [{}{default}]\n",
            setting.name, setting.about, setting.range
        );
    }
    if service != Service::Scheduler {
        let _ = writeln!(text, "  {PIPELINE_SECRETS}");
    }
    text
}

/// The content of `.env.example`.
#[must_use]
pub fn env_example() -> String {
    let mut text = String::from(
        "# Every setting, with its default. Made from the table in crates/engine/src/config/table.rs\n\
         # by `make env-example`; a test compares. Secrets may stand in files: NAME_FILE=/run/secrets/name.\n",
    );
    for setting in SETTINGS {
        let who: Vec<_> = setting.services.iter().map(|service| service.as_str()).collect();
        let who = if who.len() == ALL.len() { "all".to_owned() } else { who.join(", ") };
        let _ = write!(
            text,
            "\n# {}\n# [{}] read by: {who}\n#{}={}\n",
            setting.about, setting.range, setting.name, setting.default
        );
    }
    let _ = write!(text, "\n# {PIPELINE_SECRETS}\n#SECRET_MAIL_TOKEN=\n");
    text
}

/// The table of `docs/running.md`.
#[cfg(test)]
fn markdown() -> String {
    let mut text =
        String::from("| setting | default | unit, range | read by | |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let who: Vec<_> = setting.services.iter().map(|service| service.as_str()).collect();
        let who = if who.len() == ALL.len() { "all".to_owned() } else { who.join(", ") };
        let default = match setting.default {
            "" => "–".to_owned(),
            default => format!("`{default}`"),
        };
        let file = if setting.secret { " (`_FILE`)" } else { "" };
        let _ = writeln!(
            text,
            "| `{}`{file} | {default} | {} | {who} | {} |",
            setting.name, setting.range, setting.about
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn in_repository(path: &str) -> String {
        format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))
    }

    /// `UPDATE_ENV_EXAMPLE=1` (what `make env-example` sets) writes both instead.
    #[test]
    fn the_example_file_and_the_table_of_the_documentation_are_what_the_table_says() {
        const BEGIN: &str = "<!-- written by make env-example -->\n\n";
        const END: &str = "\n<!-- until here -->";
        let (example, page) = (in_repository(".env.example"), in_repository("docs/running.md"));
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let text = read(&page);
        let (before, rest) = text.split_once(BEGIN).expect("the mark where the table begins");
        let (_, after) = rest.split_once(END).expect("the mark where the table ends");
        let expected = format!("{before}{BEGIN}{}{END}{after}", markdown());
        if super::super::Env::from_process().raw("UPDATE_ENV_EXAMPLE").is_some() {
            std::fs::write(&example, env_example()).unwrap();
            std::fs::write(&page, &expected).unwrap();
        }

        assert!(
            read(&example) == env_example(),
            ".env.example is out of date: run make env-example"
        );
        assert!(read(&page) == expected, "docs/running.md is out of date: run make env-example");
    }

    /// What the compose file alone reads stands in a table of its own, with what unset means there.
    #[test]
    fn the_variables_of_the_compose_file_are_those_that_the_documentation_lists() {
        let compose = std::fs::read_to_string(in_repository("docker-compose.yml")).unwrap();
        let page = std::fs::read_to_string(in_repository("docs/running.md")).unwrap();
        let read: BTreeMap<&str, &str> = compose
            .split("${")
            .skip(1)
            .filter_map(|rest| rest.split_once('}')?.0.split_once(":-"))
            .collect();
        let (_, table) = page.split_once("| variable | unset | |\n|---|---|---|\n").unwrap();
        let told: BTreeMap<&str, &str> = table
            .lines()
            .map_while(|line| {
                let mut cells = line.strip_prefix("| ")?.split(" | ");
                Some((cells.next()?.trim_matches('`'), cells.next()?.trim_matches('`')))
            })
            // No password is written anywhere; the page says what happens instead.
            .map(|(name, unset)| (name, if unset == "drawn" { "" } else { unset }))
            .collect();

        assert_eq!(told, read);
    }

    #[test]
    fn names_stand_once_and_each_has_a_reader() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(!setting.services.is_empty(), "{}", setting.name);
            assert!(
                SETTINGS[..index].iter().all(|other| other.name != setting.name),
                "{} stands twice",
                setting.name
            );
        }
    }

    #[test]
    fn help_lists_what_a_service_reads_and_nothing_else() {
        let scheduler = help(Service::Scheduler);

        assert!(scheduler.contains("SCHEDULER_INTERVAL"));
        assert!(!scheduler.contains("WORKER_CONCURRENCY"));
    }
}
