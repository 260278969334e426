//! Answers requests about organizations and what belongs to them.

use serde_json::json;

use super::objects;
use super::organization_route::{Operation, OrganizationRoute};
use super::reply::Reply;
use super::request::ApiRequest;
use crate::errors::Failure;
use crate::faults::OrganizationsOff;
use crate::kind::Kind;
use crate::list::filter::Lookup;
use crate::list::resource::Resource;
use crate::organizations::errors;
use crate::organizations::render::PENDING;
use crate::organizations::resource::{
    INVITATIONS, INVITATIONS_OF_ORGANIZATION, INVITATIONS_OF_USER, INVITED_ADDRESS, INVITED_TO, INVITED_TO_AND_STATUS,
    MEMBER_IN, MEMBER_USER, MEMBERSHIPS, MEMBERSHIPS_OF_ORGANIZATION, MEMBERSHIPS_OF_USER, ORGANIZATIONS,
    PENDING_INVITATIONS, PERMISSIONS, ROLES, SLUG,
};
use crate::organizations::{invitations, memberships, organization};
use crate::state::State;
use crate::store::groups::group_of;
use crate::store::properties::{Properties, Text};
use crate::users::resource::{EMAIL_ADDRESS, USERS};

use Operation as O;

/// Answers a request, or refuses it if organizations are off.
pub(super) fn answer(state: &State, route: OrganizationRoute<'_>, request: &ApiRequest<'_>) -> Result<Reply, Failure> {
    match request.quirks.organizations_off {
        Some(OrganizationsOff::Forbidden) => return Err(errors::not_enabled(403)),
        Some(OrganizationsOff::NotFound) => return Err(errors::not_enabled(404)),
        Some(OrganizationsOff::Missing) => return Err(Failure::no_path(request.path)),
        None if !state.organizations_are_enabled() => return Err(errors::not_enabled(403)),
        None => {}
    }
    let [first, second] = route.ids;
    let list = |resource| objects::list(state, resource, request, Vec::new());
    match route.operation {
        O::ListOrganizations => list(&ORGANIZATIONS),
        O::ListMemberships => list(&MEMBERSHIPS),
        O::ListInvitations => list(&INVITATIONS),
        O::ListRoles => list(&ROLES),
        O::ListPermissions => list(&PERMISSIONS),
        O::ListMembershipsOfOrganization | O::ListInvitationsOfOrganization | O::ListPendingInvitations => {
            list_of_organization(state, route, request)
        }
        O::ListMembershipsOfUser => {
            check_exists(state, &USERS, first, request)?;
            let lookup = Lookup::of_path(&MEMBER_USER, vec![first.to_owned()]);
            objects::list(state, &MEMBERSHIPS_OF_USER, request, vec![lookup])
        }
        O::ListInvitationsOfUser => list_invitations_of_user(state, first, request),
        O::GetOrganization => get_organization(state, first, request),
        O::GetInvitation => get_invitation(state, first, second, request),
        O::GetRole => objects::single(state, &ROLES, first, request),
        O::GetPermission => objects::single(state, &PERMISSIONS, first, request),
        _ => write(state, route, request),
    }
}

/// Answers a request that changes something.
fn write(state: &State, route: OrganizationRoute<'_>, request: &ApiRequest<'_>) -> Result<Reply, Failure> {
    let ([first, second], body) = (route.ids, request.body);
    // Answers show what was written, as the primary has it.
    let written = |resource, id: &str| objects::single_as_of(state, resource, id, request, None);
    match route.operation {
        O::CreateOrganization => written(&ORGANIZATIONS, &organization::create(state, body)?),
        O::UpdateOrganization => {
            organization::update(state, first, body, request.version)?;
            written(&ORGANIZATIONS, first)
        }
        O::MergeMetadata => {
            organization::merge_metadata(state, first, body)?;
            written(&ORGANIZATIONS, first)
        }
        O::ReplaceMetadata => {
            organization::replace_metadata(state, first, body)?;
            written(&ORGANIZATIONS, first)
        }
        O::DeleteOrganization => delete_organization(state, first),
        O::AddMember => written(&MEMBERSHIPS, &memberships::add(state, first, body)?),
        O::ChangeRole => written(&MEMBERSHIPS, &memberships::change_role(state, first, second, body)?),
        O::MergeMembershipMetadata => {
            let id = memberships::merge_metadata(state, first, second, body)?;
            written(&MEMBERSHIPS, &id)
        }
        O::RemoveMember => {
            let removed = memberships::remove(state, first, second)?;
            objects::shown(state, &MEMBERSHIPS, &removed, request)
        }
        O::Invite => written(&INVITATIONS_OF_ORGANIZATION, &invitations::invite(state, first, body)?),
        O::InviteMany => {
            let ids = invitations::invite_many(state, first, body)?;
            objects::many(state, &INVITATIONS_OF_ORGANIZATION, &ids, request)
        }
        O::RevokeInvitation => {
            invitations::revoke(state, first, second, body)?;
            written(&INVITATIONS_OF_ORGANIZATION, second)
        }
        // All others are reads.
        _ => Err(Failure::no_path(request.path)),
    }
}

