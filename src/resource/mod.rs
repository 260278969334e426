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
mod exclusions;
mod invitations;
mod json;
mod keys;
mod memberships;
mod number;
mod organizations;
mod permissions;
mod place;
mod record;
mod roles;
mod storable;
mod users;
mod value;

pub use decode::{MAX_DOCUMENT, MAX_ID, MAX_KEYS, Rejection, decode, decode_stored};
pub use definition::{
    Confirm, Count, Deletion, Dependent, Derived, DerivedColumn, DocumentKeys, Field, FieldKind, ID, List, MAX_IDS,
    MAX_PAGE, Moves, Resource, embedded_key,
};
pub use digest::{Digest, DigestKey};
pub use exclusions::{Exclusions, excludable};
pub use invitations::INVITATIONS;
pub use memberships::MEMBERSHIPS;
pub use number::{milliseconds, time};
pub use organizations::ORGANIZATIONS;
pub use permissions::PERMISSIONS;
pub use place::Place;
pub use record::{Change, Record};
pub use roles::ROLES;
pub use storable::MAX_DEPTH;
pub use users::USERS;
pub use value::FieldValue;

/// All kinds of objects that can be mirrored, in the order of their syncs: what refers to others comes
/// after them.
pub static RESOURCES: [&Resource; 6] = [&USERS, &ORGANIZATIONS, &MEMBERSHIPS, &INVITATIONS, &ROLES, &PERMISSIONS];

/// Returns the resource that an id belongs to, by its prefix. Emulators give users other prefixes than
/// Clerk.
pub fn of_id(id: &str) -> &'static Resource {
    let is_of = |resource: &&&'static Resource| id.starts_with(resource.id_prefix);
    RESOURCES.iter().find(is_of).copied().unwrap_or(&USERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_told_by_its_names_and_the_prefix_of_its_ids() {
        for (at, resource) in RESOURCES.iter().enumerate() {
            let embedded = resource.embedded;
            assert_eq!(
                embedded,
                embedded.and_then(|key| embedded_key(key.as_bytes())),
                "{}",
                resource.name
            );
            assert_eq!(resource.fields[ID].name, "id");
            for other in &RESOURCES[at + 1..] {
                assert_ne!(resource.table, other.table);
                assert_ne!(resource.event, other.event);
                assert!(
                    !other.id_prefix.starts_with(resource.id_prefix),
                    "{} and {}",
                    resource.name,
                    other.name
                );
                assert!(
                    !resource.id_prefix.starts_with(other.id_prefix),
                    "{} and {}",
                    resource.name,
                    other.name
                );
            }
        }
    }
}
