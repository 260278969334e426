//! Requests that change memberships.
//!
//! Parameters and errors are documented, except for the errors of an unknown user and of somebody
//! who is no member (guesses). That an organization keeps an admin is not checked.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::errors::{already_a_member, no_organization, no_role, too_many_members};
use super::generate::membership_with;
use super::organization::set_metadata;
use super::render::PENDING;
use super::resource::{INVITED_TO_AND_STATUS, KEY, MEMBER_IN, MEMBER_USER};
use crate::clock::now;
use crate::errors::Failure;
use crate::kind::Kind;
use crate::metadata::merge;
use crate::parameters::{Parameter, ParameterType, Parameters};
use crate::state::State;
use crate::store::edit::{Touch, edit_object};
use crate::store::entry::Entry;
use crate::store::groups::group_of;
use crate::store::properties::Properties;
use crate::stores::Stores;

const ADD: [Parameter; 4] = [
    ("user_id", ParameterType::Text),
    ("role", ParameterType::Text),
    ("public_metadata", ParameterType::ObjectOrNull),
    ("private_metadata", ParameterType::ObjectOrNull),
];

const METADATA: [Parameter; 2] = [
    ("public_metadata", ParameterType::Object),
    ("private_metadata", ParameterType::Object),
];

/// Adds a user to an organization, and returns the id of the membership.
pub(crate) fn add(state: &State, organization: &str, body: &[u8]) -> Result<String, Failure> {
    let parameters = Parameters::read(body, &ADD)?;
    let (user, role) = (parameters.required("user_id")?, parameters.required("role")?);
    let mut stores = state.write();
    check_organization(&stores, organization)?;
    check_role(&stores, role)?;
    if stores.of(Kind::Users).get(user).is_none() {
        return Err(Failure::no_object("user", user));
    }
    if find(&stores, organization, user).is_some() {
        return Err(already_a_member(user));
    }
    check_limit(&stores, organization, 1)?;
    let metadata = ["public_metadata", "private_metadata"].map(|name| parameters.object(name));
    Ok(put(state, &mut stores, organization, user, role, metadata))
}

/// Adds a membership without any check, with this public and private metadata.
pub(crate) fn put(
    state: &State,
    stores: &mut Stores,
    organization: &str,
    user: &str,
    role: &str,
    metadata: [Map<String, Value>; 2],
) -> String {
    let now = now();
    let rng = &mut *state.organization_rng();
    let membership = membership_with(organization, user, role, now, metadata, rng);
    let id = membership.id.to_string();
    stores.of_mut(Kind::OrganizationMemberships).put(membership, now);
    id
}

/// The membership of a user in an organization. `None` if there is none.
pub(crate) fn find(stores: &Stores, organization: &str, user: &str) -> Option<Arc<Entry>> {
    let group = stores.of(Kind::OrganizationMemberships).group(&MEMBER_USER, user);
    let mut memberships = group.range(0..group.len());
    let is_in = |entry: &&Arc<Entry>| group_of(entry, &MEMBER_IN).as_deref() == Some(organization);
    memberships.find(is_in).cloned()
}

/// Changes the role of a member, and returns the id of the membership.
pub(crate) fn change_role(state: &State, organization: &str, user: &str, body: &[u8]) -> Result<String, Failure> {
    let parameters = Parameters::read(body, &[("role", ParameterType::Text)])?;
    let role = parameters.required("role")?;
    check_role(&state.read(), role)?;
    change(state, organization, user, |membership| {
        membership.insert("role".to_owned(), role.into());
    })
}

/// Merges metadata into that of a membership, and returns its id.
pub(crate) fn merge_metadata(state: &State, organization: &str, user: &str, body: &[u8]) -> Result<String, Failure> {
    let parameters = Parameters::read(body, &METADATA)?;
    change(state, organization, user, |membership| {
        set_metadata(membership, &parameters, merge)
    })
}

fn change(
    state: &State,
    organization: &str,
    user: &str,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<String, Failure> {
    let mut stores = state.write();
    let membership = find(&stores, organization, user).ok_or_else(|| no_member(user))?;
    let memberships = stores.of_mut(Kind::OrganizationMemberships);
    edit_object(
        memberships,
        &membership.id,
        Touch::UpdatedAt,
        || no_member(user),
        change,
    )?;
    Ok(membership.id.to_string())
}

/// Removes a member from an organization, and returns the membership.
pub(crate) fn remove(state: &State, organization: &str, user: &str) -> Result<Arc<Entry>, Failure> {
    let mut stores = state.write();
    let membership = find(&stores, organization, user).ok_or_else(|| no_member(user))?;
    stores.remove(Kind::OrganizationMemberships, &membership.id, now());
    Ok(membership)
}

fn no_member(user: &str) -> Failure {
    Failure::no_object("membership of user", user)
}

pub(super) fn check_organization(stores: &Stores, organization: &str) -> Result<(), Failure> {
    let found = stores.of(Kind::Organizations).get(organization);
    found.map(|_| ()).ok_or_else(no_organization)
}

pub(super) fn check_role(stores: &Stores, role: &str) -> Result<(), Failure> {
    let is_known = stores.of(Kind::OrganizationRoles).is_taken(&KEY, role, "");
    if is_known { Ok(()) } else { Err(no_role()) }
}

/// Refuses more members and invitations than the organization may have. A limit of 0 is none (a
/// guess).
pub(super) fn check_limit(stores: &Stores, organization: &str, more: usize) -> Result<(), Failure> {
    let entry = stores.of(Kind::Organizations).get(organization);
    let limit = entry.and_then(|entry| Properties::read(entry.stored())?.value::<u64>("max_allowed_memberships"));
    let members = stores.of(Kind::OrganizationMemberships).group(&MEMBER_IN, organization);
    let pending = format!("{organization} {PENDING}");
    let invitations = stores
        .of(Kind::OrganizationInvitations)
        .group(&INVITED_TO_AND_STATUS, &pending);
    match limit.unwrap_or(0) {
        limit if limit > 0 && (members.len() + invitations.len() + more) as u64 > limit => Err(too_many_members(limit)),
        _ => Ok(()),
    }
}
