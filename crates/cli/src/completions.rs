//! `completions`: prints a script for a shell.

use clap_complete::Shell;

/// `orchestrator completions bash > ~/.local/share/bash-completion/completions/orchestrator`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints it.
pub fn run(args: &Args, command: &mut clap::Command) {
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, command, name, &mut std::io::stdout());
}
