//! `calendar`: days on which tasks rest, and planned runs in a calendar program.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::NaiveDate;
use orchestrator_engine::problem::nearest;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::client::path;
use crate::failure::Failure;
use crate::output::{Format, Ids, facts, items, say, short, table, text};
use crate::session::{Session, no_such};
use crate::times::{Zone, stamp, time_in};

/// Among how many calendars a mistyped name is looked for.
const LOOK_AMONG: usize = 1_000;

/// What can be done with calendars.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List calendars, the newest first.
    List {
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = crate::client::limit)]
        limit: usize,
    },
    /// Show a calendar and the tasks that name it.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// Make a calendar from an iCalendar file, or replace it.
    #[command(after_help = "\
Examples:
  orchestrator calendar put de-holidays feiertage.ics
  curl -s https://example.org/holidays.ics | orchestrator calendar put holidays -

Every date that an event covers is excluded for tasks that say exclude: [\"calendar:NAME\"].")]
    Put {
        /// Its name.
        name: String,
        /// The file; - is standard input.
        file: PathBuf,
        #[command(flatten)]
        of: Of,
    },
    /// List the dates of a calendar.
    #[command(after_help = "\
Examples:
  orchestrator calendar dates de-holidays --from 2027-01-01 --to 2027-12-31")]
    Dates {
        /// Its name.
        name: String,
        /// Not before this date. Default: today.
        #[arg(long)]
        from: Option<NaiveDate>,
        /// Not after this date.
        #[arg(long)]
        to: Option<NaiveDate>,
        #[command(flatten)]
        of: Of,
    },
    /// Delete a calendar that no task names.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// Planned runs in a calendar program: the URL to subscribe to.
    #[command(subcommand)]
    Feed(FeedVerb),
}

/// Whose calendar.
#[derive(Debug, clap::Args)]
pub struct Of {
    /// Another agent's, where an admin asks.
    #[arg(long)]
    agent: Option<String>,
}

/// What can be done with feeds.
#[derive(Debug, clap::Subcommand)]
pub enum FeedVerb {
    /// Make a URL that shows your planned runs to whoever knows it. It alone goes to standard output,
    /// this once.
    #[command(after_help = "\
Examples:
  orchestrator calendar feed create
  orchestrator calendar feed create --task morning-briefing")]
    Create {
        /// The URL of one task's feed. The token opens the others as well.
        #[arg(long)]
        task: Option<String>,
    },
    /// List the tokens of such URLs, without their secrets.
    List,
    /// Refuse a token from now on.
    Revoke {
        /// Its id, part of it, or how the token begins.
        token: String,
    },
}

/// Does it.
pub async fn run(verb: Verb, session: &Session) -> Result<ExitCode, Failure> {
    match verb {
        Verb::List { limit } => {
            let answer = session.client.list("calendars", &[], limit).await?;
            session.show(&answer, drawn_list)
        }
        Verb::Show { name, of } => {
            let answer = ask(session, Method::GET, &name, "", &of, &[]).await?;
            session.show(&answer, drawn)
        }
        Verb::Put { name, file, of } => put(&name, &file, &of, session).await,
        Verb::Dates { name, from, to, of } => {
            let from = from.unwrap_or(Session::now().date_naive()).to_string();
            let to = to.map(|to| to.to_string());
            let mut query = vec![("from", &from[..])];
            query.extend(to.as_deref().map(|to| ("to", to)));
            let answer = ask(session, Method::GET, &name, "dates", &of, &query).await?;
            session.show(&answer, |answer| {
                let rows = items(answer).iter().map(|row| {
                    let date = text(row, "date");
                    let day = date.parse::<NaiveDate>().map(|date| date.format("%a").to_string());
                    vec![date, day.unwrap_or_default(), short(&text(row, "name"), 60)]
                });
                table(&["DATE", "", "NAME"], rows)
            })
        }
        Verb::Delete { name, of } => {
            let answer = ask(session, Method::DELETE, &name, "", &of, &[]).await?;
            session.show(&answer, |_| format!("calendar {name} is deleted\n"))
        }
        Verb::Feed(verb) => feed(verb, session).await,
    }
}

/// Asks about the calendar `name`, or what is at `part` of it.
async fn ask(
    session: &Session,
    method: Method,
    name: &str,
    part: &str,
    of: &Of,
    query: &[(&str, &str)],
) -> Result<Value, Failure> {
    let mut place = path(&["calendars", name])?;
    if !part.is_empty() {
        place = format!("{place}/{part}");
    }
    let mut query = query.to_vec();
    query.extend(of.agent.as_deref().map(|agent| ("agent", agent)));
    match session.client.send(method, &place, &query, None).await {
        Err(Failure::Refused(missing)) if missing.status == 404 => {
            let calendars = session.client.list("calendars", &[], LOOK_AMONG).await?;
            let names = items(&calendars).iter().filter_map(|one| one.get("name")?.as_str());
            let hint = "`orchestrator calendar list` shows them";
            Err(no_such("calendar", name, nearest(name, names), hint, missing))
        }
        answer => answer,
    }
}

