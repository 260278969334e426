//! Splits a list into its documents, and reads the few values of each that are needed undecoded.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::resource::{MAX_PAGE, embedded_key};

/// Objects per answer, for servers that ignore the limit: a body of the smallest ones has room for
/// ten million.
pub const MAX_OBJECTS: usize = 20 * MAX_PAGE as usize;

/// The values that are read of each document. If a key occurs twice, the last value counts, as in
/// `jsonb`.
#[derive(Default)]
pub(super) struct DocumentHead<'a> {
    pub(super) id: Option<&'a RawValue>,
    pub(super) created_at: Option<&'a RawValue>,
    pub(super) updated_at: Option<&'a RawValue>,
    /// Not a field of an object: servers that wrap an object put it under this key.
    pub(super) data: Option<&'a RawValue>,
    /// An excerpt of another object, with its key.
    pub(super) embedded: Option<(&'static str, &'a RawValue)>,
}

enum HeadKey {
    Id,
    CreatedAt,
    UpdatedAt,
    Data,
    Embedded(&'static str),
    Other,
}

impl<'de> Deserialize<'de> for HeadKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadKeyVisitor;

        impl Visitor<'_> for HeadKeyVisitor {
            type Value = HeadKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_bytes<E>(self, key: &[u8]) -> Result<HeadKey, E> {
                Ok(match key {
                    b"id" => HeadKey::Id,
                    b"created_at" => HeadKey::CreatedAt,
                    b"updated_at" => HeadKey::UpdatedAt,
                    b"data" => HeadKey::Data,
                    key => embedded_key(key).map_or(HeadKey::Other, HeadKey::Embedded),
                })
            }
        }

        // As text, half of a surrogate pair in another key would hide the id.
        deserializer.deserialize_bytes(HeadKeyVisitor)
    }
}

impl<'de> Deserialize<'de> for DocumentHead<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadVisitor;

        impl<'de> Visitor<'de> for HeadVisitor {
            type Value = DocumentHead<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DocumentHead<'de>, A::Error> {
                let mut head = DocumentHead::default();
                while let Some(key) = map.next_key()? {
                    let value = match key {
                        HeadKey::Id => &mut head.id,
                        HeadKey::CreatedAt => &mut head.created_at,
                        HeadKey::UpdatedAt => &mut head.updated_at,
                        HeadKey::Data => &mut head.data,
                        HeadKey::Embedded(key) => {
                            head.embedded = Some((key, map.next_value()?));
                            continue;
                        }
                        HeadKey::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *value = Some(map.next_value()?);
                }
                Ok(head)
            }
        }

        deserializer.deserialize_map(HeadVisitor)
    }
}

/// The documents of a list, at most [`MAX_OBJECTS`].
pub(super) struct DocumentList<'a>(pub(super) Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for DocumentList<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;

        impl<'de> Visitor<'de> for ListVisitor {
            type Value = DocumentList<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<DocumentList<'de>, A::Error> {
                let mut objects = Vec::new();
                while let Some(object) = list.next_element()? {
                    if objects.len() == MAX_OBJECTS {
                        return Err(de::Error::custom(format_args!("more than {MAX_OBJECTS} objects")));
                    }
                    objects.push(object);
                }
                Ok(DocumentList(objects))
            }
        }

        deserializer.deserialize_seq(ListVisitor)
    }
}

/// Returns a document with its head.
pub(super) fn with_head(document: &RawValue) -> (&str, DocumentHead<'_>) {
    let json = document.get();
    (json, serde_json::from_str(json).unwrap_or_default())
}

/// White space in JSON.
const SPACE: [char; 4] = [' ', '\n', '\r', '\t'];

/// Returns what follows `{"data":` at the beginning of a list in its wrapped form.
pub(super) fn after_data(text: &str) -> Option<&str> {
    let key = text.trim_start_matches(SPACE).strip_prefix('{')?;
    let colon = key.trim_start_matches(SPACE).strip_prefix("\"data\"")?;
    colon.trim_start_matches(SPACE).strip_prefix(':')
}

/// Splits an array of objects and reads their heads in one go, as this is done with every object of
/// every full sync. Returns them with what follows the array. `None` for anything else, and for more
/// than [`MAX_OBJECTS`].
pub(super) fn split_array(list: &str) -> Option<(Vec<(&str, DocumentHead<'_>)>, &str)> {
    let mut rest = list
        .trim_start_matches(SPACE)
        .strip_prefix('[')?
        .trim_start_matches(SPACE);
    let mut objects = Vec::with_capacity(MAX_PAGE as usize);
    while objects.len() < MAX_OBJECTS {
        let mut documents = serde_json::Deserializer::from_str(rest).into_iter();
        let head = documents.next()?.ok()?;
        let (document, after) = rest.split_at(documents.byte_offset());
        objects.push((document, head));
        rest = after.trim_start_matches(SPACE);
        if let Some(end) = rest.strip_prefix(']') {
            return Some((objects, end.trim_start_matches(SPACE)));
        }
        rest = rest.strip_prefix(',')?.trim_start_matches(SPACE);
    }
    None
}
