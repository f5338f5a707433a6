//! `agent`: who may call, and their keys.
//!
//! With a key, the server is asked. Without one there may be no agent yet that could ask it: then,
//! and with `--direct`, whoever has the database's URL goes straight to the database ([`direct`]).

mod direct;

use std::path::Path;
use std::process::ExitCode;

use orchestrator_engine::config::{Database, Env, Problems};
use orchestrator_engine::problem::nearest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{DATA_DIR, path};
use crate::failure::Failure;
use crate::output::{Format, Ids, facts, items, say, table, text};
use crate::session::{Session, no_such};
use crate::times::{Zone, stamp, time_in};
use direct::Direct;

/// Among how many agents a mistyped name is looked for.
const LOOK_AMONG: usize = 1_000;

/// What can be done with agents.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make an agent and its first key, which is shown this once.
    #[command(after_help = "\
Scopes: tasks:read, tasks:write, runs:read, runs:write, events:publish, events:read, agents:admin,
audit:read, admin (everything), tool:SERVER and secret:NAME (what tools ask for).

The key alone goes to standard output, so that it can be kept: KEY=$(orchestrator agent create …).
Where no key is known yet, DATABASE_URL (or .orchestrator/env) leads to the database itself.

Examples:
  orchestrator agent create ops --scope admin
  orchestrator agent create claude --scope tasks:read --scope tasks:write --scope runs:read
  DATABASE_URL=postgres://… orchestrator agent create admin --scope admin")]
    Create {
        /// Letters, digits, -, _ and dots.
        name: String,
        /// What it may do. Repeatable.
        #[arg(long = "scope", short, value_name = "SCOPE", required = true, value_delimiter = ',')]
        scopes: Vec<String>,
        /// Make no key yet.
        #[arg(long)]
        no_key: bool,
        #[command(flatten)]
        way: Way,
    },
    /// List agents, the newest first.
    List {
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = crate::client::limit)]
        limit: usize,
        #[command(flatten)]
        way: Way,
    },
    /// Refuse an agent from now on. Its tasks go on.
    Disable {
        /// Its name or id.
        agent: String,
        #[command(flatten)]
        way: Way,
    },
    /// Let a disabled agent call again.
    Enable {
        /// Its name or id.
        agent: String,
        #[command(flatten)]
        way: Way,
    },
    /// Keys: how agents prove who they are.
    #[command(subcommand)]
    Key(KeyVerb),
}

/// What can be done with keys.
#[derive(Debug, clap::Subcommand)]
pub enum KeyVerb {
    /// Make a key for an agent. It alone goes to standard output, this once.
    Create {
        /// The agent's name or id.
        agent: String,
        #[command(flatten)]
        way: Way,
    },
    /// List an agent's keys, without their secrets.
    List {
        /// The agent's name or id.
        agent: String,
        #[command(flatten)]
        way: Way,
    },
    /// Refuse a key from now on, and every token made from it.
    Revoke {
        /// The agent's name or id.
        agent: String,
        /// The key's id, part of it, or how the key begins.
        key: String,
        #[command(flatten)]
        way: Way,
    },
}

/// Which way is taken.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Way {
    /// Go straight to the database, also where a key is known.
    #[arg(long)]
    direct: bool,
}

/// The server or the database.
enum Door<'a> {
    Server(&'a Session),
    Database(Direct),
}

