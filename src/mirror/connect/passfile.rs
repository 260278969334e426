//! `~/.pgpass`, read as libpq reads it.

use std::{fs, io::ErrorKind, os::unix::fs::PermissionsExt, path::Path};

/// What a line must match.
pub(super) struct PassfileEntry<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// Returns the password that a file has for an entry; `None` if there is no such file or line.
///
/// # Errors
/// Why the file is ignored, as a warning: the server may ask for no password.
pub(super) fn read(file: &Path, entry: &PassfileEntry<'_>) -> Result<Option<String>, String> {
    let ignored = |why: &str| Err(format!("{} is ignored: {why}", file.display()));
    let metadata = match fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return ignored(&error.to_string()),
    };
    if !metadata.is_file() {
        return ignored("it is not a plain file");
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return ignored("users other than its owner may read or write it; run chmod 600");
    }
    match fs::read_to_string(file) {
        Ok(text) => Ok(password(&text, entry)),
        Err(error) => ignored(&error.to_string()),
    }
}

/// Returns the password in the first line that matches.
fn password(text: &str, entry: &PassfileEntry<'_>) -> Option<String> {
    let port = entry.port.to_string();
    let fields = [entry.host, &port, entry.database, entry.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let rest = fields.iter().try_fold(line, |rest, field| after_field(rest, field))?;
        Some(unescaped(rest))
    })
}

/// Returns what follows the first field of a line, if that field is `text` or matches any text.
fn after_field<'a>(line: &'a str, text: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut rest = line;
    for expected in text.chars() {
        rest = rest.strip_prefix('\\').unwrap_or(rest).strip_prefix(expected)?;
    }
    rest.strip_prefix(':')
}

/// Returns a password up to an unescaped colon, without the backslashes that escape.
fn unescaped(text: &str) -> String {
    let mut password = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next().filter(|&character| character != ':') {
        password.push(match character {
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        });
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: PassfileEntry<'_> = PassfileEntry {
        host: "db.example",
        port: 5432,
        database: "app",
        user: "ann",
    };

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(password(text, &ENTRY).as_deref(), expected, "{text:?}");
    }

    #[test]
    fn lines() {
        check("db.example:5432:app:ann:secret\n", Some("secret"));
        check("db.example:5432:app:ann:secret\r\n", Some("secret"));
        check("*:*:*:*:secret", Some("secret"));
        check(
            "# db.example:5432:app:ann:no\n\nother:*:*:*:no\n*:*:*:ann:first\n*:*:*:*:second",
            Some("first"),
        );
        check("db.example:5433:*:*:no", None);
        check("db.exampl:*:*:*:no", None);
        check("db.example.org:*:*:*:no", None);
        check("db.example:5432:app:ann", None);
        check("", None);
    }

    #[test]
    fn escapes() {
        check(r"*:*:*:*:a\:b\\c", Some(r"a:b\c"));
        check("*:*:*:*:a:b", Some("a"));
        check(r"db\.example:*:*:*:secret", Some("secret"));
        let colons = PassfileEntry {
            host: "::1",
            user: r"a\b",
            ..ENTRY
        };
        assert_eq!(password(r"\:\:1:*:*:a\\b:secret", &colons).as_deref(), Some("secret"));
        assert_eq!(password("::1:*:*:*:bare", &colons).as_deref(), Some("bare"));
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pgpass");
        assert_eq!(read(&file, &ENTRY), Ok(None));
        fs::write(&file, "*:*:*:*:secret").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(&file, &ENTRY).unwrap_err();
        assert!(error.contains("chmod 600") && !error.contains("secret"), "{error}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&file, &ENTRY), Ok(Some("secret".to_owned())));
        assert!(read(directory.path(), &ENTRY).unwrap_err().contains("plain file"));
    }
}
