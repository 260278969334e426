//! Reading the bodies of requests that write.

use chrono::DateTime;
use serde_json::{Map, Value};

use crate::errors::Failure;

/// What a parameter may be. All but lists and objects may be null, as most are documented to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Flag,
    Whole,
    Texts,
    Object,
    /// RFC 3339 (documented).
    Time,
}

/// A parameter that an endpoint knows.
pub(crate) type Field = (&'static str, Type);

/// The parameters of a request: all known, all of the right type.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(crate) fn read(body: &[u8], known: &[Field]) -> Result<Self, Failure> {
        let Value::Object(map) = serde_json::from_slice(body).map_err(Failure::not_json)? else {
            return Err(Failure::not_json("it must be a JSON object"));
        };
        for (name, value) in &map {
            let Some((_, kind)) = known.iter().find(|(known, _)| known == name) else {
                return Err(Failure::unknown(name));
            };
            check(name, value, *kind)?;
        }
        Ok(Self(map))
    }

    /// The value of a parameter that was given, null included.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The value of a parameter that was given and is not null.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        self.0
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    pub(crate) fn object(&self, name: &str) -> Map<String, Value> {
        self.0.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// In Unix milliseconds.
    pub(crate) fn time(&self, name: &str) -> Option<i64> {
        DateTime::parse_from_rfc3339(self.text(name)?)
            .ok()
            .map(|time| time.timestamp_millis())
    }
}

fn check(name: &str, value: &Value, kind: Type) -> Result<(), Failure> {
    let (fits, must) = match kind {
        Type::Text => (value.is_null() || value.is_string(), "a string"),
        Type::Flag => (value.is_null() || value.is_boolean(), "a boolean"),
        Type::Whole => (value.is_null() || value.as_i64().is_some(), "an integer"),
        Type::Texts => (
            value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
            "an array of strings",
        ),
        Type::Object => (value.is_object(), "an object"),
        Type::Time => {
            let parses = |text: &str| DateTime::parse_from_rfc3339(text).is_ok();
            (
                value.is_null() || value.as_str().is_some_and(parses),
                "a time in RFC 3339 format",
            )
        }
    };
    if fits {
        Ok(())
    } else {
        Err(Failure::invalid(name, format!("{name} must be {must}.")))
    }
}
