//! Pages of documents. A document is decoded only if it differs from the stored one.

use std::{borrow::Cow, ops};

use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::{
    ResponseBody,
    split::{DocumentHead, DocumentList, after_data, split_array, with_head},
};
use crate::resource::{self, Digest, DigestKey, Exclusions, MAX_ID, Resource};

/// The objects of one answer.
#[derive(Debug)]
pub struct Page {
    text: String,
    objects: Vec<RawObject>,
    /// The server's clock when it answered, in Unix milliseconds, cut to whole
    /// seconds; `None` if it does not say.
    pub date: Option<i64>,
    /// How many objects the whole list has; `None` if the answer does not say.
    pub total: Option<u64>,
}

/// An object that is not decoded.
#[derive(Debug)]
pub struct RawObject {
    /// Clerk's id, if it is readable.
    pub id: Option<String>,
    /// Unix milliseconds, if it is readable.
    pub created_at: Option<i64>,
    /// Unix milliseconds, if it is readable.
    pub updated_at: Option<i64>,
    /// Of the document's bytes, without those of an embedded object.
    pub digest: Digest,
    /// Whether bytes were not valid UTF-8 and were replaced: the document must not be stored.
    pub is_mangled: bool,
    range: ops::Range<usize>,
}

impl Page {
    /// Reads a list in both its forms: a bare array, and `{"data": […], "total_count": …}`. Source:
    /// documented; emulators send the second form also where Clerk sends the first (observed).
    ///
    /// # Errors
    /// The body is neither, or has more than [`super::MAX_OBJECTS`]. Returns it with the reason, which
    /// quotes nothing of it.
    pub fn parse(resource: &'static Resource, body: ResponseBody, key: &DigestKey) -> Result<Self, (Vec<u8>, String)> {
        #[derive(Deserialize)]
        struct Wrapped<'a> {
            #[serde(borrow)]
            data: &'a RawValue,
            #[serde(borrow)]
            total_count: Option<&'a RawValue>,
        }
        let number = |total: Option<&RawValue>| total.and_then(|total| total.get().parse().ok());
        Self::new(resource, body, key, |text| {
            if let Some((objects, rest)) = after_data(text).and_then(split_array)
                && let Ok(Wrapped { total_count, .. }) = serde_json::from_str(&format!("{{\"data\":[]{rest}"))
            {
                return Ok((objects, number(total_count)));
            }
            let (list, total) = match text.trim_start().starts_with('{') {
                true => {
                    let Wrapped { data, total_count } = serde_json::from_str(text)?;
                    (data.get(), number(total_count))
                }
                false => (text, None),
            };
            if let Some((objects, "")) = split_array(list) {
                return Ok((objects, total));
            }
            // For another value, serde_json's error would quote all of it.
            if list
                .trim_start()
                .starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
            {
                return Err(de::Error::custom("no list of objects"));
            }
            let DocumentList(objects) = serde_json::from_str(list)?;
            Ok((objects.into_iter().map(with_head).collect(), total))
        })
    }

    /// Reads the document of one object in both its forms: bare (documented), and `{"data": {…}}`,
    /// as servers send it that also wrap lists.
    ///
    /// # Errors
    /// The body is no JSON. Returns it with the reason.
    pub fn single(resource: &'static Resource, body: ResponseBody, key: &DigestKey) -> Result<Self, (Vec<u8>, String)> {
        Self::new(resource, body, key, |text| {
            let (document, head) = with_head(serde_json::from_str(text)?);
            let object = match head.data.filter(|data| data.get().starts_with('{')) {
                Some(object) if head.id.is_none() => with_head(object),
                _ => (document, head),
            };
            Ok((vec![object], None))
        })
    }

    fn new(
        resource: &'static Resource,
        ResponseBody { bytes, date }: ResponseBody,
        key: &DigestKey,
        split: impl for<'a> Fn(&'a str) -> serde_json::Result<(Vec<(&'a str, DocumentHead<'a>)>, Option<u64>)>,
    ) -> Result<Self, (Vec<u8>, String)> {
        // Bytes that are not UTF-8 are replaced: one broken document must not cost its whole page.
        let (text, broken) = match String::from_utf8(bytes) {
            Ok(text) => (text, Vec::new()),
            Err(error) => (
                String::from_utf8_lossy(error.as_bytes()).into_owned(),
                error.into_bytes(),
            ),
        };
        let (objects, total) = match split(&text) {
            Ok((objects, total)) => {
                let mut replaced = replaced(&broken).peekable();
                let objects = objects
                    .into_iter()
                    .map(|(document, head)| {
                        let start = document.as_ptr() as usize - text.as_ptr() as usize;
                        let range = start..start + document.len();
                        while replaced.next_if(|&at| at < range.start).is_some() {}
                        let is_mangled = replaced.peek().is_some_and(|at| range.contains(at));
                        RawObject::new(resource, document, head, key, range, is_mangled)
                    })
                    .collect();
                (objects, total)
            }
            Err(error) => return Err((text.into_bytes(), error.to_string())),
        };
        Ok(Self {
            text,
            objects,
            date,
            total,
        })
    }

    /// Cuts fields out of the documents. The digests stay those of the whole documents.
    #[must_use]
    pub fn without(mut self, excluded: &Exclusions, resource: &Resource) -> Self {
        if excluded.names().is_empty() {
            return self;
        }
        let mut text = String::with_capacity(self.text.len());
        for object in &mut self.objects {
            let document = &self.text[object.range.clone()];
            let start = text.len();
            match object.is_mangled {
                // A key may be broken, too.
                true => text.push_str("null"),
                false => text.push_str(&excluded.cut(resource, document)),
            }
            object.range = start..text.len();
        }
        self.text = text;
        self
    }

    /// Returns the objects, in the server's order.
    pub fn objects(&self) -> &[RawObject] {
        &self.objects
    }

    /// Returns the document of one of [`Self::objects`].
    pub fn document(&self, object: &RawObject) -> &str {
        &self.text[object.range.clone()]
    }
}

