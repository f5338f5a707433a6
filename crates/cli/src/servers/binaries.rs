//! Where the server programs are. Packages hide Postgres's outside `PATH`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

/// A folder with `initdb` and `postgres` of one major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresPrograms {
    /// The folder.
    pub folder: PathBuf,
    /// 15, 17, …
    pub major: u32,
}

/// Folders of folders of versions: Debian's, Homebrew's on Apple silicon and on Intel, Fedora's.
const VERSIONED: &[(&str, &str)] = &[
    ("/usr/lib/postgresql", ""),
    ("/opt/homebrew/opt", "postgresql"),
    ("/usr/local/opt", "postgresql"),
    ("/usr", "pgsql-"),
];

/// The Postgres to use: of `major` when the data exist already, else the first in `search_path` or
/// the newest installed.
///
/// # Errors
///
/// When there is none, with what to install.
pub fn postgres(search_path: &str, major: Option<u32>) -> Result<PostgresPrograms, Failure> {
    let mut installed: Vec<_> = VERSIONED
        .iter()
        .flat_map(|(parent, prefix)| subfolders(Path::new(parent), prefix))
        .filter_map(|version| programs_in(&version.join("bin")))
        .collect();
    installed.sort_by_key(|programs| std::cmp::Reverse(programs.major));
    let in_path = std::env::split_paths(search_path).filter_map(|folder| programs_in(&folder));
    let mut all = in_path.chain(installed);
    match major {
        None => all.next().ok_or_else(|| missing("PostgreSQL (initdb, postgres)")),
        Some(major) => all.find(|programs| programs.major == major).ok_or_else(|| {
            Failure::failed(format!(
                "the data were written by PostgreSQL {major}, which is not installed; install it, \
                 or give another --data-dir"
            ))
        }),
    }
}

/// `redis-server`, or `valkey-server`, which is the same by another name.
///
/// # Errors
///
/// When there is neither, with what to install.
pub fn redis(search_path: &str) -> Result<PathBuf, Failure> {
    let homebrew = ["/opt/homebrew/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(search_path)
        .chain(homebrew)
        .flat_map(|folder| ["redis-server", "valkey-server"].map(|name| folder.join(name)))
        .find(|program| program.is_file())
        .ok_or_else(|| missing("Redis (redis-server)"))
}

fn missing(what: &str) -> Failure {
    Failure::failed(format!(
        "{what} is not installed; run ops/scripts/install-deps.sh, or set DATABASE_URL and \
         REDIS_URL to servers you have"
    ))
}

fn subfolders(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

fn programs_in(folder: &Path) -> Option<PostgresPrograms> {
    // Debian has wrappers and links in PATH; the real folder has what `initdb` looks for beside it.
    let postgres = folder.join("postgres").canonicalize().ok()?;
    let folder = postgres.parent()?.to_path_buf();
    if !folder.join("initdb").is_file() {
        return None;
    }
    let answer = Command::new(postgres).arg("--version").output().ok()?;
    let major = major_of(&String::from_utf8_lossy(&answer.stdout))?;
    Some(PostgresPrograms { folder, major })
}

/// 15 of `postgres (PostgreSQL) 15.4 (Debian 15.4-1)`; betas are written `18beta1`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(2)?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_program_says() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.4 (Debian 15.4-1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_of("postgres"), None);
    }
}