/// Refuses a list of an object that does not exist (a guess).
fn check_exists(state: &State, resource: &Resource, id: &str, request: &ApiRequest<'_>) -> Result<(), Failure> {
    let stores = state.read();
    let view = stores.at(request.lists_as_of());
    let found = view.of(resource.kind).get(id);
    found.map(|_| ()).ok_or_else(|| Failure::no_object(resource.object, id))
}

fn list_of_organization(
    state: &State,
    route: OrganizationRoute<'_>,
    request: &ApiRequest<'_>,
) -> Result<Reply, Failure> {
    let id = route.ids[0];
    check_exists(state, &ORGANIZATIONS, id, request)?;
    let (resource, by, value) = match route.operation {
        O::ListMembershipsOfOrganization => (&MEMBERSHIPS_OF_ORGANIZATION, &MEMBER_IN, id.to_owned()),
        O::ListPendingInvitations => (&PENDING_INVITATIONS, &INVITED_TO_AND_STATUS, format!("{id} {PENDING}")),
        _ => (&INVITATIONS_OF_ORGANIZATION, &INVITED_TO, id.to_owned()),
    };
    objects::list(state, resource, request, vec![Lookup::of_path(by, vec![value])])
}

/// Lists the invitations to the addresses of a user.
fn list_invitations_of_user(state: &State, id: &str, request: &ApiRequest<'_>) -> Result<Reply, Failure> {
    check_exists(state, &USERS, id, request)?;
    let addresses = {
        let stores = state.read();
        let view = stores.at(request.lists_as_of());
        let user = view.of(Kind::Users).get(id);
        let properties = user
            .and_then(|user| Properties::read(user.stored()))
            .unwrap_or_default();
        EMAIL_ADDRESS.read(id, &properties)
    };
    if addresses.is_empty() {
        return Ok(Reply::value(&json!({"data": [], "total_count": 0})));
    }
    let lookup = Lookup::of_path(&INVITED_ADDRESS, addresses);
    objects::list(state, &INVITATIONS_OF_USER, request, vec![lookup])
}

/// Answers with an organization, by its id or its slug.
fn get_organization(state: &State, id_or_slug: &str, request: &ApiRequest<'_>) -> Result<Reply, Failure> {
    let id = {
        let stores = state.read();
        let view = stores.at(request.single_read_as_of());
        let organizations = view.of(Kind::Organizations);
        let found = organizations
            .get(id_or_slug)
            .or_else(|| organizations.by_identifier(&SLUG, id_or_slug));
        found.map_or_else(|| id_or_slug.to_owned(), |entry| entry.id.to_string())
    };
    objects::single(state, &ORGANIZATIONS, &id, request)
}

/// Answers with an invitation of an organization.
fn get_invitation(state: &State, organization: &str, id: &str, request: &ApiRequest<'_>) -> Result<Reply, Failure> {
    let is_of_organization = {
        let stores = state.read();
        let view = stores.at(request.single_read_as_of());
        let invitation = view.of(Kind::OrganizationInvitations).get(id);
        invitation.and_then(|entry| group_of(entry, &INVITED_TO)).as_deref() == Some(organization)
    };
    if !is_of_organization {
        return Err(Failure::no_object(INVITATIONS.object, id));
    }
    objects::single(state, &INVITATIONS_OF_ORGANIZATION, id, request)
}

fn delete_organization(state: &State, id: &str) -> Result<Reply, Failure> {
    let deleted = organization::delete(state, id)?;
    let mut body = json!({"object": ORGANIZATIONS.object, "id": id, "deleted": true});
    if let Some(slug) = group_of(&deleted, &Text::Property("slug")) {
        body["slug"] = slug.into();
    }
    Ok(Reply::value(&body))
}
