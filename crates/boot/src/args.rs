//! The few words a service understands on its command line.

use orchestrator_engine::config::{self, Service};

/// What a service was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Nothing was said.
    Serve,
    /// `healthcheck`: ask the own health port.
    Healthcheck,
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// Reads the arguments after the program's name.
///
/// # Errors
///
/// A sentence that says what there is.
pub(crate) fn parse(args: &[String]) -> Result<Verb, String> {
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => Ok(Verb::Serve),
        ["healthcheck"] => Ok(Verb::Healthcheck),
        ["--help" | "-h" | "help"] => Ok(Verb::Help),
        ["--version" | "-V"] => Ok(Verb::Version),
        _ => Err(format!(
            "{:?} is not understood: say nothing to serve, or healthcheck, --help, --version",
            words.join(" ")
        )),
    }
}

/// What `--help` prints.
pub(crate) fn help(service: Service) -> String {
    let about = match service {
        Service::Api => "Serves REST on API_PORT.",
        Service::Scheduler => {
            "Fires due schedules, consumes events, lets in runs that wait, keeps house."
        }
        Service::Worker => "Leases due work, runs pipelines, records results.",
        Service::Cli => "The command line.",
    };
    format!(
        "{binary} {version}\n{about}\n\n\
         Usage:\n  {binary}              serve until SIGTERM or Ctrl-C\n  \
         {binary} healthcheck  ask the own health port; exit 0 when ready, else 1\n  \
         {binary} --help | --version\n\n\
         Exit codes: 0 ended as asked, 1 failed, 2 wrong settings or arguments.\n\n{settings}",
        binary = service.binary(),
        version = orchestrator_engine::VERSION,
        settings = config::help(service),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_words_mean_serve_and_unknown_ones_are_refused() {
        let parse =
            |words: &[&str]| parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>());

        assert_eq!(parse(&[]), Ok(Verb::Serve));
        assert_eq!(parse(&["healthcheck"]), Ok(Verb::Healthcheck));
        assert!(parse(&["--port", "1"]).is_err());
        assert!(parse(&["healthcheck", "now"]).is_err());
    }
}
