//! The folder that servers live in: whose it is, where it really is, and who uses it now.
//!
//! ```text
//! <data dir>/lock       held while we run; a second process is refused
//!            password   of both servers, mode 600
//!            servers/   the servers' own, mode 700, theirs; may be a link to /var/tmp (see below)
//! ```
//!
//! When we are root the servers run as somebody else, who may not be able to enter the data dir (a
//! checkout under a home with mode 700). Then `servers` is a link to a folder under `/var/tmp`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::account::Account;
use crate::failure::Failure;

/// Where servers go that cannot be in the data dir. Kept over a restart of the machine, unlike /tmp.
const ELSEWHERE: &str = "/var/tmp";

/// A data dir in use by this process.
#[derive(Debug)]
pub struct Place {
    /// The data dir, absolute.
    pub data_dir: PathBuf,
    /// The servers' folder, with no link in it.
    pub servers_dir: PathBuf,
    /// Whom the servers run as, when not as us.
    pub account: Option<Account>,
    /// The password of both servers.
    pub password: String,
    /// Closed, and so unlocked, when we end, however we end.
    lock: File,
}

impl Place {
    /// Takes `data_dir` for this process, making what is missing.
    ///
    /// # Errors
    ///
    /// When another process has it, or it cannot be made or written.
    pub fn take(data_dir: &Path) -> Result<Self, Failure> {
        let account = Account::to_become()?;
        // Others may pass through to `servers`, and read nothing: what is secret is mode 600.
        let mode = if account.is_some() { 0o711 } else { 0o700 };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(data_dir)
            .and_then(|()| data_dir.canonicalize())
            .map_err(Failure::while_doing(format!("make the folder {}", data_dir.display())))
            .and_then(|data_dir| Self::take_existing(data_dir, account))
    }

    fn take_existing(data_dir: PathBuf, account: Option<Account>) -> Result<Self, Failure> {
        let lock = lock(&data_dir)?;
        let servers_dir = servers_dir(&data_dir, account.as_ref())?;
        let password = password(&data_dir)?;
        Ok(Self { data_dir, servers_dir, account, password, lock })
    }

    /// A folder `name` of the servers' own, mode 700.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.servers_dir.join(name);
        make_private(&path, self.account.as_ref())?;
        Ok(path)
    }

    /// Writes a file of the servers' own anew, mode 600. An old one of that name is removed first,
    /// never followed or reused: the folder belongs to an account that is less than us.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, path: &Path, content: &str) -> Result<(), Failure> {
        let written = self.create(path).and_then(|mut file| file.write_all(content.as_bytes()));
        written.map_err(Failure::while_doing(format!("write {}", path.display())))
    }

    /// Opens a new log for a server; the one of the last time is kept as `.1`.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn log(&self, path: &Path) -> Result<File, Failure> {
        let old = path.with_extension("log.1");
        drop(std::fs::rename(path, old)); // there is none the first time
        self.create(path).map_err(Failure::while_doing(format!("write {}", path.display())))
    }

    fn create(&self, path: &Path) -> std::io::Result<File> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        if let Some(account) = &self.account {
            std::os::unix::fs::fchown(&file, Some(account.uid), Some(account.gid))?;
        }
        Ok(file)
    }

    /// Removes the whole data dir. For places that were made to be thrown away.
    pub fn remove(self) {
        for folder in [&self.servers_dir, &self.data_dir] {
            if let Err(error) = std::fs::remove_dir_all(folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                eprintln!("orchestrator: {} could not be removed: {error}", folder.display());
            }
        }
        drop(self.lock);
    }
}

fn lock(data_dir: &Path) -> Result<File, Failure> {
    let path = data_dir.join("lock");
    let doing = || Failure::while_doing(format!("lock {}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(doing())?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            drop(file.read_to_string(&mut holder)); // only to say more
            let who = if holder.trim().is_empty() {
                String::new()
            } else {
                format!(" (process {})", holder.trim())
            };
            return Err(Failure::failed(format!(
                "{} is in use by another orchestrator{who}; stop that one, or give another \
                 --data-dir",
                data_dir.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(doing()(error)),
    }
    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(doing())?;
    Ok(file)
}

fn servers_dir(data_dir: &Path, account: Option<&Account>) -> Result<PathBuf, Failure> {
    let wanted = data_dir.join("servers");
    let Some(account) = account else {
        make_private(&wanted, None)?;
        return wanted.canonicalize().map_err(Failure::while_doing("find the servers' folder"));
    };
    let is_link = wanted.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
    if !is_link && account.can_enter(data_dir) {
        make_private(&wanted, Some(account))?;
        return Ok(wanted);
    }
    let name: String = hex::encode(Sha256::digest(data_dir.as_os_str().as_encoded_bytes()));
    let elsewhere = Path::new(ELSEWHERE).join(format!("orchestrator-{}", &name[..16]));
    make_private(&elsewhere, Some(account))?;
    if std::fs::read_link(&wanted).ok().as_deref() != Some(&elsewhere) {
        std::os::unix::fs::symlink(&elsewhere, &wanted)
            .map_err(Failure::while_doing(format!("link {}", wanted.display())))?;
        eprintln!(
            "orchestrator: as root the servers run as user {}, who cannot enter {}; their data are \
             kept in {}",
            account.name,
            data_dir.display(),
            elsewhere.display()
        );
    }
    Ok(elsewhere)
}

/// Makes `path` with mode 700 for `account`, or takes the one that is there if it is a folder of
/// theirs: in `/var/tmp` anybody may have put one with this name.
fn make_private(path: &Path, account: Option<&Account>) -> Result<(), Failure> {
    let doing = || Failure::while_doing(format!("make the folder {}", path.display()));
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => match account {
            Some(account) => std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
                .map_err(doing()),
            None => Ok(()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let meta = path.symlink_metadata().map_err(doing())?;
            let owner =
                account.map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid);
            if meta.is_dir() && meta.uid() == owner {
                Ok(())
            } else {
                Err(Failure::failed(format!(
                    "{} is not a folder of user id {owner}; remove it, or give another --data-dir",
                    path.display()
                )))
            }
        }
        Err(error) => Err(doing()(error)),
    }
}

/// The password in `<data dir>/password`, made the first time.
fn password(data_dir: &Path) -> Result<String, Failure> {
    let path = data_dir.join("password");
    if let Ok(password) = std::fs::read_to_string(&path) {
        return Ok(password.trim().to_owned());
    }
    let password = crate::secret_file::random();
    crate::secret_file::write(&path, &password)?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_once_at_a_time_and_keeps_its_password() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");

        let first = Place::take(&data_dir).unwrap();
        let second = Place::take(&data_dir).unwrap_err();
        let password = first.password.clone();
        drop(first);
        let third = Place::take(&data_dir).unwrap();

        assert!(second.to_string().contains("in use by another orchestrator (process "));
        assert_eq!(third.password, password);
        third.remove();
        assert!(!data_dir.exists());
    }
}
