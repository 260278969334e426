//! What can go wrong at Clerk, by what the caller does about it.

use std::{fmt, time::Duration};

use reqwest::{StatusCode, header::HeaderMap};
use serde::Deserialize;

use super::MAX_ANSWER;
use crate::secret::without_secrets;

/// Most characters of a server's own words that are repeated.
const MAX_WORDS: usize = 500;

/// Why a client cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The key cannot be sent in a header.
    #[error("the secret key holds characters that no key has; was it copied whole?")]
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
    KeyRefused(Box<Answer>),
    /// 404; only with `resource_not_found` does it speak of the user asked for.
    #[error("Clerk does not know {what}: {0}", what = .0.missing())]
    NotFound(Box<Answer>),
    /// 400, 403, 409, 410, 422, a redirect and the like: asking again would get the same.
    #[error("Clerk refused the request: {0}")]
    Refused(Box<Answer>),
    /// 429: come back later.
    #[error("Clerk's rate limit is used up: {answer}")]
    RateLimited {
        /// What came back.
        answer: Box<Answer>,
        /// From `Retry-After`; zero occurs (observed) and none is read as zero.
        retry_after: Duration,
    },
    /// 5xx, or no answer at all.
    #[error("Clerk cannot be reached: {why}")]
    Unavailable {
        /// In words.
        why: String,
        /// From `Retry-After`; zero where there is none.
        retry_after: Duration,
    },
    /// A success whose body is not what was asked for: HTML of a proxy, JSON cut short, …
    #[error("Clerk's answer cannot be read: {0}")]
    Garbage(String),
    /// The body is larger than is read.
    #[error("Clerk's answer is larger than {} MiB", limit >> 20)]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
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
    pub(super) fn retry(&self) -> Retry {
        match self {
            Error::RateLimited { retry_after, .. } => Retry::WhenTold(*retry_after),
            Error::Unavailable { retry_after, .. } => Retry::Soon(*retry_after),
            Error::Garbage(_) => Retry::Briefly,
            Error::KeyRefused(_) | Error::NotFound(_) | Error::Refused(_) | Error::TooLarge { .. } => Retry::No,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Error::KeyRefused(_) => {
                "is CLERK_SECRET_KEY of this instance, and not rolled? See Clerk's dashboard under Configure → API keys"
            }
            Error::Unavailable { .. } => "is clerk.api_url (CLERK_API_URL) right, and can this machine reach it?",
            Error::RateLimited { .. } => {
                "something else spends this instance's limit; a lower clerk.request_budget leaves more to it"
            }
            Error::Garbage(_) => "a proxy may be answering in Clerk's place; is clerk.api_url (CLERK_API_URL) right?",
            Error::NotFound(answer) if answer.is_of_instance() => {
                "set CLERK_SECRET_KEY to a key of an instance that exists: this one was deleted, or its key is of another Clerk environment"
            }
            Error::NotFound(answer) | Error::Refused(answer) if answer.code.is_some() => match answer.status {
                StatusCode::PAYMENT_REQUIRED => "look at the plan and the bills of the instance in Clerk's dashboard",
                StatusCode::FORBIDDEN => {
                    "let the key's instance do this in Clerk's dashboard, or ask Clerk's support and name the trace"
                }
                StatusCode::GONE => "update clerk2pg: Clerk has ended what this version asks for",
                _ => {
                    "update clerk2pg; if the newest version gets the same answer, report it with the code and the trace"
                }
            },
            Error::NotFound(_) | Error::Refused(_) | Error::TooLarge { .. } => {
                "is clerk.api_url (CLERK_API_URL) Clerk's Backend API?"
            }
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
            // A server or proxy that knows no codes may say it in any way, and may say this to everything for a moment.
            Error::NotFound(answer) | Error::Refused(answer) if answer.code.is_none() => Objection::Possible,
            _ => Objection::None,
        }
    }

    pub(super) fn of_answer(answer: Answer, retry_after: Duration) -> Self {
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
        // reqwest's own text repeats the address with its query; the innermost cause is what helps.
        let cause = innermost(error);
        Error::Unavailable {
            why: format!("{what} ({cause}), at {api_url}"),
            retry_after: Duration::ZERO,
        }
    }

    pub(super) fn garbage(request: &str, body: &[u8], why: &str) -> Self {
        let what = describe(body).unwrap_or_else(|| format!("{} bytes of JSON: {}", body.len(), words(&unquoted(why))));
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

/// When a failed request may be sent again, and the least time until then.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Not at all: 401, 403, 404, 422 and the like.
    No,
    /// A few times with backoff: what spoiled the answer on its way syncs, what is wrong with it in itself stays.
    Briefly,
    /// With backoff, as long as the time for outages lasts.
    Soon(Duration),
    /// As the server said; being told when to come back is no outage.
    WhenTold(Duration),
}

