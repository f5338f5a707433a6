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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_shell_is_told_every_verb() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            let command = crate::Cli::command();
            clap_complete::generate(shell, &mut command.clone(), "orchestrator", &mut script);

            let script = String::from_utf8(script).unwrap();
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                assert!(script.contains(verb.get_name()), "{shell}: {}", verb.get_name());
            }
        }
    }
}
