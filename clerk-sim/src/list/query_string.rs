//! The parameters of a query string.

use crate::errors::Failure;

/// Values per filter (documented).
const MAX_VALUES: usize = 100;

/// The decoded pairs of a query string: `%2B` is a plus, a plus is a space.
pub(crate) struct QueryString(Vec<(String, String)>);

/// Values to include and to exclude.
#[derive(Default)]
pub(crate) struct SignedValues {
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
}

impl SignedValues {
    pub(crate) fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether an object with these values is meant.
    pub(crate) fn allow(&self, values: &[String]) -> bool {
        (self.include.is_empty() || values.iter().any(|value| self.include.contains(value)))
            && !values.iter().any(|value| self.exclude.contains(value))
    }
}

/// A range of times in Unix milliseconds. Both bounds are exclusive (a guess).
#[derive(Clone, Copy, Default)]
pub(crate) struct Bounds {
    pub(crate) after: Option<i64>,
    pub(crate) before: Option<i64>,
}

impl Bounds {
    pub(crate) fn is_empty(self) -> bool {
        self.after.is_none() && self.before.is_none()
    }

    pub(crate) fn contain(self, time: i64) -> bool {
        self.after.is_none_or(|after| time > after) && self.before.is_none_or(|before| time < before)
    }
}

impl QueryString {
    pub(crate) fn read(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a parameter. Fails if there are too many.
    pub(crate) fn all(&self, name: &str) -> Result<Vec<String>, Failure> {
        let values: Vec<_> = self
            .0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .collect();
        if values.len() > MAX_VALUES {
            return Err(Failure::invalid(
                name,
                format!("{name} accepts up to {MAX_VALUES} values."),
            ));
        }
        Ok(values)
    }

    /// All values of a parameter. Those with a `-` before them are excluded.
    pub(crate) fn signed(&self, name: &str) -> Result<SignedValues, Failure> {
        let mut values = SignedValues::default();
        for value in self.all(name)? {
            match value.strip_prefix('-') {
                Some(excluded) => values.exclude.push(excluded.to_owned()),
                None => values
                    .include
                    .push(value.strip_prefix('+').unwrap_or(&value).to_owned()),
            }
        }
        Ok(values)
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, Failure> {
        match self.first(name) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| Failure::invalid(name, format!("{name} must be an integer."))),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Failure> {
        match self.first(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Failure::invalid(name, format!("{name} must be true or false."))),
        }
    }

    /// The bounds `…_after` and `…_before`.
    pub(crate) fn bounds(&self, name: &str) -> Result<Bounds, Failure> {
        Ok(Bounds {
            after: self.integer(&format!("{name}_after"))?,
            before: self.integer(&format!("{name}_before"))?,
        })
    }
}