/// An answer other than success, in what a person needs of it.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    path: String,
    code: Option<String>,
    /// It is about `starting_after`.
    is_about_cursor: bool,
    message: String,
    trace: Option<String>,
}

impl Answer {
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, body: &[u8], path: &str) -> Self {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<Item>,
            clerk_trace_id: Option<String>,
        }
        #[derive(Deserialize)]
        struct Item {
            code: Option<String>,
            message: Option<String>,
            long_message: Option<String>,
            meta: Option<Meta>,
        }
        #[derive(Deserialize)]
        struct Meta {
            param_name: Option<String>,
        }

        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(words);
        let (mut code, mut is_about_cursor, mut message, mut trace) = (None, false, None, header("cf-ray"));
        if body.len() <= MAX_ANSWER
            && let Ok(body) = serde_json::from_slice::<Body>(body)
        {
            trace = body.clerk_trace_id.as_deref().map(words).or(trace);
            if let Some(item) = body.errors.into_iter().next() {
                code = item.code.as_deref().map(words);
                is_about_cursor = item
                    .meta
                    .is_some_and(|meta| meta.param_name.as_deref() == Some("starting_after"));
                message = item.long_message.or(item.message).as_deref().map(words);
            }
        }
        if status.is_redirection() {
            message = header("location").map(|to| format!("a redirect to {to}; is clerk.api_url right?"));
        }
        Self {
            status,
            path: path.split('/').take(2).collect::<Vec<_>>().join("/"),
            code,
            is_about_cursor,
            message: message
                .or_else(|| describe(body))
                .unwrap_or_else(|| format!("a body of {} bytes", body.len())),
            trace,
        }
    }

    /// Whether it is about the key's instance: a list of users always exists, even if it is empty. Source: observed.
    fn is_of_instance(&self) -> bool {
        self.path == "users" && self.status == StatusCode::NOT_FOUND && self.has_code("resource_not_found")
    }

    /// What Clerk does not know, by a 404, in words for a message.
    fn missing(&self) -> &'static str {
        if self.is_of_instance() {
            "the key's instance"
        } else {
            "what was asked for"
        }
    }

    /// Whether it is about the cursor.
    pub fn is_about_cursor(&self) -> bool {
        self.is_about_cursor
    }

    /// Whether Clerk's error code is this one; emulators write codes in capitals (observed).
    pub(super) fn has_code(&self, code: &str) -> bool {
        self.code.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(code))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GET /v1/{} gave {}", self.path, self.status.as_u16())?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        write!(f, ", {}", self.message)?;
        if let Some(trace) = &self.trace {
            write!(f, " (trace {trace})")?;
        }
        Ok(())
    }
}

/// The beginning of what a server says, fit for logs and for Postgres: without what it may have been sent, and without control characters.
fn words(text: &str) -> String {
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    without_secrets(text).chars().take(MAX_WORDS).map(printable).collect()
}

/// What a body is that is no JSON; none where it may be some.
fn describe(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]);
    let text = text.trim_start();
    if text.is_empty() {
        return Some("an empty body".to_owned());
    }
    if !text.starts_with('<') {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let title = lower
        .find("<title>")
        .zip(lower.find("</title>"))
        .and_then(|(from, to)| text.get(from + "<title>".len()..to));
    Some(match title {
        Some(title) => format!("an HTML page, “{}”, as a proxy sends it", words(title.trim())),
        None => "an HTML page, as a proxy sends it".to_owned(),
    })
}

/// An error of the JSON library without the text that it quotes: that is out of the answer.
fn unquoted(why: &str) -> String {
    match why.split_once('"').zip(why.rsplit_once('"')) {
        Some(((before, _), (_, behind))) => format!("{before}\"…\"{behind}"),
        None => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: Option<&str>, path: &str) -> Error {
        let body = code.map(|code| {
            format!(r#"{{"errors":[{{"code":"{code}","message":"short","long_message":"A long message."}}],"clerk_trace_id":"trace_1"}}"#)
        });
        let status = StatusCode::from_u16(status).unwrap();
        let body = body.unwrap_or_else(|| "{}".to_owned());
        Error::of_answer(
            Answer::new(status, &HeaderMap::new(), body.as_bytes(), path),
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
    fn an_objection_to_the_order_is_told_from_other_refusals() {
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
