//! Errors of requests, by what the caller does about them.

use std::time::Duration;

use reqwest::StatusCode;

use super::error_response::{ErrorResponse, described, printable};
use crate::humanize::count;

/// Why a client cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The key cannot be sent in a header.
    #[error("the secret key holds characters that no key has; was it copied completely?")]
    Key,
    /// For example, no trusted certificates can be loaded.
    #[error("cannot set up HTTPS: {0}")]
    Https(String),
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 401: nothing else will go through either.
    #[error("Clerk refused the secret key: {0}")]
    KeyRefused(Box<ErrorResponse>),
    /// 404. It is about the object asked for only if its code says so.
    #[error("Clerk does not know {what}: {0}", what = .0.missing())]
    NotFound(Box<ErrorResponse>),
    /// 400, 403, 409, 410, 422, a redirect and the like: another attempt would get the same.
    #[error("Clerk refused the request: {0}")]
    Refused(Box<ErrorResponse>),
    /// 429: try again later.
    #[error("Clerk's rate limit is used up: {answer}")]
    RateLimited {
        /// The answer.
        answer: Box<ErrorResponse>,
        /// From `Retry-After`; zero if the answer has none. Zero itself occurs, too (observed).
        retry_after: Duration,
    },
    /// 5xx, or no answer at all.
    #[error("Clerk cannot be reached: {why}")]
    Unavailable {
        /// The reason.
        why: String,
        /// From `Retry-After`; zero if there is none.
        retry_after: Duration,
    },
    /// A success whose body is not what was asked for: HTML of a proxy, incomplete JSON, …
    #[error("Clerk's answer cannot be read: {0}")]
    Garbage(String),
    /// The body is too large.
    #[error("Clerk's answer is larger than {} MiB", limit >> 20)]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// When a failed request may be sent again, and the least time until then.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Not at all: 401, 403, 404, 422 and the like.
    No,
    /// A few times with backoff: damage on the way is gone then, but a faulty answer stays the
    /// same.
    Briefly,
    /// With backoff, as long as an outage may last.
    Soon(Duration),
    /// After the time that the server asks for. This is not an outage.
    WhenTold(Duration),
}

/// Returns the last error in the chain of causes.
pub(super) fn innermost<'e>(error: &'e (dyn std::error::Error + 'static)) -> &'e (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

impl Error {
    /// Returns when the request may be sent again.
    pub(super) fn retry(&self) -> Retry {
        match self {
            Error::RateLimited { retry_after, .. } => Retry::WhenTold(*retry_after),
            Error::Unavailable { retry_after, .. } => Retry::Soon(*retry_after),
            Error::Garbage(_) => Retry::Briefly,
            Error::KeyRefused(_) | Error::NotFound(_) | Error::Refused(_) | Error::TooLarge { .. } => Retry::No,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Error::KeyRefused(_) => {
                "check that CLERK_SECRET_KEY is a key of this instance and was not rolled: Clerk's dashboard, Configure → API keys"
            }
            Error::Unavailable { .. } => "check clerk.api_url (CLERK_API_URL), and whether this machine can reach it",
            Error::RateLimited { .. } => {
                "something else uses this instance's limit, too; lower clerk.request_budget to leave more of it"
            }
            Error::Garbage(_) => "check clerk.api_url (CLERK_API_URL): a proxy may be answering instead of Clerk",
            Error::NotFound(answer) if answer.is_of_instance() => {
                "set CLERK_SECRET_KEY to a key of an instance that exists: this one was deleted, or its key is of another Clerk environment"
            }
            Error::NotFound(answer) | Error::Refused(answer) if answer.code.is_some() => match answer.status {
                StatusCode::PAYMENT_REQUIRED => "check the plan and the bills of the instance in Clerk's dashboard",
                StatusCode::FORBIDDEN => {
                    "allow this for the key's instance in Clerk's dashboard, or ask Clerk's support and name the trace"
                }
                StatusCode::GONE => "update clerk2pg: Clerk does not support this request any more",
                _ => {
                    "update clerk2pg; if the newest version gets the same answer, report it with the code and the trace"
                }
            },
            Error::NotFound(_) | Error::Refused(_) | Error::TooLarge { .. } => {
                "check that clerk.api_url (CLERK_API_URL) is the address of Clerk's Backend API"
            }
        }
    }

    /// Whether the instance has switched off what was asked for, as organizations can be (documented:
    /// `organization_not_enabled_in_instance`; the status is a guess), or the server does not have it,
    /// as emulators do not (observed), or does not allow it for this key or plan.
    pub fn is_switched_off(&self) -> bool {
        let says_so = |answer: &ErrorResponse| answer.code.as_deref().is_some_and(|code| code.contains("not_enabled"));
        match self {
            Error::NotFound(answer) => answer.code.is_none() || says_so(answer),
            Error::Refused(answer) => {
                matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::PAYMENT_REQUIRED) || says_so(answer)
            }
            _ => false,
        }
    }

    /// Whether a refused request for a list objects to its order or its filters.
    pub fn objection(&self) -> Objection {
        match self {
            Error::Refused(answer)
                if matches!(
                    answer.status,
                    StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
                ) =>
            {
                if answer.code.is_some() {
                    Objection::Certain
                } else {
                    Objection::Possible
                }
            }
            // A server or proxy without codes may object in any way, and may answer so to
            // everything for a moment.
            Error::NotFound(answer) | Error::Refused(answer) if answer.code.is_none() => Objection::Possible,
            _ => Objection::None,
        }
    }

    /// Returns the error of an answer other than success.
    pub(super) fn of_answer(answer: ErrorResponse, retry_after: Duration) -> Self {
        let answer = Box::new(answer);
        match answer.status {
            StatusCode::UNAUTHORIZED => Error::KeyRefused(answer),
            StatusCode::NOT_FOUND => Error::NotFound(answer),
            StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { answer, retry_after },
            // A proxy in front of Clerk answers 520 to 527. Source: documented, observed.
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => Error::Unavailable {
                why: answer.to_string(),
                retry_after,
            },
            _ => Error::Refused(answer),
        }
    }

    /// Returns the error of a request without a complete answer.
    pub(super) fn unavailable(api_url: &str, error: &reqwest::Error) -> Self {
        let what = if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "cannot connect"
        } else if error.is_body() || error.is_decode() {
            "the connection ended in the middle of the answer"
        } else {
            "the connection failed"
        };
        // reqwest's own text repeats the address with its query. The innermost cause says what
        // happened.
        let cause = innermost(error);
        Error::Unavailable {
            why: format!("{what} ({cause}), at {api_url}"),
            retry_after: Duration::ZERO,
        }
    }

    /// Returns the error of an answer that cannot be read. `why` is what the parser says.
    pub(super) fn garbage(request: &str, body: &[u8], why: &str) -> Self {
        let what = described(body).unwrap_or_else(|| {
            format!(
                "{} of JSON: {}",
                count(body.len() as u64, "byte"),
                printable(&unquoted(why))
            )
        });
        Error::Garbage(format!("{request} gave {what}"))
    }
}

