//! Parses libpq's two forms of a connection string: `postgres://…` and `name=value …`.

/// The error for a string in neither form.
const FORM: &str = "expected postgres://… or name=value …; write a value with spaces as name='value'";

/// The error for a % that starts no valid escape.
const PERCENT: &str = "write a % that stands for itself as %25";

/// Whether the string is a URL, where no part of the password can look like the name of a
/// parameter.
pub(super) fn is_url(text: &str) -> bool {
    without_scheme(text).is_some()
}

/// Returns names and values in the order of the text.
///
/// # Errors
/// What is wrong, without any word of the text: each may be part of the password.
pub(super) fn parameters(text: &str) -> Result<Vec<(String, String)>, String> {
    match without_scheme(text) {
        Some(rest) => of_url(rest),
        None => of_words(text),
    }
}

/// Returns what follows the scheme. SQLAlchemy adds a driver to it (`postgresql+asyncpg://`), and
/// Java begins with `jdbc:`.
fn without_scheme(text: &str) -> Option<&str> {
    let text = text.strip_prefix("jdbc:").unwrap_or(text);
    let rest = ["postgresql", "postgres"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))?;
    let rest = match rest.strip_prefix('+') {
        Some(driver) => driver.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_'),
        None => rest,
    };
    rest.strip_prefix("://")
}

fn of_url(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut parameters = Vec::new();
    let mut add = |name: &str, value: &str| -> Result<(), String> {
        if !value.is_empty() {
            parameters.push((decoded(name)?, decoded(value)?));
        }
        Ok(())
    };
    let mut rest = text;
    // As in libpq: the user ends at an @ before the first /, even if a ? comes before it.
    if let Some(at) = rest.find(['@', '/']).filter(|&at| rest[at..].starts_with('@')) {
        let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
        add("user", user)?;
        add("password", password)?;
        rest = &rest[at + 1..];
    }
    let (places, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for place in places.split(',') {
        let (host, port) = match place.strip_prefix('[') {
            // The colons of an IPv6 address do not start a port.
            Some(address) => address
                .split_once(']')
                .and_then(|(address, port)| {
                    Some((address, if port.is_empty() { port } else { port.strip_prefix(':')? }))
                })
                .ok_or("write an IPv6 address as [::1], and with a port as [::1]:5432")?,
            None => place.split_once(':').unwrap_or((place, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    add("host", &hosts.join(","))?;
    add("port", &ports.join(","))?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // Otherwise the rest of the password would be shown as the name of the database.
    if path.contains('@') {
        return Err("write an @ in the password as %40, and a / as %2F".to_owned());
    }
    add("dbname", path.strip_prefix('/').unwrap_or_default())?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((name, value)) => add(name, value)?,
            None => return Err("write each parameter after the ? as name=value".to_owned()),
        }
    }
    Ok(parameters)
}

fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let code = digit().zip(digit()).map(|(high, low)| high * 16 + low);
                code.and_then(|code| u8::try_from(code).ok())
                    .filter(|&code| code != 0)
                    .ok_or(PERCENT)?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| PERCENT.to_owned())
}

fn of_words(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace());
        let (name, after) = rest.split_at(end.ok_or(FORM)?);
        let after = after.trim_ascii_start().strip_prefix('=').ok_or(FORM)?;
        let (value, after) = value(after.trim_ascii_start())?;
        parameters.push((name.to_owned(), value));
        rest = after.trim_ascii_start();
    }
    Ok(parameters)
}

/// Returns the value that a text begins with, and the rest.
fn value(text: &str) -> Result<(String, &str), String> {
    let quoted = text.strip_prefix('\'');
    let body = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if quoted.is_some() => return Ok((value, &body[at + 1..])),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            space if quoted.is_none() && space.is_ascii_whitespace() => return Ok((value, &body[at..])),
            other => value.push(other),
        }
    }
    match quoted {
        Some(_) => Err("a quote is not closed; in a value, write ' as \\' and \\ as \\\\".to_owned()),
        None => Ok((value, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = parameters(text).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn addresses() {
        check("postgres://", &[]);
        check("postgresql:///app", &[("dbname", "app")]);
        check(
            "postgres://ann:se%40cret@db.example:6432/app?sslmode=require&connect_timeout=3",
            &[
                ("user", "ann"),
                ("password", "se@cret"),
                ("host", "db.example"),
                ("port", "6432"),
                ("dbname", "app"),
                ("sslmode", "require"),
                ("connect_timeout", "3"),
            ],
        );
        check(
            "postgres://one,two:5433,[::1]:5434?host=three",
            &[("host", "one,two,::1"), ("port", ",5433,5434"), ("host", "three")],
        );
        check("postgres://[fe80::1]/", &[("host", "fe80::1")]);
        check(
            "postgres://%2Fvar%2Frun/app?options=-c%20a%3Db",
            &[("host", "/var/run"), ("dbname", "app"), ("options", "-c a=b")],
        );
        check(
            "postgres://u:a?b@h",
            &[("user", "u"), ("password", "a?b"), ("host", "h")],
        );
        for scheme in ["postgresql+asyncpg", "postgres+psycopg2", "jdbc:postgresql"] {
            check(&format!("{scheme}://h/d"), &[("host", "h"), ("dbname", "d")]);
        }
        check(
            "postgres://h/d?user=a@b",
            &[("host", "h"), ("dbname", "d"), ("user", "a@b")],
        );
    }

    #[test]
    fn words() {
        check("", &[]);
        check(
            r" host = db  password='it\'s a \\ secret'dbname=app user=a\ b",
            &[
                ("host", "db"),
                ("password", r"it's a \ secret"),
                ("dbname", "app"),
                ("user", "a b"),
            ],
        );
        check("password='' host=h", &[("password", ""), ("host", "h")]);
    }

    #[test]
    fn what_is_wrong_shows_no_word_of_it() {
        for text in [
            "hidden",
            "host=h password=first hidden",
            "password='hidden",
            "mysql://u:hidden@h/d",
            "postgresql+:hidden@h/d",
            "postgresqlx://u:hidden@h/d",
            "jdbc:mysql://u:hidden@h/d",
            "postgres://u:hidden%@h",
            "postgres://u:hidden%00@h",
            "postgres://u:hidden%ff@h",
            "postgres://u:p@[::1",
            "postgres://u:p@[::1]5432",
            "postgres://h/d?hidden",
            "postgres://u:p@hidden/hidden@h/d",
            "postgres://u:hidden/hidden@h/d",
        ] {
            let error = parameters(text).unwrap_err();
            assert!(!error.contains("hidden"), "{text}: {error}");
        }
    }
}