impl RawObject {
    fn new(
        resource: &'static Resource,
        json: &str,
        head: DocumentHead<'_>,
        key: &DigestKey,
        range: ops::Range<usize>,
        is_mangled: bool,
    ) -> Self {
        let time = |value: Option<&RawValue>| value.and_then(|at| resource::time(at.get()));
        Self {
            id: head
                .id
                .and_then(|id| serde_json::from_str::<Cow<'_, str>>(id.get()).ok())
                .filter(|id| (1..=MAX_ID).contains(&id.len()) && !id.contains('\0'))
                .map(Cow::into_owned),
            created_at: time(head.created_at),
            updated_at: time(head.updated_at),
            digest: match head.embedded {
                Some((name, part)) if resource.embedded == Some(name) => {
                    let start = part.get().as_ptr() as usize - json.as_ptr() as usize;
                    Digest::without(key, json.as_bytes(), start..start + part.get().len())
                }
                _ => Digest::of(key, json.as_bytes()),
            },
            is_mangled,
            range,
        }
    }
}

/// Returns where replacement characters are in the text that was made of these bytes, in order.
/// They are not collected, as there may be as many as bytes.
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
    use crate::resource::{MEMBERSHIPS, USERS};

    fn body(bytes: impl Into<Vec<u8>>) -> ResponseBody {
        ResponseBody {
            bytes: bytes.into(),
            date: None,
        }
    }

    fn parse(bytes: impl Into<Vec<u8>>) -> Result<Page, (Vec<u8>, String)> {
        Page::parse(&USERS, body(bytes), &DigestKey::default())
    }

    fn ids(bytes: &[u8]) -> Vec<Option<String>> {
        let page = parse(bytes).unwrap();
        page.objects.into_iter().map(|raw| raw.id).collect()
    }

