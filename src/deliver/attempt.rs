//! The outcome of an attempt, and why it failed.

use std::{error::Error, io, time::Duration};

use rustls::CertificateError;

/// One attempt to deliver an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What came of it.
    pub outcome: AttemptOutcome,
    /// The time until the status of the answer, or until the attempt failed.
    pub took: Duration,
}

/// What came of an attempt. The texts say why in a few words; they contain no secret and no query of
/// the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// 2xx.
    Delivered {
        /// The status.
        status: u16,
    },
    /// Any other status, redirects included.
    Refused {
        /// The status.
        status: u16,
        /// From `Retry-After`, a day at most.
        retry_after: Option<Duration>,
    },
    /// No request was sent: the name does not resolve, or only to addresses that are not allowed,
    /// nobody listens, or TLS fails.
    Unreachable {
        /// Why.
        why: String,
    },
    /// A request was sent, or begun, and no status came in time: a timeout, a closed connection, or
    /// an answer that is not HTTP.
    Unanswered {
        /// Why.
        why: String,
    },
}

impl AttemptOutcome {
    /// Returns the status of the answer, and why the attempt failed.
    pub fn describe(&self) -> (Option<u16>, Option<String>) {
        match self {
            AttemptOutcome::Delivered { status } => (Some(*status), None),
            AttemptOutcome::Refused { status, .. } => (Some(*status), Some(format!("it answered {status}"))),
            AttemptOutcome::Unreachable { why } | AttemptOutcome::Unanswered { why } => (None, Some(why.clone())),
        }
    }

    /// Returns what to do about an attempt that failed.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            AttemptOutcome::Delivered { .. } => None,
            AttemptOutcome::Refused { status, .. } => Some(match status {
                300..=399 => {
                    "a middleware redirects it, for example to the sign-in page: make the handler's route public there, \
                     and set url to the address that answers itself"
                }
                400 | 401 | 403 => {
                    "the handler refuses the signature, or a middleware the request: give the handler the same signing \
                     secret as here, make its route public, and check the clocks of both machines"
                }
                404 => {
                    "the server has no such route, or a middleware hides it: check the path in url, and make the route public"
                }
                405 => "the route takes no POST: check the path in url",
                408 | 429 | 503 => "the server is busy: try again later",
                _ => "see the log of the handler",
            }),
            AttemptOutcome::Unreachable { .. } => {
                Some("check url, that the handler runs, and that this machine can reach it")
            }
            AttemptOutcome::Unanswered { .. } => {
                Some("see the log of the handler; it must answer within the endpoint's timeout")
            }
        }
    }

    /// Returns the outcome of a request that failed.
    pub(super) fn of_error(error: &reqwest::Error) -> Self {
        // A builder's error is about the event's id, which is no value of a header.
        if error.is_builder() {
            let why = "the request cannot be built".to_owned();
            AttemptOutcome::Unreachable { why }
        } else if error.is_connect() {
            AttemptOutcome::Unreachable {
                why: not_connected(error),
            }
        } else {
            AttemptOutcome::Unanswered { why: broken(error) }
        }
    }
}

/// Returns why there is no connection.
pub(super) fn not_connected(error: &(dyn Error + 'static)) -> String {
    if let Some(error) = cause::<rustls::Error>(error) {
        return handshake(error);
    }
    let why = match cause::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused",
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => "no route to the host",
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => {
            "the connection was closed before a request"
        }
        // reqwest's own timeout is an error of another type.
        Some(io::ErrorKind::TimedOut) | None => "no connection in time",
        Some(_) => "cannot connect",
    };
    why.to_owned()
}

fn handshake(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => "the certificate is not signed by a trusted authority".to_owned(),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate is for another name".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate has expired".to_owned()
            }
            error => format!("the certificate is not valid: {error}"),
        },
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS".to_owned(),
        error => format!("TLS failed: {error}"),
    }
}

/// Returns why a request has no answer.
fn broken(error: &reqwest::Error) -> String {
    let is_parse = cause::<hyper::Error>(error).is_some_and(hyper::Error::is_parse);
    let why = match is_parse {
        true => "the answer is not HTTP",
        false => "the connection was closed without an answer",
    };
    why.to_owned()
}

/// Returns the first cause of a type. `source` alone passes over what an [`io::Error`] wraps.
fn cause<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_hint() {
        let check = |status, part: &str| {
            let outcome = AttemptOutcome::Refused {
                status,
                retry_after: None,
            };
            let hint = outcome.hint().unwrap();
            assert!(hint.contains(part), "{status}: {hint}");
            assert_eq!(
                outcome.describe(),
                (Some(status), Some(format!("it answered {status}")))
            );
        };
        for status in [400, 401, 403] {
            check(status, "signing secret");
        }
        check(307, "sign-in page");
        check(404, "path in url");
        check(405, "POST");
        check(429, "later");
        check(500, "log of the handler");
        let delivered = AttemptOutcome::Delivered { status: 204 };
        assert_eq!((delivered.hint(), delivered.describe()), (None, (Some(204), None)));
    }
}
