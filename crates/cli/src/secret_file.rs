//! Secrets that we make ourselves, and the files they are kept in.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rand::Rng as _;

use crate::failure::Failure;

/// 256 random bits in hexadecimal.
pub fn random() -> String {
    let mut bits = [0; 32];
    orchestrator_engine::id::rng().fill_bytes(&mut bits);
    hex::encode(bits)
}

/// Writes `content` and a line feed to `path` with mode 600, in place of what was there: nobody
/// reads half of it, and nobody keeps an old file with a wider mode open.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(path: &Path, content: &str) -> Result<(), Failure> {
    let draft = path.with_extension("new");
    let written = (|| {
        drop(std::fs::remove_file(&draft)); // left by a crash, if at all
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        writeln!(file, "{}", content.trim_end())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    })();
    written.map_err(Failure::while_doing(format!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_file_is_for_its_owner_alone_even_where_a_wider_one_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.key");
        std::fs::write(&path, "old").unwrap();

        write(&path, "new").unwrap();

        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
