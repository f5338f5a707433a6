//! Who the servers run as. Postgres refuses to run as root, and Redis should not.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::failure::Failure;

/// An unprivileged user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its main group.
    pub gid: u32,
}

impl Account {
    /// Whom to become: `None` when we are no root, and so may stay who we are. Debian's package
    /// brings `postgres`; elsewhere `nobody` will do.
    ///
    /// # Errors
    ///
    /// When we are root and there is neither.
    pub fn to_become() -> Result<Option<Self>, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"].iter().find_map(|name| find(&passwd, name)).map(Some).ok_or_else(
            || {
                Failure::failed(
                    "PostgreSQL does not run as root, and there is no user postgres or nobody to \
                     run it as; run this as an ordinary user, or set DATABASE_URL and REDIS_URL",
                )
            },
        )
    }

    /// Whether the account can reach what is in `folder`: every folder down to it can be entered.
    pub fn can_enter(&self, folder: &Path) -> bool {
        folder.ancestors().filter(|path| !path.as_os_str().is_empty()).all(|path| {
            std::fs::metadata(path).is_ok_and(|meta| {
                let right = if meta.uid() == self.uid {
                    0o100
                } else if meta.gid() == self.gid {
                    0o010
                } else {
                    0o001
                };
                meta.mode() & right != 0
            })
        })
    }
}

/// The account `name` in the text of `/etc/passwd` (passwd(5)); accounts with uid 0 do not count.
fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0).then(|| Account { name: name.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:9:9::/:/x\n\
                      postgres:x:101:104:admin,,,:/var/lib/postgresql:/bin/bash\n";

        let found = find(passwd, "postgres").unwrap();

        assert_eq!((found.uid, found.gid), (101, 104));
        assert_eq!(find(passwd, "nobody"), None);
        assert_eq!(find(passwd, "root"), None);
    }
}