impl Door<'_> {
    /// The same failure; that there is no such agent, with the name that may have been meant.
    async fn with_near<T>(&self, agent: &str, answer: Result<T, Failure>) -> Result<T, Failure> {
        let missing = match answer {
            Err(Failure::Refused(problem)) if problem.status == 404 => problem,
            other => return other,
        };
        let agents = self.list(LOOK_AMONG).await?;
        let names = items(&agents).iter().filter_map(|agent| agent.get("name")?.as_str());
        let hint = "`orchestrator agent list` shows them";
        Err(no_such("agent", agent, nearest(agent, names), hint, missing))
    }

    async fn open<'a>(way: Way, session: &'a Session, env: &Env) -> Result<Door<'a>, Failure> {
        if session.client.has_key() && !way.direct {
            return Ok(Door::Server(session));
        }
        match database(env)? {
            Some(database) => Ok(Door::Database(Direct::open(&database).await?)),
            None if way.direct => Err(Failure::Usage("--direct needs DATABASE_URL".to_owned())),
            // The server says what is missing.
            None => Ok(Door::Server(session)),
        }
    }

    async fn create(&self, name: &str, scopes: &[String]) -> Result<Value, Failure> {
        match self {
            Self::Database(direct) => direct.create(name, scopes).await,
            Self::Server(session) => {
                let body = json!({"name": name, "scopes": scopes});
                session.client.post("agents", &body).await
            }
        }
    }

    async fn list(&self, limit: usize) -> Result<Value, Failure> {
        match self {
            Self::Database(direct) => direct.list(limit).await,
            Self::Server(session) => session.client.list("agents", &[], limit).await,
        }
    }

    async fn set_disabled(&self, agent: &str, disabled: bool) -> Result<Value, Failure> {
        match self {
            Self::Database(direct) => direct.set_disabled(agent, disabled).await,
            Self::Server(session) => {
                let body = json!({"disabled": disabled});
                let path = path(&["agents", agent])?;
                session.client.send(Method::PATCH, &path, &[], Some(&body)).await
            }
        }
    }

    async fn create_key(&self, agent: &str) -> Result<Value, Failure> {
        match self {
            Self::Database(direct) => direct.create_key(agent).await,
            Self::Server(session) => {
                session.client.post(&path(&["agents", agent, "keys"])?, &json!({})).await
            }
        }
    }

    async fn keys(&self, agent: &str) -> Result<Value, Failure> {
        match self {
            Self::Database(direct) => direct.keys(agent).await,
            Self::Server(session) => session.client.get(&path(&["agents", agent, "keys"])?).await,
        }
    }

    async fn revoke(&self, agent: &str, key: &str) -> Result<(), Failure> {
        match self {
            Self::Database(direct) => direct.revoke(agent, key).await,
            Self::Server(session) => {
                let path = path(&["agents", agent, "keys", key])?;
                session.client.send(Method::DELETE, &path, &[], None).await.map(drop)
            }
        }
    }
}

/// The database that the environment, or a `.orchestrator/` here, names.
pub fn database(env: &Env) -> Result<Option<Database>, Failure> {
    let is_set = env.raw("DATABASE_URL").or(env.raw("DATABASE_URL_FILE")).is_some();
    let mut problems = Problems::default();
    let database = if is_set {
        Database::read(env, &mut problems)
    } else {
        let Some(url) = of_dev("DATABASE_URL") else { return Ok(None) };
        Database::read(&Env::from_pairs([("DATABASE_URL", url)]), &mut problems)
    };
    if problems.is_empty() { Ok(Some(database)) } else { Err(Failure::Usage(problems.to_string())) }
}

/// What `orchestrator dev` wrote into its `env` file under that name.
pub fn of_dev(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new(DATA_DIR).join("env")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(line.to_owned())
}

/// Does it.
pub async fn run(verb: Verb, session: &Session, env: &Env) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Create { name, scopes, no_key, way } => {
            let door = Door::open(way, session, env).await?;
            create(&name, &scopes, no_key, &door, session).await
        }
        Verb::List { limit, way } => {
            let answer = Door::open(way, session, env).await?.list(limit).await?;
            let now = Session::now();
            session.show(&answer, |answer| {
                let rows = items(answer).iter().map(|agent| {
                    let status =
                        if time_in(agent, "disabled_at").is_some() { "disabled" } else { "active" };
                    vec![
                        text(agent, "name"),
                        status.to_owned(),
                        scopes_of(agent),
                        stamp(time_in(agent, "created_at"), Zone::Here, now),
                        text(agent, "id"),
                    ]
                });
                table(&["NAME", "STATUS", "SCOPES", "MADE", "ID"], rows)
            })
        }
        Verb::Disable { agent, way } => set(&agent, true, way, session, env).await,
        Verb::Enable { agent, way } => set(&agent, false, way, session, env).await,
        Verb::Key(verb) => key(verb, session, env).await,
    }
}

