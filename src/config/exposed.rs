//! Secrets in files that every user of this machine can read.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Where orchestrators put secrets into a container. No other user is in there.
const CONTAINER_SECRETS: [&str; 2] = ["/run/secrets", "/var/run/secrets"];

/// Returns the files that others than their owner and its group can read, each once. A service that
/// is not root gets a file of root's through its group.
pub(super) fn exposed_files(files: &[PathBuf]) -> Vec<PathBuf> {
    let exposed: BTreeSet<_> = files.iter().filter(|file| is_exposed(file)).collect();
    exposed.into_iter().cloned().collect()
}

/// Whether every user of this machine can read a file.
fn is_exposed(file: &Path) -> bool {
    let Ok(file) = file.canonicalize() else { return false };
    if CONTAINER_SECRETS.iter().any(|folder| file.starts_with(folder)) {
        return false;
    }
    let allows = |path: &Path, bit| fs::metadata(path).is_ok_and(|metadata| metadata.mode() & bit != 0);
    allows(&file, 0o004) && file.ancestors().skip(1).all(|folder| allows(folder, 0o001))
}

/// Whether the address of a database contains a password.
pub(super) fn holds_password(url: &str) -> bool {
    let authority = url
        .split_once("://")
        .map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    let before_host = authority
        .and_then(|authority| authority.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'));
    before_host || url.contains("password")
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_file_that_others_cannot_get_to_is_not_exposed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "sk_test_a").unwrap();
        let check = |folder_mode, file_mode, expected| {
            fs::set_permissions(folder.path(), Permissions::from_mode(folder_mode)).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(file_mode)).unwrap();
            assert_eq!(is_exposed(&file), expected, "{folder_mode:o} {file_mode:o}");
        };
        check(0o755, 0o644, true);
        check(0o755, 0o640, false);
        check(0o700, 0o644, false);
        assert!(!is_exposed(&folder.path().join("nowhere")));
    }

    #[test]
    fn addresses_with_a_password() {
        for url in [
            "postgres://app:hidden@db/app",
            "host=db password=hidden",
            "postgres://db/app?user=a&password=hidden",
        ] {
            assert!(holds_password(url), "{url}");
        }
        for url in ["postgres://app@db:5432/app", "host=db user=app", ""] {
            assert!(!holds_password(url), "{url}");
        }
    }
}