/// Whether an answer objects to the order or the filters of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// The server says so with one of its codes.
    Certain,
    /// It may object; only a repeated answer counts.
    Possible,
    /// The error is about something else.
    None,
}

/// Returns an error of the JSON library without the text that it quotes, which is from the answer.
fn unquoted(why: &str) -> String {
    match why.split_once('"').zip(why.rsplit_once('"')) {
        Some(((before, _), (_, after))) => format!("{before}\"…\"{after}"),
        None => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    fn error(status: u16, code: Option<&str>, path: &str) -> Error {
        let body = code.map(|code| {
            format!(r#"{{"errors":[{{"code":"{code}","message":"short","long_message":"A long message."}}],"clerk_trace_id":"trace_1"}}"#)
        });
        let status = StatusCode::from_u16(status).unwrap();
        let body = body.unwrap_or_else(|| "{}".to_owned());
        Error::of_answer(
            ErrorResponse::new(status, &HeaderMap::new(), body.as_bytes(), path),
            Duration::ZERO,
        )
    }

    #[test]
    fn what_clerk_says_is_said_with_a_hint_that_fits() {
        let check = |status, code: &str, path, begins: &str, hint: &str| {
            let error = error(status, Some(code), path);
            let says = format!("{begins}: GET /v1/{path} gave {status} {code}, A long message. (trace trace_1)");
            assert_eq!(error.to_string(), says);
            assert!(error.hint().contains(hint), "{says}: {}", error.hint());
            assert!(!error.hint().contains("api_url"), "{says}: {}", error.hint());
        };
        let refused = "Clerk refused the request";
        check(402, "payment_required", "users", refused, "the plan and the bills");
        check(403, "authorization_invalid", "users", refused, "dashboard");
        check(
            404,
            "feature_not_enabled",
            "users",
            "Clerk does not know what was asked for",
            "update clerk2pg",
        );
        check(
            404,
            "resource_not_found",
            "users",
            "Clerk does not know the key's instance",
            "an instance that exists",
        );
        check(
            404,
            "RESOURCE_NOT_FOUND",
            "users",
            "Clerk does not know the key's instance",
            "an instance that exists",
        );
        check(
            404,
            "resource_not_found",
            "users/count",
            "Clerk does not know what was asked for",
            "report it",
        );
        check(410, "operation_deprecated", "users", refused, "update clerk2pg");
        check(
            422,
            "form_param_value_invalid",
            "users",
            refused,
            "report it with the code and the trace",
        );
        check(400, "api_version_invalid", "users", refused, "update clerk2pg");
        // What Clerk did not say may be of another server.
        for status in [400, 402, 403, 404, 410, 422] {
            assert!(error(status, None, "users").hint().contains("clerk.api_url"));
        }
    }

    #[test]
    fn an_objection_to_the_order_differs_from_other_refusals() {
        let check = |status, code, expected| assert_eq!(error(status, code, "users").objection(), expected, "{status}");
        check(422, Some("form_param_value_invalid"), Objection::Certain);
        check(400, Some("INVALID_PARAM"), Objection::Certain);
        check(422, None, Objection::Possible);
        check(404, None, Objection::Possible);
        check(405, None, Objection::Possible);
        check(404, Some("resource_not_found"), Objection::None);
        check(403, Some("authorization_invalid"), Objection::None);
        check(410, Some("operation_deprecated"), Objection::None);
        check(401, None, Objection::None);
        check(500, None, Objection::None);
    }
}
