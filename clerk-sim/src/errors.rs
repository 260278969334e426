//! Clerk's errors.
//!
//! The form and most codes are documented. Guessed: the `form_…` codes other than
//! `form_param_value_invalid` and `form_identifier_exists`, the codes `request_body_invalid`,
//! `gateway_timeout` and `service_unavailable`, and the wording of all messages.

use serde_json::{Value, json};

/// An error, as it is in the `errors` list of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    message: String,
    long_message: String,
    parameter: Option<String>,
    pub(crate) retry_after: Option<u64>,
}

impl Failure {
    pub(crate) fn new(status: u16, code: &'static str, message: &str, long_message: impl Into<String>) -> Self {
        let (message, long_message) = (message.to_owned(), long_message.into());
        Self {
            status,
            code,
            message,
            long_message,
            parameter: None,
            retry_after: None,
        }
    }

    pub(crate) fn about(mut self, parameter: &str) -> Self {
        self.parameter = Some(parameter.to_owned());
        self
    }

    pub(crate) fn no_key() -> Self {
        Self::new(
            401,
            "authentication_invalid",
            "Invalid authentication",
            "Unable to authenticate the request, you need to supply an Authorization header with your secret key as bearer token.",
        )
    }

    pub(crate) fn wrong_key() -> Self {
        Self::new(
            401,
            "clerk_key_invalid",
            "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.",
            "The secret key in the Authorization header is not the key of this instance.",
        )
    }

    pub(crate) fn wrong_version(version: &str) -> Self {
        Self::new(
            400,
            "api_version_invalid",
            "Invalid API version",
            format!("{version} is not a known API version; clerk-sim knows 2025-04-10, 2025-11-10 and 2026-05-12."),
        )
    }

    pub(crate) fn too_many(retry_after: u64) -> Self {
        let mut failure = Self::new(
            429,
            "too_many_requests",
            "Too many requests",
            "Too many requests. Please try again in a bit.",
        );
        failure.retry_after = Some(retry_after);
        failure
    }

    /// There is no object of this kind, such as a user, with this id.
    pub(crate) fn no_object(object: &str, id: &str) -> Self {
        Self::new(
            404,
            "resource_not_found",
            "not found",
            format!("No {object} was found with id {id}"),
        )
    }

    /// The cursor of a list names no object.
    pub(crate) fn unknown_cursor(object: &str, id: &str) -> Self {
        Self::invalid("starting_after", format!("No {object} was found with id {id}."))
    }

    /// The simulator does not serve this path.
    pub(crate) fn no_path(path: &str) -> Self {
        Self::new(
            404,
            "resource_not_found",
            "not found",
            format!("clerk-sim has nothing at {path}"),
        )
    }

    pub(crate) fn invalid(parameter: &str, why: impl Into<String>) -> Self {
        Self::new(422, "form_param_value_invalid", "is invalid", why).about(parameter)
    }

    pub(crate) fn unknown(parameter: &str) -> Self {
        Self::new(
            422,
            "form_param_unknown",
            "is unknown",
            format!("{parameter} is not a valid parameter for this request."),
        )
        .about(parameter)
    }

    pub(crate) fn missing(parameter: &str, why: impl Into<String>) -> Self {
        Self::new(422, "form_param_missing", "is missing", why).about(parameter)
    }

    pub(crate) fn malformed(parameter: &str, why: impl Into<String>) -> Self {
        Self::new(422, "form_param_format_invalid", "is invalid", why).about(parameter)
    }

    pub(crate) fn short_password() -> Self {
        let why = "Passwords must be 8 characters or more.";
        Self::new(422, "form_password_length_too_short", why, why).about("password")
    }

    pub(crate) fn taken(parameter: &str) -> Self {
        Self::new(
            422,
            "form_identifier_exists",
            "is taken",
            format!("That {} is taken. Please try another.", parameter.replace('_', " ")),
        )
        .about(parameter)
    }

    pub(crate) fn not_json(why: impl std::fmt::Display) -> Self {
        Self::new(
            400,
            "request_body_invalid",
            "Request body invalid",
            format!("The request body is invalid: {why}."),
        )
    }

    pub(crate) fn not_editable(id: &str) -> Self {
        Self::new(
            500,
            "internal_clerk_error",
            "Oops, an unexpected error occurred",
            format!("{id} was put in as raw bytes that are no JSON object, so it cannot be edited."),
        )
    }

    /// The error of a fault, with the code that Clerk gives this status.
    pub(crate) fn injected(status: u16, retry_after: Option<u64>) -> Self {
        let (code, message) = match status {
            401 => ("authentication_invalid", "Invalid authentication"),
            403 => ("authorization_invalid", "Unauthorized request"),
            404 => ("resource_not_found", "not found"),
            409 => ("resource_locked", "Resource is locked"),
            410 => ("operation_deprecated", "Operation is deprecated"),
            422 => ("form_param_value_invalid", "is invalid"),
            429 => ("too_many_requests", "Too many requests"),
            500 => ("internal_clerk_error", "Oops, an unexpected error occurred"),
            504 => ("gateway_timeout", "Gateway timeout"),
            _ => ("service_unavailable", "Service unavailable"),
        };
        let mut failure = Self::new(status, code, message, format!("{message} (a fault set in clerk-sim)."));
        failure.retry_after = retry_after;
        failure
    }

    /// The body of the answer.
    pub(crate) fn body(&self, trace_id: &str, upper_case: bool) -> Value {
        let code = if upper_case {
            self.code.to_uppercase()
        } else {
            self.code.to_owned()
        };
        let mut error = json!({"code": code, "message": self.message, "long_message": self.long_message});
        if let Some(parameter) = &self.parameter {
            error["meta"] = json!({"param_name": parameter});
        }
        json!({"errors": [error], "clerk_trace_id": trace_id})
    }
}

/// The page that a proxy answers with if it cannot reach the server behind it.
pub(crate) fn html(status: u16) -> String {
    format!(
        "<!DOCTYPE html>\n<html><head><title>{status} | clerk-sim</title></head><body><center><h1>{status}</h1></center><hr><center>proxy</center></body></html>\n"
    )
}
