//! `orchestrator`: the user's command line, and (`dev`) the whole system in one process.
//!
//! A file per verb. A verb that talks to a server does so through [`client::Client`] and shows what
//! came back through [`output`]; it returns [`failure::Failure`], which knows its exit code: 0 done,
//! 1 refused or failed, 2 usage.
//!
//! To add a verb: a variant of `Verb` with its own `Args` struct in a file of its name, and an arm
//! in `perform`.

mod agent;
mod apply;
mod calendar;
pub mod client;
mod completions;
mod dev;
mod doctor;
mod event;
pub mod failure;
mod man;
mod migrate;
pub mod output;
mod run;
mod schedule;
mod secret_file;
pub mod servers;
mod session;
mod task;
mod times;
mod tool;
mod with_servers;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use orchestrator_boot::Service;
use orchestrator_engine::config::{self, Env, Problems};

use failure::Failure;
use output::Format;
use session::Session;

/// Tasks for AI agents that run when they should.
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version, propagate_version = true)]
pub struct Cli {
    /// How answers are shown.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,

    #[command(subcommand)]
    verb: Verb,
}

/// What can be said.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Create and change tasks as files declare them.
    Apply(apply::Args),
    /// Tasks: what is to be done, and when.
    #[command(subcommand)]
    Task(task::Verb),
    /// Runs: what was, is and will be done.
    #[command(subcommand)]
    Run(run::Verb),
    /// Events: named messages that tasks wait for.
    #[command(subcommand)]
    Event(event::Verb),
    /// Schedules: when something would happen.
    #[command(subcommand)]
    Schedule(schedule::Verb),
    /// Calendars: days on which tasks rest, and planned runs in a calendar program.
    #[command(subcommand)]
    Calendar(calendar::Verb),
    /// Tools: what steps can use.
    #[command(subcommand)]
    Tool(tool::Verb),
    /// Agents: who may call, and their keys.
    #[command(subcommand)]
    Agent(agent::Verb),
    /// Look whether everything is as it should be, and say what to do.
    Doctor(doctor::Args),
    /// Run the whole system here, in one process, on private servers.
    Dev(dev::Args),
    /// Start private Postgres and Redis servers, run a command with `DATABASE_URL` and `REDIS_URL`,
    /// stop them.
    Servers(with_servers::Args),
    /// Bring the schema of `DATABASE_URL` up to date.
    Migrate,
    /// Print a script that makes a shell complete our commands.
    Completions(completions::Args),
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man(man::Args),
}

impl Verb {
    /// Refuses names in the environment that only look like settings, for the verbs that read some.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`], with the nearest setting.
    fn check_names(&self, env: &Env) -> Result<(), Failure> {
        let mut problems = Problems::default();
        // `dev` reads all settings and tells of all mistakes in them at once; the others need none.
        if !matches!(self, Self::Dev(_) | Self::Servers(_) | Self::Completions(_) | Self::Man(_)) {
            env.refuse_unknown(&mut problems);
        }
        if problems.is_empty() { Ok(()) } else { Err(Failure::Usage(problems.to_string())) }
    }
}

/// Runs the command line of this process to its exit code.
#[must_use]
pub fn run() -> ExitCode {
    let command = described();
    // clap prints and exits by itself: 0 for --help and --version, 2 for what it does not understand.
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    orchestrator_boot::install_crypto();
    match perform(cli, Env::from_process()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("orchestrator: {failure}");
            failure.exit_code()
        }
    }
}

/// The command line with its settings.
fn described() -> clap::Command {
    Cli::command().after_long_help(config::help(Service::Cli))
}

fn perform(cli: Cli, env: Env) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::while_doing("start the runtime"))?;
    let format = cli.output;
    cli.verb.check_names(&env)?;
    let open = || Session::open(&env, format);
    let ended = match cli.verb {
        Verb::Apply(args) => runtime.block_on(apply::run(args, &open()?)),
        Verb::Task(verb) => runtime.block_on(task::run(verb, &open()?)),
        Verb::Run(verb) => runtime.block_on(run::run(verb, &open()?)),
        Verb::Event(verb) => runtime.block_on(event::run(verb, &open()?)),
        Verb::Schedule(verb) => runtime.block_on(schedule::run(verb, &env, format)),
        Verb::Calendar(verb) => runtime.block_on(calendar::run(verb, &open()?)),
        Verb::Tool(verb) => runtime.block_on(tool::run(verb, &open()?)),
        Verb::Agent(verb) => runtime.block_on(agent::run(verb, &open()?, &env)),
        Verb::Doctor(args) => runtime.block_on(doctor::run(&args, &open()?, &env)),
        Verb::Dev(args) => runtime.block_on(dev::run(args, env)),
        Verb::Servers(args) => runtime.block_on(with_servers::run(args, &env)),
        Verb::Migrate => runtime.block_on(migrate::run(&env)),
        Verb::Completions(args) => {
            completions::run(&args, &mut Cli::command());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Man(args) => man::run(&args, described()).map(|()| ExitCode::SUCCESS),
    };
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_hangs_together() {
        Cli::command().debug_assert();
    }
}
