//! Reads the bodies of requests that write.

use std::ops::RangeInclusive;

use chrono::DateTime;
use serde_json::{Map, Value};

use crate::errors::Failure;

/// The type of a parameter. All may be null, as most are documented to, except lists and
/// `Object`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParameterType {
    Text,
    Flag,
    Integer,
    Texts,
    Object,
    ObjectOrNull,
    /// RFC 3339 (documented).
    Time,
}

/// A parameter that an endpoint accepts.
pub(crate) type Parameter = (&'static str, ParameterType);

/// The parameters of a request. All are known, and of the right type.
pub(crate) struct Parameters(Map<String, Value>);

impl Parameters {
    /// Reads a JSON body. Fails if a parameter is unknown or has another type.
    pub(crate) fn read(body: &[u8], accepted: &[Parameter]) -> Result<Self, Failure> {
        Self::of(serde_json::from_slice(body).map_err(Failure::not_json)?, accepted)
    }

    /// As `read`, but the body may be absent.
    pub(crate) fn read_optional(body: &[u8], accepted: &[Parameter]) -> Result<Self, Failure> {
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        Self::read(body, accepted)
    }

    /// As `read`, for a body or a part of it that is parsed already.
    pub(crate) fn of(body: Value, accepted: &[Parameter]) -> Result<Self, Failure> {
        let Value::Object(map) = body else {
            return Err(Failure::not_json("it must be a JSON object"));
        };
        for (name, value) in &map {
            let Some((_, kind)) = accepted.iter().find(|(known, _)| known == name) else {
                return Err(Failure::unknown(name));
            };
            check(name, value, *kind)?;
        }
        Ok(Self(map))
    }

    /// The value of a parameter, which may be null. `None` if it is absent.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The text of a parameter. `None` if it is absent or null.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// The flag of a parameter. False if it is absent or null.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The text of a parameter that must be there and not be empty.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Failure> {
        let text = self.text(name).filter(|text| !text.is_empty());
        text.ok_or_else(|| Failure::missing(name, format!("{name} must be included.")))
    }

    /// The integer of a parameter, which must be in this range. `None` if it is absent or null.
    pub(crate) fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Failure> {
        let number = self.0.get(name).and_then(Value::as_i64);
        match number {
            Some(number) if !range.contains(&number) => {
                let (least, most) = (range.start(), range.end());
                Err(Failure::invalid(
                    name,
                    format!("{name} must be from {least} to {most}."),
                ))
            }
            number => Ok(number),
        }
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

    /// The time of a parameter, in Unix milliseconds. `None` if it is absent or null.
    pub(crate) fn time(&self, name: &str) -> Option<i64> {
        DateTime::parse_from_rfc3339(self.text(name)?)
            .ok()
            .map(|time| time.timestamp_millis())
    }
}

fn check(name: &str, value: &Value, kind: ParameterType) -> Result<(), Failure> {
    let (fits, must) = match kind {
        ParameterType::Text => (value.is_null() || value.is_string(), "a string"),
        ParameterType::Flag => (value.is_null() || value.is_boolean(), "a boolean"),
        ParameterType::Integer => (value.is_null() || value.as_i64().is_some(), "an integer"),
        ParameterType::Texts => (
            value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
            "an array of strings",
        ),
        ParameterType::Object => (value.is_object(), "an object"),
        ParameterType::ObjectOrNull => (value.is_null() || value.is_object(), "an object"),
        ParameterType::Time => {
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
