//! The resources of all kinds.

use crate::clock::now;
use crate::kind::Kind;
use crate::list::rendering::{Include, Rendering};
use crate::list::resource::Resource;
use crate::organizations::resource::{INVITATIONS_OF_ORGANIZATION, MEMBERSHIPS, ORGANIZATIONS, PERMISSIONS, ROLES};
use crate::state::State;
use crate::users::resource::USERS;

/// The resource that shows objects of a kind as reads by id do.
fn of(kind: Kind) -> &'static Resource {
    match kind {
        Kind::Users => &USERS,
        Kind::Organizations => &ORGANIZATIONS,
        Kind::OrganizationMemberships => &MEMBERSHIPS,
        Kind::OrganizationInvitations => &INVITATIONS_OF_ORGANIZATION,
        Kind::OrganizationRoles => &ROLES,
        Kind::OrganizationPermissions => &PERMISSIONS,
    }
}

/// The bytes of an object as it is, whatever the faults. `None` if there is none.
pub(crate) fn shown(state: &State, kind: Kind, id: &str) -> Option<Vec<u8>> {
    let stores = state.read();
    let view = stores.at(None);
    let rendering = Rendering::new(&view, now(), Include::COUNTS);
    let mut bytes = Vec::new();
    (of(kind).write)(view.of(kind).get(id)?, &rendering, &mut bytes);
    Some(bytes)
}
