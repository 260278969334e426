//! Splits a body into the undecoded documents of its users. A document is decoded only where it differs from what is stored.

use std::{borrow::Cow, fmt, ops};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::resource::{self, Digest, DigestKey, MAX_ID, MAX_PAGE};

/// Most users of one answer, for servers that take no notice of the limit: a body of the tiniest ones has room for ten million.
pub const MAX_USERS: usize = 20 * MAX_PAGE as usize;

/// The body of an answer, and the server's clock as its `Date` header told it.
#[derive(Debug)]
pub struct Body {
    /// Unpacked.
    pub bytes: Vec<u8>,
    /// In Unix milliseconds.
    pub date: Option<i64>,
}

/// The users of one answer.
#[derive(Debug)]
pub struct Page {
    text: String,
    users: Vec<Raw>,
    /// The server's clock when it answered, in Unix milliseconds, cut to whole seconds; none where it does not say.
    pub date: Option<i64>,
}

/// One undecoded user.
#[derive(Debug)]
pub struct Raw {
    /// Clerk's id, where there is a readable one.
    pub id: Option<String>,
    /// Unix milliseconds, where there is a readable one.
    pub created_at: Option<i64>,
    /// Unix milliseconds, where there is a readable one.
    pub updated_at: Option<i64>,
    /// Of the document's bytes.
    pub digest: Digest,
    /// The bytes were no valid UTF-8 and had to be replaced: the document must not be stored.
    pub is_mangled: bool,
    range: ops::Range<usize>,
}

impl Page {
    /// Reads a list in both its forms: a bare array (documented), and `{"data": […]}` as emulators send it (observed).
    ///
    /// # Errors
    /// The body is neither, or holds more than [`MAX_USERS`]: gives it back with the reason, which quotes nothing of it.
    pub fn parse(body: Body, key: &DigestKey) -> Result<Self, (Vec<u8>, String)> {
        #[derive(Deserialize)]
        struct Wrapped<'a> {
            #[serde(borrow)]
            data: &'a RawValue,
        }
        Self::new(body, key, |text| {
            if let Some(users) = split(text) {
                return Ok(users);
            }
            let list = if text.trim_start().starts_with('{') {
                serde_json::from_str(text).map(|Wrapped { data }| data.get())?
            } else {
                text
            };
            // Of another value, serde_json's error would quote all.
            if list
                .trim_start()
                .starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
            {
                return Err(de::Error::custom("no list of users"));
            }
            let Documents(users) = serde_json::from_str(list)?;
            Ok(users.into_iter().map(with_head).collect())
        })
    }

    /// Reads the document of one user, in both its forms: bare (documented), and `{"data": {…}}`, as servers send it that wrap lists, too.
    ///
    /// # Errors
    /// The body is no JSON: gives it back with the reason.
    pub fn single(body: Body, key: &DigestKey) -> Result<Self, (Vec<u8>, String)> {
        Self::new(body, key, |text| {
            let (document, head) = with_head(serde_json::from_str(text)?);
            Ok(vec![match head.data.filter(|data| data.get().starts_with('{')) {
                Some(user) if head.id.is_none() => with_head(user),
                _ => (document, head),
            }])
        })
    }

    fn new(
        Body { bytes, date }: Body,
        key: &DigestKey,
        split: impl for<'a> Fn(&'a str) -> serde_json::Result<Vec<(&'a str, Head<'a>)>>,
    ) -> Result<Self, (Vec<u8>, String)> {
        // What is not UTF-8 is replaced: one broken document must not cost its whole page.
        let (text, broken) = match String::from_utf8(bytes) {
            Ok(text) => (text, Vec::new()),
            Err(error) => (
                String::from_utf8_lossy(error.as_bytes()).into_owned(),
                error.into_bytes(),
            ),
        };
        let users = match split(&text) {
            Ok(users) => {
                let mut replaced = replaced(&broken).peekable();
                users
                    .into_iter()
                    .map(|(document, head)| {
                        let start = document.as_ptr() as usize - text.as_ptr() as usize;
                        let range = start..start + document.len();
                        while replaced.next_if(|&at| at < range.start).is_some() {}
                        let is_mangled = replaced.peek().is_some_and(|at| range.contains(at));
                        Raw::new(document, head, key, range, is_mangled)
                    })
                    .collect()
            }
            Err(error) => return Err((text.into_bytes(), error.to_string())),
        };
        Ok(Self { text, users, date })
    }

    /// The users, in the server's order.
    pub fn users(&self) -> &[Raw] {
        &self.users
    }

    /// The document of one of [`Self::users`].
    pub fn document(&self, user: &Raw) -> &str {
        &self.text[user.range.clone()]
    }
}

