//! Splits a body into the undecoded documents of its users. A document is decoded only where it differs from what is stored.

use std::{borrow::Cow, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    user::{Digest, DigestKey, is_storable, milliseconds},
    walk::PAGE,
};

/// The body of an answer, and the server's clock as its `Date` header told it.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// In Unix milliseconds.
    pub(super) date: Option<i64>,
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
    range: Range<usize>,
}

impl Page {
    /// Reads a list in both its forms: a bare array (documented), and `{"data": […]}` as emulators send it (observed).
    /// Where the body is neither, gives it back with the reason.
    pub(super) fn parse(body: Body, key: &DigestKey) -> Result<Self, (Vec<u8>, String)> {
        #[derive(Deserialize)]
        struct Wrapped<'a> {
            #[serde(borrow)]
            data: Vec<&'a RawValue>,
        }
        Self::new(body, key, |text| {
            if let Some(users) = split(text) {
                return Ok(users);
            }
            let users: Vec<&RawValue> = if text.trim_start().starts_with('{') {
                serde_json::from_str(text).map(|Wrapped { data }| data)?
            } else {
                serde_json::from_str(text)?
            };
            Ok(users.into_iter().map(with_head).collect())
        })
    }

    /// Reads the document of one user.
    pub(super) fn single(body: Body, key: &DigestKey) -> Result<Self, (Vec<u8>, String)> {
        Self::new(body, key, |text| {
            serde_json::from_str(text).map(|user| vec![with_head(user)])
        })
    }

    fn new(
        Body { bytes, date }: Body,
        key: &DigestKey,
        split: impl for<'a> Fn(&'a str) -> serde_json::Result<Vec<(&'a str, Head<'a>)>>,
    ) -> Result<Self, (Vec<u8>, String)> {
        let (text, mangled) = match String::from_utf8(bytes) {
            Ok(text) => (text, Vec::new()),
            Err(error) => mend(error.as_bytes()),
        };
        let users = match split(&text) {
            Ok(users) => users
                .into_iter()
                .map(|(document, head)| Raw::new(document, head, key, &text, &mangled))
                .collect(),
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

/// What is read of every document.
#[derive(Deserialize, Default)]
struct Head<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    updated_at: Option<&'a RawValue>,
}

fn with_head(document: &RawValue) -> (&str, Head<'_>) {
    let json = document.get();
    (json, serde_json::from_str(json).unwrap_or_default())
}

/// Splits a bare array of objects and reads their heads in one pass, as this is done with every user of every full sync. None for
/// anything else.
fn split(list: &str) -> Option<Vec<(&str, Head<'_>)>> {
    let space = [' ', '\n', '\r', '\t'];
    let mut rest = list
        .trim_start_matches(space)
        .strip_prefix('[')?
        .trim_start_matches(space);
    let mut users = Vec::with_capacity(PAGE as usize);
    loop {
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
}

impl Raw {
    fn new(json: &str, head: Head<'_>, key: &DigestKey, text: &str, mangled: &[usize]) -> Self {
        let time = |value: Option<&RawValue>| {
            value
                .and_then(|at| serde_json::from_str(at.get()).ok())
                .map(milliseconds)
                .filter(|&at| is_storable(at))
        };
        let start = json.as_ptr() as usize - text.as_ptr() as usize;
        let range = start..start + json.len();
        Self {
            id: head
                .id
                .and_then(|id| serde_json::from_str::<Cow<'_, str>>(id.get()).ok())
                .filter(|id| !id.is_empty() && !id.contains('\0'))
                .map(Cow::into_owned),
            created_at: time(head.created_at),
            updated_at: time(head.updated_at),
            digest: Digest::of(key, json.as_bytes()),
            is_mangled: mangled.iter().any(|at| range.contains(at)),
            range,
        }
    }
}

/// Replaces what is not UTF-8, and says where: one broken document must not cost its whole page.
fn mend(bytes: &[u8]) -> (String, Vec<usize>) {
    let mut text = String::with_capacity(bytes.len());
    let mut mangled = Vec::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            mangled.push(text.len());
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    (text, mangled)
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

        /// In one pass or in two, the documents are the same.
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
                    let _ = crate::user::decode(page.document(raw));
                }
            }
        }
    }
}
