//! The keys of a JSON object, also those that Postgres cannot hold.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Collects the keys of an object in their order, with their values not decoded. U+0000 and halves
/// of surrogate pairs, which Postgres cannot hold, are spelled out as the six letters of their
/// escapes. A key without an escape is borrowed.
///
/// # Errors
/// Of the category `Data` if the text is something else than an object; of another category if it
/// is no JSON.
pub(super) fn keys<'a, C>(json: &'a str) -> serde_json::Result<C>
where
    C: Default + Extend<(Cow<'a, str>, &'a RawValue)>,
{
    read(json, KeyForm::Text).or_else(|error| {
        // As text, half of a surrogate pair in a key is an error of the whole object. As bytes,
        // keys take longer, and this parser accepts characters that JSON forbids, for example
        // U+0000.
        if json.contains('\0') {
            return Err(error);
        }
        read(json, KeyForm::Bytes)
    })
}

fn read<'a, C>(json: &'a str, form: KeyForm) -> serde_json::Result<C>
where
    C: Default + Extend<(Cow<'a, str>, &'a RawValue)>,
{
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let object = ObjectVisitor(form, PhantomData);
    let keys = deserializer.deserialize_map(object)?;
    deserializer.end()?;
    Ok(keys)
}

/// The type that keys are read as.
#[derive(Clone, Copy)]
enum KeyForm {
    Text,
    Bytes,
}

struct ObjectVisitor<C>(KeyForm, PhantomData<C>);

impl<'de, C> Visitor<'de> for ObjectVisitor<C>
where
    C: Default + Extend<(Cow<'de, str>, &'de RawValue)>,
{
    type Value = C;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<C, A::Error> {
        let mut keys = C::default();
        while let Some(key) = map.next_key_seed(self.0)? {
            keys.extend([(key, map.next_value()?)]);
        }
        Ok(keys)
    }
}

impl<'de> DeserializeSeed<'de> for KeyForm {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        match self {
            KeyForm::Text => deserializer.deserialize_str(self),
            KeyForm::Bytes => deserializer.deserialize_bytes(self),
        }
    }
}

impl<'de> Visitor<'de> for KeyForm {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(text.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(text.replace('\0', r"\u0000").into())
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Cow<'de, str>, E> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.visit_borrowed_str(text),
            Err(_) => self.visit_bytes(bytes),
        }
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Cow<'de, str>, E> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.visit_str(text),
            Err(_) => self.visit_str(&spell_out_halves(bytes)),
        }
    }
}

/// Spells out halves of surrogate pairs, which are here as the three bytes that UTF-8 would have
/// for them.
fn spell_out_halves(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(3).position(|part| part[0] == 0xED && part[1] >= 0xA0) {
        let half = 0xD000 | u32::from(rest[at + 1] & 0x3F) << 6 | u32::from(rest[at + 2] & 0x3F);
        text += &String::from_utf8_lossy(&rest[..at]);
        text += &format!("\\u{half:04x}");
        rest = &rest[at + 3..];
    }
    text += &String::from_utf8_lossy(rest);
    text
}