/// What is read of every document. Of a key that occurs twice the last counts, as in `jsonb`.
#[derive(Default)]
struct Head<'a> {
    id: Option<&'a RawValue>,
    created_at: Option<&'a RawValue>,
    updated_at: Option<&'a RawValue>,
    /// Not a field of a user: servers that wrap the user put it under this key.
    data: Option<&'a RawValue>,
}

enum HeadKey {
    Id,
    CreatedAt,
    UpdatedAt,
    Data,
    Other,
}

impl<'de> Deserialize<'de> for HeadKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;

        impl Visitor<'_> for Key {
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
                    _ => HeadKey::Other,
                })
            }
        }

        // As text, half of a surrogate pair in another key would hide the id.
        deserializer.deserialize_bytes(Key)
    }
}

impl<'de> Deserialize<'de> for Head<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Document;

        impl<'de> Visitor<'de> for Document {
            type Value = Head<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
                let mut head = Head::default();
                while let Some(key) = map.next_key()? {
                    let value = match key {
                        HeadKey::Id => &mut head.id,
                        HeadKey::CreatedAt => &mut head.created_at,
                        HeadKey::UpdatedAt => &mut head.updated_at,
                        HeadKey::Data => &mut head.data,
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

        deserializer.deserialize_map(Document)
    }
}

/// The documents of a list, not more than are read of one.
struct Documents<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Documents<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Documents<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of users")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Documents<'de>, A::Error> {
                let mut users = Vec::new();
                while let Some(user) = list.next_element()? {
                    if users.len() == MAX_USERS {
                        return Err(de::Error::custom(format_args!("more than {MAX_USERS} users")));
                    }
                    users.push(user);
                }
                Ok(Documents(users))
            }
        }

        deserializer.deserialize_seq(List)
    }
}

fn with_head(document: &RawValue) -> (&str, Head<'_>) {
    let json = document.get();
    (json, serde_json::from_str(json).unwrap_or_default())
}

/// Splits a bare array of objects and reads their heads in one sync, as this is done with every user of every full sync. None for
/// anything else, and for more than are read.
fn split(list: &str) -> Option<Vec<(&str, Head<'_>)>> {
    let space = [' ', '\n', '\r', '\t'];
    let mut rest = list
        .trim_start_matches(space)
        .strip_prefix('[')?
        .trim_start_matches(space);
    let mut users = Vec::with_capacity(MAX_PAGE as usize);
    while users.len() < MAX_USERS {
        let mut documents = serde_json::Deserializer::from_str(rest).into_iter();
        let head = documents.next()?.ok()?;
        let (document, behind) = rest.split_at(documents.byte_offset());
        users.push((document, head));
        rest = behind.trim_start_matches(space);
        if let Some(end) = rest.strip_prefix(']') {
            return end.trim_start_matches(space).is_empty().then_some(users);
        }
        rest = rest.strip_prefix(',')?.trim_start_matches(space);
    }
    None
}

