//! Why an attempt to connect failed, and whether it is worth trying again with TLS instead of
//! without, or the reverse.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as RustlsError};
use tokio_postgres::error::{DbError, SqlState};

use crate::mirror::MirrorError;

/// A failed attempt.
#[derive(Debug)]
pub(super) struct FailedAttempt {
    pub(super) kind: FailureKind,
    pub(super) error: MirrorError,
}

/// What went wrong. It decides whether to try again with or without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The server does not support TLS.
    NoTls,
    /// The TLS handshake failed.
    Handshake,
    /// No rule of the server's `pg_hba.conf` allows this role to connect this way.
    NoRule,
    /// The server refused for another reason.
    Refused,
    /// Anything else, usually a server that cannot be reached.
    Unreachable,
}

impl FailedAttempt {
    pub(super) fn unavailable(why: String) -> Self {
        Self {
            kind: FailureKind::Unreachable,
            error: MirrorError::Unavailable(why),
        }
    }

    /// Classifies an error of the library. `place` is the address that was tried, `is_encrypted`
    /// whether with TLS, `is_direct` whether with TLS from the first byte.
    pub(super) fn new(error: &tokio_postgres::Error, place: &str, is_encrypted: bool, is_direct: bool) -> Self {
        use std::error::Error as _;
        if let Some(answer) = error.as_db_error() {
            return refused(answer, place, is_encrypted);
        }
        let cause = error.source();
        if let Some(cause) = cause.and_then(rustls_error) {
            return handshake(cause, place);
        }
        let text = cause.map_or_else(|| error.to_string(), ToString::to_string);
        let why = format!("{text}, at {place}");
        // Only the text of the library's errors tells these apart.
        match (error.to_string().as_str(), text.as_str()) {
            (_, "server does not support TLS") => Self {
                kind: FailureKind::NoTls,
                error: MirrorError::Tls {
                    why: format!("the server does not support it, at {place}"),
                    hint: "turn on ssl on the server; in a trusted network, sslmode=prefer connects without",
                },
            },
            ("error performing TLS handshake", "invalid dns name") => Self {
                kind: FailureKind::Handshake,
                error: MirrorError::Tls {
                    why: format!("the host is not a valid DNS name, at {place}"),
                    hint: "use another name of the server, with hostaddr beside it if necessary",
                },
            },
            // A server that is shutting down may do the same.
            ("error performing TLS handshake", "tls handshake eof") if is_direct => Self::unavailable(format!(
                "{text}; sslnegotiation=direct needs PostgreSQL 17 or newer, at {place}"
            )),
            ("invalid configuration" | "authentication error", _) => Self {
                kind: FailureKind::Refused,
                error: MirrorError::Refused { why, hint: CHECK },
            },
            _ => Self::unavailable(why),
        }
    }
}

/// The hint if the server gives no further reason.
const CHECK: &str = "check user, password and database name in database.url (DATABASE_URL)";

fn refused(answer: &DbError, place: &str, is_encrypted: bool) -> FailedAttempt {
    let why = format!("{}, at {place}", answer.message());
    let code = answer.code();
    let refused = [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ];
    FailedAttempt {
        kind: if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
            FailureKind::NoRule
        } else {
            FailureKind::Refused
        },
        error: if refused.contains(code) {
            // The server's rules are by user, database and kind of connection. Only its text, in
            // its own language, says which of them is meant.
            let hint = match (*code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION, is_encrypted) {
                (true, true) => {
                    "check user, password and database name in database.url (DATABASE_URL); if the server asks for a certificate, set sslcert and sslkey"
                }
                (true, false) => {
                    "check user, password and database name in database.url (DATABASE_URL); if the server requires TLS, set sslmode=verify-full, or require"
                }
                _ => CHECK,
            };
            MirrorError::Refused { why, hint }
        } else {
            MirrorError::Unavailable(why)
        },
    }
}

/// Returns the TLS error, if it is one. With TLS 1.3, the server's answer to the client's
/// certificate comes after the handshake, as a read error.
fn rustls_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a RustlsError> {
    cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

fn handshake(error: &RustlsError, place: &str) -> FailedAttempt {
    let (why, hint) = match error {
        RustlsError::InvalidCertificate(error) => certificate(error),
        RustlsError::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate),
        ) => (
            format!("the server does not accept clerk2pg's certificate ({alert:?})"),
            "set sslcert to a certificate of the authority in the server's ssl_ca_file, and sslkey to its key",
        ),
        // A fault of the server, not of the address.
        RustlsError::AlertReceived(AlertDescription::InternalError) => {
            return FailedAttempt::unavailable(format!("{error}, at {place}"));
        }
        error => (
            error.to_string(),
            "check that the server, or a proxy in front of it, supports TLS 1.2 or newer",
        ),
    };
    FailedAttempt {
        kind: FailureKind::Handshake,
        error: MirrorError::Tls {
            why: format!("{why}, at {place}"),
            hint,
        },
    }
}

fn certificate(error: &CertificateError) -> (String, &'static str) {
    match error {
        CertificateError::UnknownIssuer => (
            "no authority in sslrootcert signed the server's certificate".to_owned(),
            "set sslrootcert to the authority (CA) that signed the server's certificate; the provider of the database offers it for download",
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = match presented.as_slice() {
                [] => "no name (subjectAltName)".to_owned(),
                // The library gives them as DnsName("db.example") and IpAddress(10.0.0.1).
                names => names
                    .iter()
                    .map(|name| {
                        name.split(['(', ')', '"'])
                            .rfind(|part| !part.is_empty())
                            .unwrap_or(name)
                    })
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            (
                format!("the server's certificate is for {names}, not for {}", expected.to_str()),
                "check the host; sslmode=verify-ca accepts any name from that authority",
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "the server's certificate has expired".to_owned(),
            "renew it, or correct the clock of this machine",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "the server's certificate is not valid yet".to_owned(),
            "correct the clock of this machine",
        ),
        error => (
            format!("the server's certificate cannot be accepted: {error}"),
            "use a certificate of X.509 version 3 with the host in subjectAltName",
        ),
    }
}