    #[test]
    fn both_forms_of_a_list() {
        let expected = [Some("a".to_owned()), None];
        assert_eq!(ids(br#"[{"id":"a"},{"id":7}]"#), expected);
        assert_eq!(ids(br#" {"data":[{"id":"a"}, "x"],"total_count":2}"#), expected);
        assert_eq!(ids(br#" {"total_count":2,"data":[{"id":"a"}, "x"]}"#), expected);
        for (list, total) in [
            (r#"{"data":[{"id":"a"}],"total_count":12}"#, Some(12)),
            (r#" { "data" : [ {"id":"a"} ] , "total_count" : 12 } "#, Some(12)),
            (r#"{"total_count":12,"data":[{"id":"a"}]}"#, Some(12)),
            (r#"{"data":[{"id":"a"}],"total_count":null}"#, None),
            (r#"{"data":[{"id":"a"}]}"#, None),
            (r#"{"data":[{"id":"a"}],"more":{"data":[]}}"#, None),
        ] {
            let page = parse(list).unwrap();
            assert_eq!(
                (page.objects()[0].id.as_deref(), page.total),
                (Some("a"), total),
                "{list}"
            );
        }
        for broken in [
            r#"{"data":[{"id":"a"}]"#,
            r#"{"data":[{"id":"a"}],"data":[{"id":"b"}]}"#,
            r#"{"data":[{"id":"a"}]}}"#,
            r#"{"data":[{"id":"a"}],}"#,
        ] {
            assert!(parse(broken).is_err(), "{broken}");
        }
        assert_eq!(ids(b"[]"), []);
    }

    #[test]
    fn a_wrapped_user_is_read() {
        let single = |text: &str| Page::single(&USERS, body(text), &DigestKey::default()).unwrap();
        for text in [
            r#"{"id":"a","created_at":1}"#,
            r#" {"object":"user", "data": {"id":"a","created_at":1} }"#,
        ] {
            let page = single(text);
            assert_eq!(page.objects()[0].id.as_deref(), Some("a"), "{text}");
            assert_eq!(page.document(&page.objects()[0]), r#"{"id":"a","created_at":1}"#);
        }
        // A field of the user's that happens to have that name.
        let page = single(r#"{"id":"a","data":{"id":"b"}}"#);
        assert_eq!(page.objects()[0].id.as_deref(), Some("a"));
        for text in [r#"{"data":[{"id":"b"}]}"#, r#"{"data":"b"}"#, "[]", "7"] {
            assert_eq!(single(text).objects()[0].id, None, "{text}");
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
                let raw = &page.objects()[0];
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
        assert_eq!(page.document(&page.objects()[0]), document);
        assert_eq!(
            page.objects()[0].digest,
            Digest::of(&DigestKey::default(), document.as_bytes())
        );
        assert_eq!(page.objects()[0].created_at, Some(1_700_000_000_000));
    }

    #[test]
    fn an_embedded_object_is_no_part_of_the_digest() {
        let digest = |resource, document: &str| {
            let list = format!(r#"{{"data":[{document}],"total_count":12}}"#);
            let page = Page::parse(resource, body(list), &DigestKey::default()).unwrap();
            assert_eq!(page.total, Some(12));
            page.objects()[0].digest
        };
        let (one, two) = (
            r#"{"id":"a","organization":{"id":"o","name":"One"},"role":"r"}"#,
            r#"{"id":"a","organization":{"id":"o","name":"Another"},"role":"r"}"#,
        );
        assert_eq!(digest(&MEMBERSHIPS, one), digest(&MEMBERSHIPS, two));
        assert_ne!(digest(&USERS, one), digest(&USERS, two));
        assert_ne!(
            digest(&MEMBERSHIPS, one),
            digest(&MEMBERSHIPS, &one.replace("\"r\"", "\"s\""))
        );
    }

    #[test]
    fn bytes_that_are_no_text_spoil_their_own_document_only() {
        let page = parse(b"[{\"id\":\"a\"},{\"id\":\"b\",\"x\":\"\xff\"},{\"id\":\"c\"}]").unwrap();
        let mangled: Vec<_> = page.objects().iter().map(|raw| raw.is_mangled).collect();
        assert_eq!(mangled, [false, true, false]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_page_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(bytes.clone());
            let _ = Page::single(&USERS, body(bytes), &DigestKey::default());
        }

        /// In one go or in two, the documents are the same.
        #[test]
        fn a_list_is_split_alike_in_both_ways(
            objects in prop::collection::vec(r#" ?\{("id": ?"[a-z]"(, ?"created_at":[0-9]{1,3})?)? ?(,?"x":\[\{\},"\]"\])?\}"#, 0..5), space in "[ \n]?",
        ) {
            let text = format!("{space}[{}{space}]{space}", objects.join(","));
            let plain: Result<Vec<&RawValue>, _> = serde_json::from_str(&text);
            let expected = plain.map(|objects| objects.iter().map(|raw| raw.get()).collect::<Vec<_>>());
            match (split_array(&text), expected) {
                (Some((objects, "")), expected) => {
                    prop_assert_eq!(objects.iter().map(|(document, _)| *document).collect::<Vec<_>>(), expected.unwrap());
                }
                (_, expected) => prop_assert!(objects.is_empty() || expected.is_err(), "{}", text),
            }
        }

        #[test]
        fn nearly_json_gives_a_page_or_an_error(text in r#"[\[\]{}",:0-9a-z\\]{0,80}"#) {
            if let Ok(page) = parse(text) {
                for raw in page.objects() {
                    let _ = resource::decode(&resource::USERS, page.document(raw));
                }
            }
        }
    }
}