async fn put(name: &str, file: &Path, of: &Of, session: &Session) -> Result<ExitCode, Failure> {
    let ics = if file == Path::new("-") {
        let mut read = Vec::new();
        let done = std::io::stdin().lock().read_to_end(&mut read);
        done.map_err(Failure::while_doing("read standard input"))?;
        read
    } else {
        let doing = format!("read {}", file.display());
        std::fs::read(file).map_err(Failure::while_doing(doing))?
    };
    let query: Vec<_> = of.agent.iter().map(|agent| ("agent", agent)).collect();
    let request = session
        .client
        .request(Method::PUT, &path(&["calendars", name])?)?
        .query(&query)
        .header(CONTENT_TYPE, "text/calendar; charset=utf-8")
        .body(ics);
    let answer = session.client.answer(request).await?;
    session.show(&answer, drawn)
}

fn drawn_list(answer: &Value) -> String {
    let now = Session::now();
    let rows = items(answer).iter().map(|row| {
        vec![
            text(row, "name"),
            text(row, "dates"),
            text(row, "first"),
            text(row, "last"),
            row.get("used_by").map_or(0, |tasks| items(tasks).len()).to_string(),
            stamp(time_in(row, "updated_at"), Zone::Here, now),
            text(row, "created_by"),
        ]
    });
    table(&["NAME", "DATES", "FIRST", "LAST", "TASKS", "CHANGED", "OWNER"], rows)
}

fn drawn(calendar: &Value) -> String {
    let now = Session::now();
    let at = |field| stamp(time_in(calendar, field), Zone::Here, now);
    let tasks = calendar.get("used_by").map_or(&[][..], items);
    let names: Vec<_> = tasks
        .iter()
        .map(|task| {
            task.get("name").and_then(Value::as_str).map_or(text(task, "id"), str::to_owned)
        })
        .collect();
    facts(&[
        ("name", text(calendar, "name")),
        ("owner", text(calendar, "created_by")),
        ("version", text(calendar, "version")),
        ("events", text(calendar, "events")),
        ("dates", text(calendar, "dates")),
        ("first", text(calendar, "first")),
        ("last", text(calendar, "last")),
        ("tasks", names.join(", ")),
        ("made", at("created_at")),
        ("changed", at("updated_at")),
    ])
}

async fn feed(verb: FeedVerb, session: &Session) -> Result<ExitCode, Failure> {
    match verb {
        FeedVerb::Create { task } => create_feed(task.as_deref(), session).await,
        FeedVerb::List => {
            let answer = session.client.get("calendar/token").await?;
            let now = Session::now();
            session.show(&answer, |answer| {
                let tokens = items(answer);
                let ids = Ids::among(tokens.iter().filter_map(|one| one.get("id")?.as_str()));
                let rows = tokens.iter().map(|token| {
                    vec![
                        ids.show(&text(token, "id")),
                        text(token, "hint") + "…",
                        stamp(time_in(token, "created_at"), Zone::Here, now),
                    ]
                });
                table(&["ID", "TOKEN", "MADE"], rows)
            })
        }
        FeedVerb::Revoke { token } => {
            let known = session.client.get("calendar/token").await?;
            let id = one_token(items(&known), &token)?;
            let place = path(&["calendar", "token", &id])?;
            let answer = session.client.send(Method::DELETE, &place, &[], None).await?;
            session.show(&answer, |_| format!("token {id} is refused from now on\n"))
        }
    }
}

async fn create_feed(task: Option<&str>, session: &Session) -> Result<ExitCode, Failure> {
    // A task that is not there is told before a token is made.
    let id = match task {
        None => None,
        Some(reference) => Some(text(&session.task(reference).await?, "id")),
    };
    let mut made = session.client.post("calendar/token", &json!({})).await?;
    let place = match id {
        None => "calendar.ics".to_owned(),
        Some(id) => format!("tasks/{id}.ics"),
    };
    let mut url =
        session.client.base().join(&place).map_err(Failure::while_doing("make the URL"))?;
    url.query_pairs_mut().append_pair("token", &text(&made, "token"));
    made["url"] = json!(url.as_str());
    if session.format == Format::Table {
        say(&format!("{url}\n"));
        eprintln!(
            "Whoever knows this URL sees your planned runs. `orchestrator calendar feed revoke {}` \
             closes it.",
            text(&made, "id")
        );
        return Ok(ExitCode::SUCCESS);
    }
    session.show(&made, |_| String::new())
}

/// The id of the one token that `named` is the id of, part of it, or the beginning of.
fn one_token(tokens: &[Value], named: &str) -> Result<String, Failure> {
    let found: Vec<String> = tokens
        .iter()
        .filter(|token| {
            let (id, hint) = (text(token, "id"), text(token, "hint"));
            !named.is_empty()
                && (id.starts_with(named) || id.ends_with(named) || named.starts_with(&hint))
        })
        .map(|token| text(token, "id"))
        .collect();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Failure::failed(format!(
            "no feed token {named}; `orchestrator calendar feed list` shows them"
        ))),
        _ => Err(Failure::Usage(format!("{named:?} fits several tokens: write more of it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_by_its_id_its_end_or_its_beginning() {
        let tokens = [
            json!({"id": "0197a000-aaaa", "hint": "ofd_abcd"}),
            json!({"id": "0197a000-bbbb", "hint": "ofd_wxyz"}),
        ];

        assert_eq!(one_token(&tokens, "bbbb").unwrap(), "0197a000-bbbb");
        assert_eq!(one_token(&tokens, "ofd_abcdefgh").unwrap(), "0197a000-aaaa");
        assert!(matches!(one_token(&tokens, "0197"), Err(Failure::Usage(_))));
        assert!(matches!(one_token(&tokens, "ofd_abc"), Err(Failure::Failed(_))));
        assert!(one_token(&tokens, "").is_err());
    }
}