fn scopes_of(agent: &Value) -> String {
    let scopes = agent.get("scopes").map_or(&[][..], items);
    scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

async fn create(
    name: &str,
    scopes: &[String],
    no_key: bool,
    door: &Door<'_>,
    session: &Session,
) -> Result<ExitCode, Failure> {
    let mut agent = door.create(name, scopes).await?;
    if session.format == Format::Table {
        eprintln!("The agent {name} is made; it may: {}.", scopes_of(&agent));
    }
    if !no_key {
        let key = door.create_key(name).await.map_err(|failure| {
            Failure::failed(format!(
                "the agent {name} is made, but not its key: {failure}\n  try again with \
                 `orchestrator agent key create {name}`"
            ))
        })?;
        if session.format == Format::Table {
            return Ok(show_key(&key));
        }
        agent["key"] = key["key"].clone();
    }
    session.show(&agent, |agent| facts(&[("id", text(agent, "id"))]))
}

/// The key to standard output, alone, and the words about it beside.
fn show_key(key: &Value) -> ExitCode {
    eprintln!(
        "This is its key, shown this once. Where it calls from: ORCHESTRATOR_API_KEY=…, or the header \
         Authorization: Bearer …"
    );
    say(&format!("{}\n", text(key, "key")));
    ExitCode::SUCCESS
}

async fn set(
    agent: &str,
    disabled: bool,
    way: Way,
    session: &Session,
    env: &Env,
) -> Result<ExitCode, Failure> {
    let door = Door::open(way, session, env).await?;
    let answer = door.with_near(agent, door.set_disabled(agent, disabled).await).await?;
    session.show(&answer, |agent| {
        let status = if disabled { "disabled; its tasks go on" } else { "active" };
        facts(&[("agent", text(agent, "name")), ("status", status.to_owned())])
    })
}

async fn key(verb: KeyVerb, session: &Session, env: &Env) -> Result<ExitCode, Failure> {
    match verb {
        KeyVerb::Create { agent, way } => {
            let door = Door::open(way, session, env).await?;
            let key = door.with_near(&agent, door.create_key(&agent).await).await?;
            match session.format {
                Format::Table => Ok(show_key(&key)),
                _ => session.show(&key, |_| String::new()),
            }
        }
        KeyVerb::List { agent, way } => {
            let door = Door::open(way, session, env).await?;
            let answer = door.with_near(&agent, door.keys(&agent).await).await?;
            let now = Session::now();
            session.show(&answer, |answer| {
                let keys = items(answer);
                let ids = Ids::among(keys.iter().filter_map(|key| key.get("id")?.as_str()));
                let rows = keys.iter().map(|key| {
                    let status =
                        if time_in(key, "revoked_at").is_some() { "revoked" } else { "active" };
                    vec![
                        ids.show(&text(key, "id")),
                        format!("{}…", text(key, "hint")),
                        status.to_owned(),
                        stamp(time_in(key, "created_at"), Zone::Here, now),
                    ]
                });
                table(&["ID", "BEGINS", "STATUS", "MADE"], rows)
            })
        }
        KeyVerb::Revoke { agent, key, way } => {
            let door = Door::open(way, session, env).await?;
            let keys = door.with_near(&agent, door.keys(&agent).await).await?;
            let id = named_key(items(&keys), &key)?;
            door.revoke(&agent, &id).await?;
            let answer = json!({"agent": agent, "key_id": id, "revoked": true});
            session.show(&answer, |_| format!("the key {id} of {agent} is refused from now on\n"))
        }
    }
}

/// The id of the one key that somebody means: by its id, an end of it, or how the key begins.
fn named_key(keys: &[Value], given: &str) -> Result<String, Failure> {
    let is_meant = |key: &&Value| {
        let (id, hint) = (text(key, "id"), text(key, "hint"));
        id == given
            || (given.len() >= 4 && (id.ends_with(given) || id.starts_with(given)))
            || (given.len() > hint.len() / 2 && given.starts_with(&hint) || hint == given)
    };
    let mut meant = keys.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(key), None) => Ok(text(key, "id")),
        (None, _) => Err(Failure::failed(format!(
            "the agent has no key {given:?}; `orchestrator agent key list AGENT` shows them"
        ))),
        _ => Err(Failure::Usage(format!("{given:?} stands for several keys: write the whole id"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_id_an_end_of_it_or_its_beginning() {
        let keys = [
            json!({"id": "0197a000-0000-7000-8000-0000aaaaaaaa", "hint": "orc_AbCd"}),
            json!({"id": "0197a000-0000-7000-8000-0000bbbbbbbb", "hint": "orc_EfGh"}),
        ];
        let second = text(&keys[1], "id");

        for given in [&second[..], "bbbbbbbb", "orc_EfGh", "orc_EfGhIjKlMnOp"] {
            assert_eq!(named_key(&keys, given).unwrap(), second, "{given}");
        }
        for given in ["0197a000", "orc_", "zzzz"] {
            assert!(named_key(&keys, given).is_err(), "{given}");
        }
    }
}
