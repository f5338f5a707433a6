//! `task`: what is declared, and what can be done to it.

mod act;
mod look;
mod times;

use std::process::ExitCode;

use orchestrator_engine::task::{ScheduleKind, TaskStatus};

use crate::failure::Failure;
use crate::session::Session;

pub use look::schedule_of;

/// What can be done with tasks. A task is named by its name, its id, or part of its id.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List tasks, the newest first. Canceled ones are left out.
    #[command(after_help = "\
Examples:
  orchestrator task list
  orchestrator task list --status paused
  orchestrator task list -q briefing --output json")]
    List(ListArgs),
    /// Show a task.
    #[command(after_help = "\
Examples:
  orchestrator task show morning-briefing
  orchestrator task show morning-briefing --output yaml > morning-briefing.yaml")]
    Show {
        /// Its name or id.
        task: String,
    },
    /// Run a task now, beside its schedule.
    #[command(after_help = "\
Examples:
  orchestrator task run morning-briefing
  orchestrator task run morning-briefing --watch
  orchestrator task run morning-briefing --param city=Chisinau --param 'days=[1,2]'")]
    Run(RunArgs),
    /// Stop following a task's schedule until it is resumed.
    Pause {
        /// Its name or id.
        task: String,
        /// Why, for whoever finds it paused.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Follow a paused task's schedule again. Its policy `catch_up` decides about the times that have
    /// passed meanwhile.
    Resume {
        /// Its name or id.
        task: String,
        /// Make up for nothing, whatever the policy says.
        #[arg(long)]
        skip_missed: bool,
    },
    /// Postpone a task's next run.
    #[command(after_help = "\
Examples:
  orchestrator task snooze morning-briefing 2h
  orchestrator task snooze morning-briefing --until '2026-12-24 10:00'

Times without an offset are read on the wall clock of the task.")]
    Snooze {
        /// Its name or id.
        task: String,
        /// How much later than planned: 30m, 2h, 1d.
        #[arg(value_name = "LENGTH", required_unless_present = "until", conflicts_with = "until")]
        by: Option<String>,
        /// Or until when.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Cancel a task for good. Its history stays, and its name is free again.
    Cancel {
        /// Its name or id.
        task: String,
    },
    /// Explain why a task did, did not, will or will not run at a time.
    #[command(after_help = "\
Examples:
  orchestrator task explain morning-briefing
  orchestrator task explain morning-briefing 8:30
  orchestrator task explain morning-briefing '2026-03-29 02:30'
  orchestrator task explain morning-briefing 2026-12-24T07:30:00Z

Times without an offset are read on the wall clock of the task.")]
    Explain {
        /// Its name or id.
        task: String,
        /// When; without it, the last time it was due.
        at: Option<String>,
    },
    /// Make runs for times that have passed without one.
    #[command(after_help = "\
Examples:
  orchestrator task backfill daily-report --from 7d --dry-run
  orchestrator task backfill daily-report --from 2026-11-01 --to 2026-11-08

A length is counted back from now. Times that ran, and those that are excluded, are left alone.")]
    Backfill(BackfillArgs),
    /// Show when a task will run next.
    Next {
        /// Its name or id.
        task: String,
        /// How many times to show.
        #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        count: u16,
    },
}

/// What is made up for.
#[derive(Debug, clap::Args)]
pub struct BackfillArgs {
    /// Its name or id.
    task: String,
    /// From when on: 2026-11-01, "2026-11-01 08:00", or how long ago: 7d.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: String,
    /// Up to when; without it, now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// Which tasks are listed.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those that are active, paused, completed or canceled.
    #[arg(long, value_parser = |text: &str| text.parse::<TaskStatus>())]
    status: Option<TaskStatus>,
    /// Canceled ones too.
    #[arg(long)]
    all: bool,
    /// Only those of this kind of schedule.
    #[arg(long, value_parser = |text: &str| text.parse::<ScheduleKind>())]
    kind: Option<ScheduleKind>,
    /// Only those of this agent.
    #[arg(long, value_name = "AGENT")]
    owner: Option<String>,
    /// Only those with this in their name or title.
    #[arg(long, short)]
    query: Option<String>,
    /// How many.
    #[arg(long, default_value_t = 50, value_parser = crate::client::limit)]
    limit: usize,
}

/// What is run.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Its name or id.
    task: String,
    /// A parameter over the task's own. The value is JSON where it can be read as that.
    #[arg(long = "param", short, value_name = "NAME=VALUE", value_parser = param)]
    params: Vec<(String, serde_json::Value)>,
    /// Show each step as it happens; exit with 1 when the run does not succeed.
    #[arg(long, short)]
    watch: bool,
}

/// A name and its value; the value is JSON where it can be read as that.
///
/// # Errors
///
/// A sentence that says what can be written.
pub fn param(text: &str) -> Result<(String, serde_json::Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.to_owned(), crate::event::json_or_text(value)))
        }
        _ => Err("must be of the form name=value".to_owned()),
    }
}

/// Does it.
pub async fn run(verb: Verb, session: &Session) -> Result<ExitCode, Failure> {
    match verb {
        Verb::List(args) => look::list(args, session).await,
        Verb::Show { task } => look::show(&task, session).await,
        Verb::Next { task, count } => look::next(&task, count, session).await,
        Verb::Run(args) => act::run(args, session).await,
        Verb::Pause { task, reason } => act::pause(&task, reason.as_deref(), session).await,
        Verb::Resume { task, skip_missed } => act::resume(&task, skip_missed, session).await,
        Verb::Cancel { task } => act::cancel(&task, session).await,
        Verb::Explain { task, at } => times::explain(&task, at.as_deref(), session).await,
        Verb::Backfill(args) => times::backfill(args, session).await,
        Verb::Snooze { task, by, until } => {
            act::snooze(&task, by.as_deref(), until.as_deref(), session).await
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_parameter_is_json_where_it_can_be_read_as_that() {
        assert_eq!(param("days=[1,2]"), Ok(("days".to_owned(), json!([1, 2]))));
        assert_eq!(param("city=Chisinau"), Ok(("city".to_owned(), json!("Chisinau"))));
        assert_eq!(param("sum=a=b"), Ok(("sum".to_owned(), json!("a=b"))));
        assert!(param("city").is_err());
    }
}