impl Raw {
    fn new(json: &str, head: Head<'_>, key: &DigestKey, range: ops::Range<usize>, is_mangled: bool) -> Self {
        let time = |value: Option<&RawValue>| value.and_then(|at| resource::time(at.get()));
        Self {
            id: head
                .id
                .and_then(|id| serde_json::from_str::<Cow<'_, str>>(id.get()).ok())
                .filter(|id| (1..=MAX_ID).contains(&id.len()) && !id.contains('\0'))
                .map(Cow::into_owned),
            created_at: time(head.created_at),
            updated_at: time(head.updated_at),
            digest: Digest::of(key, json.as_bytes()),
            is_mangled,
            range,
        }
    }
}

/// Where replacement characters stand in the text that was made of these bytes, in order. They are not kept, as there may be as many as
/// bytes.
fn replaced(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let mut length = 0;
    bytes.utf8_chunks().filter_map(move |chunk| {
        length += chunk.valid().len();
        let at = length;
        let is_broken = !chunk.invalid().is_empty();
        length += if is_broken {
            char::REPLACEMENT_CHARACTER.len_utf8()
        } else {
            0
        };
        is_broken.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(bytes: impl Into<Vec<u8>>) -> Body {
        Body {
            bytes: bytes.into(),
            date: None,
        }
    }

    fn parse(bytes: impl Into<Vec<u8>>) -> Result<Page, (Vec<u8>, String)> {
        Page::parse(body(bytes), &DigestKey::default())
    }

    fn ids(bytes: &[u8]) -> Vec<Option<String>> {
        let page = parse(bytes).unwrap();
        page.users.into_iter().map(|raw| raw.id).collect()
    }

    #[test]
    fn both_forms_of_a_list() {
        let expected = [Some("a".to_owned()), None];
        assert_eq!(ids(br#"[{"id":"a"},{"id":7}]"#), expected);
        assert_eq!(ids(br#" {"data":[{"id":"a"}, "x"],"total_count":2}"#), expected);
        assert_eq!(ids(b"[]"), []);
    }

    #[test]
    fn a_wrapped_user_is_read() {
        let single = |text: &str| Page::single(body(text), &DigestKey::default()).unwrap();
        for text in [
            r#"{"id":"a","created_at":1}"#,
            r#" {"object":"user", "data": {"id":"a","created_at":1} }"#,
        ] {
            let page = single(text);
            assert_eq!(page.users()[0].id.as_deref(), Some("a"), "{text}");
            assert_eq!(page.document(&page.users()[0]), r#"{"id":"a","created_at":1}"#);
        }
        // A field of the user's that happens to have that name.
        let page = single(r#"{"id":"a","data":{"id":"b"}}"#);
        assert_eq!(page.users()[0].id.as_deref(), Some("a"));
        for text in [r#"{"data":[{"id":"b"}]}"#, r#"{"data":"b"}"#, "[]", "7"] {
            assert_eq!(single(text).users()[0].id, None, "{text}");
        }
    }

    #[test]
    fn the_head_is_read_as_the_document_is() {
        for (head, expected) in [
            (r#""created_at":1790000000000.0"#, Some(1_790_000_000_000)),
            (r#""created_at":"2026-09-21T14:13:20Z""#, Some(1_790_000_000_000)),
            (r#""created_at":1,"created_at":1.79e12"#, Some(1_790_000_000_000)),
            (r#""created_at":"soon""#, None),
            (r#""created_at":null"#, None),
            (r#""created_at":8210000000000001"#, None),
            (r#""\ud800":1,"created_at":1790000000000"#, Some(1_790_000_000_000)),
        ] {
            let document = format!(r#"{{"id":"z","id":"a",{head}}}"#);
            for list in [format!("[{document}]"), format!(r#"{{"data":[{document}]}}"#)] {
                let page = parse(list.as_str()).unwrap();
                let raw = &page.users()[0];
                assert_eq!((raw.id.as_deref(), raw.created_at), (Some("a"), expected), "{list}");
            }
            assert_eq!(
                resource::decode(&resource::USERS, &document)
                    .ok()
                    .map(|user| user.created_at),
                expected
            );
        }
    }

    #[test]
    fn a_document_is_its_own_bytes() {
        let page = parse(br#"[ {"id":"a", "created_at":1700000000}, {"id":"b"} ]"#).unwrap();
        let document = r#"{"id":"a", "created_at":1700000000}"#;
        assert_eq!(page.document(&page.users()[0]), document);
        assert_eq!(
            page.users()[0].digest,
            Digest::of(&DigestKey::default(), document.as_bytes())
        );
        assert_eq!(page.users()[0].created_at, Some(1_700_000_000_000));
    }

    #[test]
    fn bytes_that_are_no_text_spoil_their_own_document_only() {
        let page = parse(b"[{\"id\":\"a\"},{\"id\":\"b\",\"x\":\"\xff\"},{\"id\":\"c\"}]").unwrap();
        let mangled: Vec<_> = page.users().iter().map(|raw| raw.is_mangled).collect();
        assert_eq!(mangled, [false, true, false]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_page_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(bytes.clone());
            let _ = Page::single(body(bytes), &DigestKey::default());
        }

        /// In one sync or in two, the documents are the same.
        #[test]
        fn a_list_is_split_alike_in_both_ways(
            users in prop::collection::vec(r#" ?\{("id": ?"[a-z]"(, ?"created_at":[0-9]{1,3})?)? ?(,?"x":\[\{\},"\]"\])?\}"#, 0..5), space in "[ \n]?",
        ) {
            let text = format!("{space}[{}{space}]{space}", users.join(","));
            let plain: Result<Vec<&RawValue>, _> = serde_json::from_str(&text);
            let expected = plain.map(|users| users.iter().map(|raw| raw.get()).collect::<Vec<_>>());
            match (split(&text), expected) {
                (Some(users), expected) => {
                    prop_assert_eq!(users.iter().map(|(document, _)| *document).collect::<Vec<_>>(), expected.unwrap());
                }
                (None, expected) => prop_assert!(users.is_empty() || expected.is_err(), "{}", text),
            }
        }

        #[test]
        fn nearly_json_gives_a_page_or_an_error(text in r#"[\[\]{}",:0-9a-z\\]{0,80}"#) {
            if let Ok(page) = parse(text) {
                for raw in page.users() {
                    let _ = resource::decode(&resource::USERS, page.document(raw));
                }
            }
        }
    }
}
