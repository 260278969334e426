//! What is mirrored, as data, and the way from a document's bytes to a [`Record`]. Knows neither
//! HTTP nor SQL connections.
//!
//! A kind of Clerk object is a [`Resource`]: a value that the client, the decoder, the comparison
//! and the statement that writes rows all read. A field that Clerk adds is one line in the
//! resource's table of fields and one column in a migration.

mod contact;
mod decode;
mod definition;
mod digest;
mod json;
mod keys;
mod number;
mod record;
mod storable;
mod users;
mod value;

pub use decode::{MAX_DOCUMENT, MAX_ID, MAX_KEYS, Rejection, decode, decode_stored};
pub use definition::{
    Confirm, Derived, DerivedColumn, DocumentKeys, Field, FieldKind, ID, List, MAX_IDS, MAX_PAGE, Moves, Resource,
};
pub use digest::{Digest, DigestKey};
pub use number::{milliseconds, time};
pub use record::{Change, Record};
pub use storable::MAX_DEPTH;
pub use users::USERS;
pub use value::FieldValue;

/// All kinds of objects that are mirrored.
pub static RESOURCES: [&Resource; 1] = [&USERS];
