//! `man`: writes the manual pages, for those who make packages.

use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use orchestrator_boot::Service;
use orchestrator_engine::config;

use crate::failure::Failure;

/// `orchestrator man target/man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder that is there; `man1` and `man8` are made in it.
    folder: PathBuf,
}

/// Writes `man1` with a page for each verb of `command`, and `man8` with one for each service.
pub fn run(args: &Args, command: Command) -> Result<(), Failure> {
    write(&args.folder, command).map_err(Failure::while_doing("write manual pages"))
}

fn write(folder: &Path, command: Command) -> std::io::Result<()> {
    let [verbs, services] = ["man1", "man8"].map(|section| folder.join(section));
    std::fs::create_dir_all(&verbs)?;
    std::fs::create_dir_all(&services)?;
    clap_mangen::generate_to(command, &verbs)?;
    for service in [Service::Api, Service::Scheduler, Service::Worker] {
        Man::new(described(service)).section("8").generate_to(&services)?;
    }
    Ok(())
}

/// A service as a command: what it understands is in `boot::args`.
fn described(service: Service) -> Command {
    let about = match service {
        Service::Api => "Serves REST, the console and MCP on API_PORT",
        Service::Scheduler => "Fires due schedules, consumes events, keeps house",
        Service::Worker => "Leases due work, runs pipelines, records results",
        Service::Cli => "The command line",
    };
    Command::new(service.binary())
        .version(orchestrator_engine::VERSION)
        .about(about)
        .long_about(format!(
            "{about}. Serves until SIGTERM or SIGINT, and then gives itself 40 s to end. Exit codes: 0 ended \
             as asked, 1 failed, 2 wrong settings or arguments."
        ))
        .disable_help_subcommand(true)
        .subcommand(
            Command::new("healthcheck").about("Asks its own health port; exit code 0 when ready, else 1"),
        )
        .after_long_help(config::help(service))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The page of each verb, and what it must say.
    fn pages(command: &Command, name: &str) -> Vec<(String, String)> {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let mut pages = vec![(format!("{name}.1"), about)];
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            pages.extend(pages_of(verb, name));
        }
        pages
    }

    fn pages_of(verb: &Command, above: &str) -> Vec<(String, String)> {
        pages(verb, &format!("{above}-{}", verb.get_name()))
    }

    #[test]
    fn there_is_a_page_for_every_verb_and_every_service() {
        let folder = tempfile::tempdir().unwrap();
        let command = crate::Cli::command();

        write(folder.path(), command.clone()).unwrap();

        let expected = pages(&command, "orchestrator");
        assert!(expected.len() > 30, "{expected:?}");
        for (page, about) in expected {
            let text = std::fs::read_to_string(folder.path().join("man1").join(&page));
            let text = text.unwrap_or_else(|error| panic!("{page}: {error}"));
            // In a manual page a minus is written with a backslash.
            let first = about.split_whitespace().next().unwrap_or_default();
            assert!(text.contains(".SH NAME") && text.contains(first), "{page}: {text}");
        }
        let index = std::fs::read_to_string(folder.path().join("man1/orchestrator.1")).unwrap();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            assert!(index.contains(verb.get_name()), "{}", verb.get_name());
        }
        for service in ["api", "scheduler", "worker"] {
            let page = folder.path().join(format!("man8/orchestrator-{service}.8"));
            let text = std::fs::read_to_string(page).unwrap();
            assert!(text.contains("healthcheck") && text.contains("DATABASE_URL"), "{text}");
        }
    }
}
