//! Reads what filters, orders and unique identifiers need from the bytes of a document.
//!
//! Reading is lenient: a user whose first name is a number has no first name to match, but matches
//! by all other properties.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The top-level properties of a document. Each value is still unparsed JSON.
///
/// It is a list and not a map: for a lookup or two, hashing all keys would be slower.
#[derive(Default)]
pub(crate) struct Properties<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A key that is copied only if it contains escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Properties<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Properties<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::with_capacity(16);
                while let Some((Key(key), value)) = map.next_entry()? {
                    pairs.push((key, value));
                }
                Ok(Properties(pairs))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

impl<'a> Properties<'a> {
    /// Reads the properties. `None` if the bytes are not a JSON object.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The JSON text of a value, as a part of the document's bytes. `None` if it is absent or null.
    pub(crate) fn raw(&self, key: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(found, _)| found == key)?;
        Some(value.get()).filter(|text| *text != "null")
    }

    /// The value at a key. `None` if it has another type.
    pub(crate) fn value<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_str(self.raw(key)?).ok()
    }

    /// All properties in order, with the JSON texts of their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(key, value)| (&**key, value.get()))
    }

    /// Adds the properties of another document. Where both have a key, the own value counts.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The properties of the object at a key. `None` if it is not an object.
    pub(crate) fn object(&self, key: &str) -> Option<Properties<'a>> {
        Properties::read(self.raw(key)?.as_bytes())
    }

    /// The items of a list that are objects.
    pub(crate) fn items(&self, key: &str) -> Vec<Properties<'a>> {
        let items: Vec<&RawValue> = self
            .raw(key)
            .and_then(|list| serde_json::from_str(list).ok())
            .unwrap_or_default();
        items
            .into_iter()
            .filter_map(|item| Properties::read(item.get().as_bytes()))
            .collect()
    }

    /// The string at a path of keys.
    fn at_path(&self, path: &[&str]) -> Option<String> {
        match path {
            [] => None,
            [key] => self.value(key),
            [key, rest @ ..] => self.object(key)?.at_path(rest),
        }
    }
}

/// Where the texts of a document are that a list can be filtered or ordered by.
#[derive(Debug)]
pub(crate) enum Text {
    /// The id of the object.
    Id,
    /// The string at this key.
    Property(&'static str),
    /// The string at this path of keys.
    Path(&'static [&'static str]),
    /// The strings at these keys, joined by spaces. Absent ones are left out.
    Joined(&'static [&'static str]),
    /// The string at this path in each item of a list.
    Items {
        list: &'static str,
        path: &'static [&'static str],
    },
    /// Two strings of each item of a list, joined by a space. Items that lack one are left out.
    ItemPairs {
        list: &'static str,
        keys: [&'static str; 2],
    },
    /// The string at `key` in the item of a list whose `id` is the value of the property `id`.
    Referenced {
        id: &'static str,
        list: &'static str,
        key: &'static str,
    },
}

impl Text {
    /// Reads the texts of the object with this id.
    pub(crate) fn read(&self, id: &str, properties: &Properties<'_>) -> Vec<String> {
        match self {
            Self::Id => vec![id.to_owned()],
            Self::Property(key) => properties.value(key).into_iter().collect(),
            Self::Path(path) => properties.at_path(path).into_iter().collect(),
            Self::Joined(keys) => {
                let present: Vec<String> = keys.iter().filter_map(|key| properties.value(key)).collect();
                vec![present.join(" ")]
            }
            Self::Items { list, path } => {
                let items = properties.items(list);
                items.iter().filter_map(|item| item.at_path(path)).collect()
            }
            Self::ItemPairs { list, keys: [a, b] } => {
                let pair = |item: &Properties<'_>| {
                    let (a, b) = (item.value::<String>(a)?, item.value::<String>(b)?);
                    Some(format!("{a} {b}"))
                };
                properties.items(list).iter().filter_map(pair).collect()
            }
            Self::Referenced { id, list, key } => {
                let Some(wanted) = properties.value::<String>(id) else {
                    return Vec::new();
                };
                let items = properties.items(list);
                let item = items
                    .iter()
                    .find(|item| item.value::<String>("id").as_ref() == Some(&wanted));
                item.and_then(|item| item.value(key)).into_iter().collect()
            }
        }
    }
}
