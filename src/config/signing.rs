//! The signing secrets of endpoints, and where they come from.

use std::path::{Path, PathBuf};

use super::{
    environment::{ConfigSource, familiar, read_secret},
    error::ConfigError,
};
use crate::deliver::SigningKey;

/// Variables that hold the signing secret of every endpoint without one of its own, as Clerk's
/// libraries name them; the first that is set. Each works also as `<NAME>_FILE` and as a systemd
/// credential.
const VARIABLES: [&str; 2] = ["CLERK_WEBHOOK_SIGNING_SECRET", "CLERK_WEBHOOK_SECRET"];

/// Where to get a signing secret.
const SOURCES: &str = "it is in Clerk's dashboard under Webhooks → endpoint → Signing Secret, and begins with whsec_; \
                       or make one for clerk2pg and your handler: whsec_ and the output of `openssl rand -base64 24`";

/// What an endpoint's entry says about its signing secret.
pub(super) struct OwnSecret<'e> {
    /// The secrets in the entry itself.
    pub(super) texts: Vec<&'e str>,
    /// The file that the entry names.
    pub(super) file: Option<&'e str>,
}

/// The signing secrets of an endpoint.
pub(super) struct SigningSecrets {
    /// The keys; the newer one first.
    pub(super) keys: Vec<SigningKey>,
    /// The file that they come from, if it is not the configuration file.
    pub(super) file: Option<PathBuf>,
}

/// Finds the signing secrets of an endpoint: in its entry, else in the environment. `place` and
/// `entry` are the configuration file and the entry in errors.
///
/// # Errors
/// There is none, it cannot be read, or it has not the form of a signing secret.
pub(super) fn signing_secrets(
    own: &OwnSecret<'_>,
    place: &str,
    entry: &str,
    source: &ConfigSource,
) -> Result<SigningSecrets, ConfigError> {
    let label = format!("{place}: {entry}");
    if !own.texts.is_empty() {
        let keys = parse(&own.texts.join(" "), &label, "secret")?;
        return Ok(SigningSecrets { keys, file: None });
    }
    if let Some(file) = own.file {
        let file = Path::new(file);
        let text = read_secret(file, &format!("secret_file of {entry}"))?;
        let keys = parse(&text, &label, "the file that secret_file names")?;
        return Ok(SigningSecrets {
            keys,
            file: Some(file.to_owned()),
        });
    }
    for name in VARIABLES {
        if let Some((text, file)) = familiar(source, name)? {
            let keys = parse(&text, &label, name)?;
            return Ok(SigningSecrets { keys, file });
        }
    }
    let [name, _] = VARIABLES;
    Err(ConfigError::new(format!("{label} has no secret, and {name} is not set")).hint(SOURCES))
}

/// Parses one signing secret, or two with white space or a comma between them. `holder` is what
/// holds them.
fn parse(text: &str, label: &str, holder: &str) -> Result<Vec<SigningKey>, ConfigError> {
    let secrets = || {
        text.split(|letter: char| letter.is_whitespace() || letter == ',')
            .filter(|secret| !secret.is_empty())
    };
    match secrets().count() {
        0 => return Err(ConfigError::new(format!("{label}: {holder} holds no signing secret")).hint(SOURCES)),
        1 | 2 => {}
        count => {
            return Err(
                ConfigError::new(format!("{label}: {holder} holds {count} signing secrets"))
                    .hint("keep the newest, and while it is rolled the one before, the newer one first"),
            );
        }
    }
    secrets()
        .map(|secret| {
            // The prefix tells a secret from other texts that are base64 by chance.
            let key = secret.starts_with("whsec_").then(|| SigningKey::parse(secret).ok());
            key.flatten().ok_or_else(|| {
                ConfigError::new(format!(
                    "{label}: {holder} is not a signing secret: whsec_ and base64, without quotes or a name before it"
                ))
                .hint(SOURCES)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
