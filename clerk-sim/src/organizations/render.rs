//! Writes organizations and what belongs to them, as requests show them.
//!
//! A stored document has only what was written. What follows from other objects is added here: the
//! counts of an organization, the organization and the user of a membership, the names of roles.

use super::public_data::{self, Profile};
use super::resource::{INVITED_TO_AND_STATUS, MEMBER_IN};
use crate::kind::Kind;
use crate::list::rendering::{Include, Rendering};
use crate::store::entry::Entry;
use crate::store::properties::Properties;

/// The status of an invitation that can still be accepted.
pub(crate) const PENDING: &str = "pending";
/// The role of those who manage an organization.
pub(super) const ADMIN: &str = "org:admin";

/// Writes exactly what is stored.
pub(crate) fn as_stored(entry: &Entry, _: &Rendering<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(entry.stored());
}

/// Writes an organization, with its counts if the request asks for them (documented). That both
/// counts come and go together is a guess: both were observed in memberships, and neither was
/// observed in `organization.created`.
pub(crate) fn organization(entry: &Entry, rendering: &Rendering<'_>, out: &mut Vec<u8>) {
    write_organization(entry, rendering, rendering.include, out);
}

fn write_organization(entry: &Entry, rendering: &Rendering<'_>, include: Include, out: &mut Vec<u8>) {
    let mut added = Vec::new();
    let members = || rendering.view.of(Kind::OrganizationMemberships);
    if include.members_count {
        let invitations = rendering.view.of(Kind::OrganizationInvitations);
        let pending = invitations.group_len(&INVITED_TO_AND_STATUS, &format!("{} {PENDING}", entry.id));
        added.push(("members_count", members().group_len(&MEMBER_IN, &entry.id).to_string()));
        added.push(("pending_invitations_count", pending.to_string()));
    }
    if include.missing_member_with_elevated_permissions {
        let is_admin = |member: &Entry| {
            let role = Properties::read(member.stored()).and_then(|member| member.value::<String>("role"));
            role.as_deref() == Some(ADMIN)
        };
        let has_admin = members()
            .group(&MEMBER_IN, &entry.id)
            .iter()
            .any(|member| is_admin(member));
        added.push(("missing_member_with_elevated_permissions", (!has_admin).to_string()));
    }
    let Some(properties) = Properties::read(entry.stored()).filter(|_| !added.is_empty()) else {
        return out.extend_from_slice(entry.stored());
    };
    let mut object = ObjectWriter::new(out);
    for (key, value) in properties.iter() {
        object.raw(key, value);
    }
    for (key, value) in added.iter().filter(|(key, _)| properties.raw(key).is_none()) {
        object.raw(key, value);
    }
    object.end();
}

/// Writes a membership with its organization, its user, and what its role means.
///
/// The organization has its counts (observed). If the stored one is more than an id, the membership
/// is shown exactly as it is stored.
pub(crate) fn membership(entry: &Entry, rendering: &Rendering<'_>, out: &mut Vec<u8>) {
    let properties = Properties::read(entry.stored()).unwrap_or_default();
    let Some(organization_id) = reference(&properties, "organization", "id") else {
        return out.extend_from_slice(entry.stored());
    };
    let user_id = reference(&properties, "public_user_data", "user_id");
    let mut object = ObjectWriter::new(out);
    for (key, value) in properties.iter() {
        match (key, &user_id) {
            ("organization", _) => match rendering.view.of(Kind::Organizations).get(&organization_id) {
                Some(organization) => object.with(key, |out| {
                    write_organization(organization, rendering, Include::COUNTS, out);
                }),
                None => object.raw(key, value),
            },
            ("public_user_data", Some(user_id)) => {
                let user = rendering.view.of(Kind::Users).get(user_id);
                object.value(key, &public_data::member(user_id, &Profile::read(user)));
            }
            _ => object.raw(key, value),
        }
    }
    let key = properties.value::<String>("role").unwrap_or_default();
    let role = rendering.roles().get(&key);
    if let Some(role) = role {
        object.value("role_name", &role.name);
    }
    object.value("permissions", role.map_or(&[][..], |role| &role.permissions));
    object.end();
}

/// Writes an invitation with the name of its role and its inviter.
pub(crate) fn invitation(entry: &Entry, rendering: &Rendering<'_>, out: &mut Vec<u8>) {
    write_invitation(entry, rendering, false, out);
}

/// Writes an invitation as lists of more than one organization show it.
pub(crate) fn invitation_with_organization(entry: &Entry, rendering: &Rendering<'_>, out: &mut Vec<u8>) {
    write_invitation(entry, rendering, true, out);
}

/// If the stored invitation says who the inviter is, it is shown exactly as it is stored.
fn write_invitation(entry: &Entry, rendering: &Rendering<'_>, with_organization: bool, out: &mut Vec<u8>) {
    let is_whole = |properties: &Properties<'_>| properties.iter().any(|(key, _)| key == "public_inviter_data");
    let Some(properties) = Properties::read(entry.stored()).filter(|properties| !is_whole(properties)) else {
        return out.extend_from_slice(entry.stored());
    };
    let mut object = ObjectWriter::new(out);
    for (key, value) in properties.iter() {
        object.raw(key, value);
    }
    let key = properties.value::<String>("role").unwrap_or_default();
    let role = rendering.roles().get(&key);
    object.value("role_name", role.map_or(&key, |role| &role.name));
    let inviter_id = properties.value::<String>("inviter_id").unwrap_or_default();
    // Null after the inviter was deleted (a guess).
    let inviter = rendering.view.of(Kind::Users).get(&inviter_id);
    let inviter = inviter.map(|user| public_data::inviter(&inviter_id, &Profile::read(Some(user))));
    object.value("public_inviter_data", &inviter);
    let organization_id = properties.value::<String>("organization_id").unwrap_or_default();
    let organization = rendering.view.of(Kind::Organizations).get(&organization_id);
    if let Some(organization) = organization.filter(|_| with_organization) {
        object.value("public_organization_data", &public_data::organization(organization));
    }
    object.end();
}

/// The id in an object that has nothing else. `None` if there is more.
fn reference(properties: &Properties<'_>, key: &str, id: &str) -> Option<String> {
    let object = properties.object(key).filter(|object| object.iter().count() == 1)?;
    object.value(id)
}

/// Writes the properties of a JSON object one by one.
struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> ObjectWriter<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    fn with(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        serde_json::to_writer(&mut *self.out, key).expect("a string can be written to memory");
        self.out.push(b':');
        write(self.out);
    }

    fn raw(&mut self, key: &str, json: &str) {
        self.with(key, |out| out.extend_from_slice(json.as_bytes()));
    }

    fn value(&mut self, key: &str, value: &(impl serde::Serialize + ?Sized)) {
        self.with(key, |out| {
            serde_json::to_writer(out, value).expect("a value can be written to memory");
        });
    }

    fn end(self) {
        self.out.push(b'}');
    }
}
