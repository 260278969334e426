//! What a server says about an error.

use std::fmt;

use reqwest::{StatusCode, header::HeaderMap};
use serde::Deserialize;

use super::MAX_ANSWER;
use crate::{humanize::count, printable, secret::without_secrets};

/// Characters of a server's own text that are repeated.
const MAX_TEXT: usize = 500;

/// An answer other than success: the parts that a person needs.
#[derive(Debug)]
pub struct ErrorResponse {
    pub(super) status: StatusCode,
    path: String,
    pub(super) code: Option<String>,
    /// The parameter that it is about.
    parameter: Option<String>,
    message: String,
    trace: Option<String>,
}

impl ErrorResponse {
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, body: &[u8], path: &str) -> Self {
        #[derive(Deserialize)]
        struct ErrorBody {
            errors: Vec<ErrorItem>,
            clerk_trace_id: Option<String>,
        }
        #[derive(Deserialize)]
        struct ErrorItem {
            code: Option<String>,
            message: Option<String>,
            long_message: Option<String>,
            meta: Option<ErrorMeta>,
        }
        #[derive(Deserialize)]
        struct ErrorMeta {
            param_name: Option<String>,
        }

        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(printable);
        let (mut code, mut parameter, mut message, mut trace) = (None, None, None, header("cf-ray"));
        if body.len() <= MAX_ANSWER
            && let Ok(body) = serde_json::from_slice::<ErrorBody>(body)
        {
            trace = body.clerk_trace_id.as_deref().map(printable).or(trace);
            if let Some(item) = body.errors.into_iter().next() {
                code = item.code.as_deref().map(printable);
                parameter = item.meta.and_then(|meta| meta.param_name);
                message = item.long_message.or(item.message).as_deref().map(printable);
            }
        }
        if status.is_redirection() {
            message = header("location").map(|to| format!("a redirect to {to}; is clerk.api_url right?"));
        }
        Self {
            status,
            path: path.split('/').take(2).collect::<Vec<_>>().join("/"),
            code,
            parameter,
            message: message
                .or_else(|| described(body))
                .unwrap_or_else(|| format!("a body of {}", count(body.len() as u64, "byte"))),
            trace,
        }
    }

    /// Whether it is about the key's instance: a list always exists, even if it is empty. Only the
    /// paths of lists and of the instance have one segment. Source: observed for users.
    pub(super) fn is_of_instance(&self) -> bool {
        !self.path.contains('/') && self.status == StatusCode::NOT_FOUND && self.has_code("resource_not_found")
    }

    /// Returns what Clerk does not know after a 404, for a message.
    pub(super) fn missing(&self) -> &'static str {
        if self.is_of_instance() {
            "the key's instance"
        } else {
            "what was asked for"
        }
    }

    /// Whether it is about this parameter.
    pub fn is_about(&self, parameter: &str) -> bool {
        self.parameter.as_deref() == Some(parameter)
    }

    /// Whether this is Clerk's error code. Emulators write codes in capitals (observed).
    pub(super) fn has_code(&self, code: &str) -> bool {
        self.code.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(code))
    }
}

impl fmt::Display for ErrorResponse {
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

/// Returns the beginning of a server's text for logs and Postgres: without secrets that it may
/// repeat, and without characters that control a terminal.
pub(super) fn printable(text: &str) -> String {
    let text: String = without_secrets(text).chars().take(MAX_TEXT).collect();
    printable::printable(&text).into_owned()
}

/// Describes a body that is no JSON; `None` if it may be JSON.
pub(super) fn described(body: &[u8]) -> Option<String> {
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
        Some(title) => format!("an HTML page, “{}”, as a proxy sends it", printable(title.trim())),
        None => "an HTML page, as a proxy sends it".to_owned(),
    })
}
