//! `doctor`: looks whether everything is as it should be, from here, and says what to do.
//!
//! To add a check: a function that gives [`Finding`]s, called in [`findings`].

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_boot::Service;
use orchestrator_engine::clock::SystemClock;
use orchestrator_engine::config::{Env, Problems, Redis};
use orchestrator_engine::store::{migrate, process, tool_catalogue};
use orchestrator_engine::streams::Streams;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::agent::{database, of_dev};
use crate::client::DATA_DIR;
use crate::failure::Failure;
use crate::output::{Format, items, say, text};
use crate::session::Session;

/// How far this machine's clock may be from the database's.
const CLOCK_MAX: TimeDelta = TimeDelta::seconds(1);
/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Nothing to choose.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The database and Redis are looked at when DATABASE_URL and REDIS_URL, or .orchestrator/env, name them;
the server at ORCHESTRATOR_URL always. The exit code is 1 when something failed.")]
pub struct Args {}

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    /// Not looked at.
    Skip,
    Warn,
    Fail,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skip => "skip",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    state: State,
    says: String,
    /// What to do.
    advice: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, says: impl Into<String>) -> Self {
        Self { what, state: State::Ok, says: says.into(), advice: None }
    }

    fn skip(what: &'static str, says: impl Into<String>) -> Self {
        Self { state: State::Skip, ..Self::ok(what, says) }
    }

    fn warn(what: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Warn, advice: Some(advice.into()), ..Self::ok(what, says) }
    }

    fn fail(what: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Fail, ..Self::warn(what, says, advice) }
    }
}

