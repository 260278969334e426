//! Writes organizations and what belongs to them, as requests show them.
//!
//! A stored document has only what was written. What follows from other objects is added here: the
//! counts of an organization, the organization and the user of a membership, the names of roles.

use super::public_data;
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
    let has_additions = include.members_count || include.missing_member_with_elevated_permissions;
    let open = if has_additions {
        entry.part(|| without_end(entry))
    } else {
        b""
    };
    if open.is_empty() {
        return out.extend_from_slice(entry.stored());
    }
    let mut object = ObjectWriter::resume(open, out);
    let members = rendering.view.of(Kind::OrganizationMemberships);
    if include.members_count {
        let invitations = rendering.view.of(Kind::OrganizationInvitations);
        let pending = invitations.group_len(&INVITED_TO_AND_STATUS, &format!("{} {PENDING}", entry.id));
        object.value("members_count", &members.group_len(&MEMBER_IN, &entry.id));
        object.value("pending_invitations_count", &pending);
    }
    if include.missing_member_with_elevated_permissions {
        let is_admin = |member: &Entry| {
            let role = Properties::read(member.stored()).and_then(|member| member.value::<String>("role"));
            role.as_deref() == Some(ADMIN)
        };
        let all = members.group(&MEMBER_IN, &entry.id);
        let has_admin = all.iter().any(|member| is_admin(member));
        object.value("missing_member_with_elevated_permissions", &!has_admin);
    }
    object.end();
}

/// An organization up to where counts are added. Empty if it is no object, or has counts already.
fn without_end(entry: &Entry) -> Vec<u8> {
    let is_count = |key: &str| key == "members_count" || key == "pending_invitations_count";
    let properties = Properties::read(entry.stored()).unwrap_or_default();
    if properties.iter().any(|(key, _)| is_count(key)) {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(entry.stored().len());
    let mut object = ObjectWriter::new(&mut out);
    for (key, value) in properties.iter() {
        object.raw(key, value);
    }
    if object.is_empty { Vec::new() } else { out }
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
    let organization = rendering.view.of(Kind::Organizations).get(&organization_id);
    let mut object = ObjectWriter::new(out);
    for (key, value) in properties.iter() {
        match (key, organization, &user_id) {
            ("organization", Some(organization), _) => object.with(key, |out| {
                write_organization(organization, rendering, Include::COUNTS, out);
            }),
            ("public_user_data", _, Some(user_id)) => {
                let user = rendering.view.of(Kind::Users).get(user_id);
                object.with(key, |out| match user {
                    Some(user) => out.extend_from_slice(user.part(|| public_data::member(user_id, Some(user)))),
                    None => out.extend(public_data::member(user_id, None)),
                });
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
    let inviter = inviter.map(|user| public_data::inviter(user));
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

    /// Goes on behind properties that are written already.
    fn resume(open: &[u8], out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(open);
        Self { out, is_empty: false }
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