/// Does it.
pub async fn run(_: &Args, session: &Session, env: &Env) -> Result<ExitCode, Failure> {
    let mut found = Vec::new();
    findings(session, env, &mut found).await;
    if session.format == Format::Table {
        say(&found.iter().map(drawn).collect::<String>());
    } else {
        let all = found.iter().map(|finding| {
            json!({"check": finding.what, "status": finding.state.as_str(), "says": finding.says,
                   "advice": finding.advice})
        });
        session.show(&all.collect(), |_| String::new())?;
    }
    let failed = found.iter().any(|finding| finding.state == State::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn drawn(finding: &Finding) -> String {
    let mark = format!("{:4}", finding.state.as_str());
    let mark = match finding.state {
        State::Ok => console::style(mark).green(),
        State::Skip => console::style(mark).dim(),
        State::Warn => console::style(mark).yellow(),
        State::Fail => console::style(mark).red(),
    };
    let advice = finding.advice.iter().map(|advice| format!("      → {advice}\n"));
    format!("{mark}  {:10}  {}\n", finding.what, finding.says) + &advice.collect::<String>()
}

async fn findings(session: &Session, env: &Env, found: &mut Vec<Finding>) {
    found.extend(data_dir(Path::new(DATA_DIR)));
    in_database(env, found).await;
    found.push(redis(env).await);
    server(session, found).await;
}

/// Whether the folder with our secrets is for its owner alone.
fn data_dir(folder: &Path) -> Vec<Finding> {
    const WHAT: &str = "data dir";
    if !folder.exists() {
        return Vec::new();
    }
    // Going through the folder is harmless, and the servers' own user has to.
    let open: Vec<_> = [
        (folder.to_owned(), 0o066),
        (folder.join("admin.key"), 0o077),
        (folder.join("env"), 0o077),
        (folder.join("password"), 0o077),
    ]
    .into_iter()
    .filter(|(path, too_much)| {
        path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & too_much != 0)
    })
    .map(|(path, _)| path.display().to_string())
    .collect();
    if open.is_empty() {
        return vec![Finding::ok(WHAT, format!("only you can look into {}", folder.display()))];
    }
    let says = format!("others on this machine can look into {}", open.join(", "));
    vec![Finding::warn(WHAT, says, format!("chmod go-rw {}", open.join(" ")))]
}

async fn in_database(env: &Env, found: &mut Vec<Finding>) {
    const WHAT: &str = "database";
    let database = match database(env) {
        Ok(Some(database)) => database,
        Ok(None) => {
            let says = "not looked at: neither DATABASE_URL nor .orchestrator/env names it";
            return found.push(Finding::skip(WHAT, says));
        }
        Err(failure) => {
            return found.push(Finding::fail(WHAT, failure.to_string(), "correct DATABASE_URL"));
        }
    };
    let pool = match orchestrator_boot::pool(&database, Service::Cli) {
        Ok(pool) => pool,
        Err(error) => {
            return found.push(Finding::fail(WHAT, error.to_string(), "correct DATABASE_URL"));
        }
    };
    match tokio::time::timeout(LOOK_MAX, pool.acquire()).await {
        Ok(Ok(_)) => found.push(Finding::ok(WHAT, "answers")),
        late_or_refused => {
            let why = match late_or_refused {
                Ok(Err(error)) => error.to_string(),
                _ => format!("no answer within {} s", LOOK_MAX.as_secs()),
            };
            let advice = "start it, or set DATABASE_URL to where it is; `orchestrator dev` starts a \
                          private one";
            return found.push(Finding::fail(WHAT, why, advice));
        }
    }
    found.push(schema(&pool).await);
    found.push(clock(&pool).await);
    found.extend(processes(&pool).await);
    pool.close().await;
}

async fn schema(pool: &PgPool) -> Finding {
    const WHAT: &str = "schema";
    let known = migrate::known_version();
    match migrate::version(pool).await {
        Ok(version) if version == known => Finding::ok(WHAT, format!("version {version}")),
        Ok(version) if version > known => Finding::fail(
            WHAT,
            format!("is at version {version}, and this program knows versions up to {known}"),
            "use the version of the orchestrator that the services have",
        ),
        Ok(version) => Finding::fail(
            WHAT,
            format!("is at version {version}, and this program needs {known}"),
            "orchestrator migrate (or start a service: it does the same)",
        ),
        Err(error) => Finding::fail(WHAT, error.to_string(), "look at the database's log"),
    }
}

async fn clock(pool: &PgPool) -> Finding {
    const WHAT: &str = "clock";
    let asked: Result<_, Box<dyn std::error::Error>> = async {
        let mut conn = pool.acquire().await?;
        let before = now();
        let there = process::database_time(&mut conn).await?;
        // It was read somewhere between the question and the answer.
        Ok(there - (before + (now() - before) / 2))
    }
    .await;
    match asked {
        Ok(ahead) => clock_finding(ahead),
        Err(error) => Finding::fail(WHAT, error.to_string(), "look at the database's log"),
    }
}

fn now() -> DateTime<Utc> {
    orchestrator_engine::clock::Clock::now(&SystemClock)
}

fn clock_finding(ahead: TimeDelta) -> Finding {
    let ms = ahead.num_milliseconds();
    let words =
        format!("the database's is {} ms {}", ms.abs(), if ms < 0 { "behind" } else { "ahead" });
    if ahead.abs() > CLOCK_MAX {
        return Finding::warn("clock", words, "let both machines follow a time server (NTP)");
    }
    Finding::ok("clock", words)
}

async fn processes(pool: &PgPool) -> Vec<Finding> {
    let Ok(mut conn) = pool.acquire().await else { return Vec::new() };
    let mut found = Vec::new();
    for (what, service) in [("scheduler", "scheduler"), ("workers", "worker")] {
        found.push(match process::alive(&mut conn, service).await {
            Ok(alive) if alive.is_empty() => Finding::fail(
                what,
                format!("no {service} has been heard of lately"),
                format!("start orchestrator-{service}, or everything with `orchestrator dev`"),
            ),
            Ok(alive) => {
                let capacity: i32 = alive.iter().map(|process| process.capacity).sum();
                let active: i32 = alive.iter().map(|process| process.active).sum();
                let slots = if capacity > 0 {
                    format!(", {active} of {capacity} slots busy")
                } else {
                    String::new()
                };
                Finding::ok(what, format!("{} alive{slots}", alive.len()))
            }
            Err(error) => Finding::fail(what, error.to_string(), "orchestrator migrate"),
        });
    }
    if let Ok(tools) = tool_catalogue::list(&mut conn).await {
        found.push(tools_finding(tools.len()));
    }
    found
}

fn tools_finding(count: usize) -> Finding {
    match count {
        0 => Finding::warn("tools", "none is offered", "start a worker: workers offer the tools"),
        1 => Finding::ok("tools", "1 is offered"),
        count => Finding::ok("tools", format!("{count} are offered")),
    }
}

async fn redis(env: &Env) -> Finding {
    const WHAT: &str = "redis";
    let is_set = env.raw("REDIS_URL").or(env.raw("REDIS_URL_FILE")).is_some();
    let of_dev = of_dev("REDIS_URL").map(|url| Env::from_pairs([("REDIS_URL", url)]));
    let mut problems = Problems::default();
    let settings = match of_dev {
        Some(of_dev) if !is_set => Redis::read(&of_dev, &mut problems),
        _ => Redis::read(env, &mut problems),
    };
    if !problems.is_empty() {
        return Finding::fail(WHAT, problems.to_string(), "correct REDIS_URL");
    }
    let Some(url) = settings.url else {
        let says = "not looked at: neither REDIS_URL nor .orchestrator/env names it";
        return Finding::skip(WHAT, says);
    };
    let answers = match Streams::new(Some(url.expose()), Arc::new(SystemClock)) {
        Ok(streams) => tokio::time::timeout(LOOK_MAX, streams.ping()).await.unwrap_or(false),
        Err(_) => false,
    };
    if answers {
        return Finding::ok(WHAT, "answers");
    }
    let advice = "start it, or set REDIS_URL to where it is; until then everything goes on, slower";
    Finding::warn(WHAT, "does not answer", advice)
}

async fn server(session: &Session, found: &mut Vec<Finding>) {
    let base = session.client.base();
    let health = match ask_health(session).await {
        Ok(health) => health,
        Err(why) => {
            let advice = "start it with `orchestrator dev` (or orchestrator-api), or set \
                          ORCHESTRATOR_URL to where it is";
            found.push(Finding::fail("server", format!("{base} {why}"), advice));
            return;
        }
    };
    found.push(health_finding(&health, base.as_str()));
    found.push(match session.client.get("auth/me").await {
        Ok(me) => {
            let scopes = me.get("scopes").map_or(&[][..], items).iter().filter_map(Value::as_str);
            let scopes: Vec<_> = scopes.collect();
            Finding::ok("key", format!("of the agent {}: {}", text(&me, "name"), scopes.join(", ")))
        }
        Err(Failure::Refused(problem)) if problem.status == 401 => {
            let says = if session.client.has_key() { "is refused" } else { "is missing" };
            Finding::fail("key", says, problem.detail.unwrap_or_default())
        }
        Err(failure) => Finding::fail("key", failure.to_string(), "look at the server's log"),
    });
    let is_known = found.iter().any(|finding| finding.what == "tools");
    if let (false, Ok(tools)) = (is_known, session.client.get("tools").await) {
        found.push(tools_finding(items(&tools).len()));
    }
}

/// The server's own word on how it is, healthy or not.
async fn ask_health(session: &Session) -> Result<Value, String> {
    let request = session
        .client
        .request(Method::GET, "health")
        .map_err(|failure| failure.to_string())?
        .timeout(LOOK_MAX);
    let answer = request.send().await.map_err(|error| {
        if error.is_timeout() { "does not answer".to_owned() } else { "is not there".to_owned() }
    })?;
    answer.json().await.map_err(|_| "is no orchestrator: /health is something else".to_owned())
}

fn health_finding(health: &Value, base: &str) -> Finding {
    const WHAT: &str = "server";
    let wrong: Vec<_> = health
        .get("checks")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, check)| text(check, "status") != "healthy")
        .map(|(name, check)| format!("{name}: {}", text(check, "message")))
        .collect();
    let version = text(health, "version");
    let says = format!("{base} version {version}");
    let advice = if wrong.is_empty() { "look at its log".to_owned() } else { wrong.join("; ") };
    match text(health, "status").as_str() {
        "healthy" if version == orchestrator_engine::VERSION => Finding::ok(WHAT, says),
        "healthy" => {
            let advice =
                format!("this program is version {}: use the same", orchestrator_engine::VERSION);
            Finding::warn(WHAT, says, advice)
        }
        "degraded" => Finding::warn(WHAT, format!("{says}, degraded"), advice),
        state => Finding::fail(WHAT, format!("{says}, {state}"), advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_by_more_than_a_second_is_told() {
        assert_eq!(clock_finding(TimeDelta::milliseconds(-1_000)).state, State::Ok);
        let off = clock_finding(TimeDelta::milliseconds(-1_001));
        assert_eq!((off.state, &off.says[..]), (State::Warn, "the database's is 1001 ms behind"));
    }

    #[test]
    fn a_data_dir_that_others_can_read_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("admin.key");
        std::fs::write(&key, "k").unwrap();
        let chmod = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        chmod(folder.path(), 0o700);
        chmod(&key, 0o644);

        let open = data_dir(folder.path()).remove(0);
        chmod(&key, 0o600);
        let shut = data_dir(folder.path()).remove(0);

        assert_eq!(open.advice, Some(format!("chmod go-rw {}", key.display())));
        assert_eq!(shut.state, State::Ok);
        assert_eq!(data_dir(&folder.path().join("none")), []);
    }

    #[test]
    fn an_unhealthy_server_says_which_part_it_is() {
        let health = json!({"status": "unhealthy", "version": orchestrator_engine::VERSION,
            "checks": {"database": {"status": "healthy"},
                       "workers": {"status": "unhealthy", "message": "none alive"}}});

        let finding = health_finding(&health, "http://x/");

        assert_eq!(finding.state, State::Fail);
        assert_eq!(finding.advice.as_deref(), Some("workers: none alive"));
    }
}
