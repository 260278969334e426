//! Requests that change invitations, and what becomes of invitations.
//!
//! Parameters and errors are documented. Guessed: that the inviter must be a user, but need not be
//! an admin; that addresses are stored in lower case. An invitation does not expire by itself.

use serde_json::{Map, Value, json};

use super::errors::{already_a_member, already_invited, not_pending};
use super::generate;
use super::memberships::{self, check_limit, check_organization, check_role};
use super::render::PENDING;
use super::resource::{INVITED_ADDRESS, INVITED_TO, INVITED_TO_AND_STATUS};
use crate::clock::now;
use crate::errors::Failure;
use crate::ids::id;
use crate::kind::Kind;
use crate::parameters::{Parameter, ParameterType, Parameters};
use crate::seed::DAY;
use crate::state::State;
use crate::store::edit::{Touch, edit, edit_object};
use crate::store::entry::Entry;
use crate::store::groups::group_of;
use crate::store::properties::Properties;
use crate::stores::Stores;
use crate::users::create::{self, is_email};
use crate::users::resource::EMAIL_ADDRESS;

/// Invitations in one request (documented).
const MAX_INVITATIONS: usize = 10;

const INVITE: [Parameter; 8] = [
    ("email_address", ParameterType::Text),
    ("inviter_user_id", ParameterType::Text),
    ("role", ParameterType::Text),
    ("public_metadata", ParameterType::ObjectOrNull),
    ("private_metadata", ParameterType::ObjectOrNull),
    ("redirect_url", ParameterType::Text),
    ("expires_in_days", ParameterType::Integer),
    ("notify", ParameterType::Flag),
];

/// Invites somebody to an organization, and returns the id of the invitation.
pub(crate) fn invite(state: &State, organization: &str, body: &[u8]) -> Result<String, Failure> {
    let parameters = Parameters::read(body, &INVITE)?;
    let mut stores = state.write();
    check(&stores, organization, &parameters)?;
    check_limit(&stores, organization, 1)?;
    Ok(put(state, &mut stores, organization, &parameters))
}

/// As `invite`, but the organization may have any number of members and invitations.
pub(crate) fn invite_beyond_limit(state: &State, organization: &str, body: &[u8]) -> Result<String, Failure> {
    let parameters = Parameters::read(body, &INVITE)?;
    let mut stores = state.write();
    check(&stores, organization, &parameters)?;
    Ok(put(state, &mut stores, organization, &parameters))
}

/// Sends several invitations, or none if one of them is refused. Returns their ids.
pub(crate) fn invite_many(state: &State, organization: &str, body: &[u8]) -> Result<Vec<String>, Failure> {
    let Value::Array(items) = serde_json::from_slice(body).map_err(Failure::not_json)? else {
        return Err(Failure::not_json("it must be a JSON array"));
    };
    if !(1..=MAX_INVITATIONS).contains(&items.len()) {
        return Err(Failure::not_json(format!(
            "it must have from 1 to {MAX_INVITATIONS} invitations"
        )));
    }
    let read = |item| Parameters::of(item, &INVITE);
    let all = items.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut stores = state.write();
    let mut addresses = Vec::new();
    for parameters in &all {
        check(&stores, organization, parameters)?;
        addresses.push(parameters.text("email_address").unwrap_or_default().to_lowercase());
    }
    addresses.sort_unstable();
    if addresses.windows(2).any(|two| two[0] == two[1]) {
        return Err(already_invited());
    }
    check_limit(&stores, organization, all.len())?;
    let put = |parameters: &Parameters| put(state, &mut stores, organization, parameters);
    Ok(all.iter().map(put).collect())
}

/// Refuses an invitation that is malformed, or that the invitee has no use for.
fn check(stores: &Stores, organization: &str, parameters: &Parameters) -> Result<(), Failure> {
    let (address, role) = (parameters.required("email_address")?, parameters.required("role")?);
    parameters.integer("expires_in_days", 1..=365)?;
    if !is_email(address) {
        let why = format!("{address:?} is not a valid email address.");
        return Err(Failure::malformed("email_address", why));
    }
    check_organization(stores, organization)?;
    check_role(stores, role)?;
    let users = stores.of(Kind::Users);
    if let Some(inviter) = parameters.text("inviter_user_id").filter(|id| users.get(id).is_none()) {
        return Err(Failure::no_object("user", inviter));
    }
    let invited = stores.of(Kind::OrganizationInvitations);
    let invited = invited.group(&INVITED_ADDRESS, &address.to_lowercase());
    let pending = format!("{organization} {PENDING}");
    let mut invited = invited.range(0..invited.len());
    if invited.any(|entry| group_of(entry, &INVITED_TO_AND_STATUS).as_ref() == Some(&pending)) {
        return Err(already_invited());
    }
    if user_with(stores, address).is_some_and(|user| memberships::find(stores, organization, &user).is_some()) {
        return Err(already_a_member(address));
    }
    Ok(())
}

/// The id of a user with this address. `None` if there is none.
fn user_with(stores: &Stores, address: &str) -> Option<String> {
    let mut candidates = stores.of(Kind::Users).candidates(&EMAIL_ADDRESS, address);
    let user = candidates.find(|user| EMAIL_ADDRESS.is_held_by(user, address))?;
    Some(user.id.to_string())
}

fn put(state: &State, stores: &mut Stores, organization: &str, parameters: &Parameters) -> String {
    let now = now();
    let id = id("orginv_", now, &mut *state.organization_rng());
    let text = |name| parameters.text(name).unwrap_or_default();
    let address = text("email_address").to_lowercase();
    let mut document = generate::invitation(&id, organization, &address, text("role"), now);
    let days = parameters.get("expires_in_days").and_then(Value::as_i64);
    document["expires_at"] = (now + days.map_or(generate::VALIDITY, |days| days * DAY)).into();
    document["inviter_id"] = parameters.text("inviter_user_id").into();
    for name in ["public_metadata", "private_metadata"] {
        document[name] = parameters.object(name).into();
    }
    let entry = Entry::new(&id, &document, None);
    stores.of_mut(Kind::OrganizationInvitations).put(entry, now);
    id
}

/// Revokes a pending invitation to an organization.
pub(crate) fn revoke(state: &State, organization: &str, id: &str, body: &[u8]) -> Result<(), Failure> {
    Parameters::read_optional(body, &[("requesting_user_id", ParameterType::Text)])?;
    let mut stores = state.write();
    let missing = || Failure::no_object("organization invitation", id);
    let invitations = stores.of_mut(Kind::OrganizationInvitations);
    let entry = invitations.get(id).ok_or_else(missing)?;
    if group_of(entry, &INVITED_TO).as_deref() != Some(organization) {
        return Err(missing());
    }
    if !is_pending(entry) {
        return Err(not_pending());
    }
    edit_object(invitations, id, Touch::UpdatedAt, missing, |invitation| {
        end(invitation, "revoked")
    })
}

/// Ends a pending invitation without a membership. False if there is none.
pub(crate) fn close(state: &State, id: &str, status: &str) -> bool {
    let mut stores = state.write();
    let invitations = stores.of_mut(Kind::OrganizationInvitations);
    invitations.get(id).is_some_and(|entry| is_pending(entry))
        && edit(invitations, id, Touch::UpdatedAt, |document| {
            if let Some(invitation) = document.as_object_mut() {
                end(invitation, status);
            }
        })
}

fn is_pending(invitation: &Entry) -> bool {
    let properties = Properties::read(invitation.stored());
    properties.is_some_and(|properties| properties.value::<String>("status").as_deref() == Some(PENDING))
}

fn end(invitation: &mut Map<String, Value>, status: &str) {
    invitation.insert("status".to_owned(), status.into());
    invitation.insert("url".to_owned(), Value::Null);
}

/// Accepts a pending invitation, as its invitee does, and returns the id of the membership. `None`
/// if there is no such invitation.
///
/// The user with its address becomes a member, with the metadata of the invitation (documented). If
/// there is no such user, one is created, as for somebody who signs up.
pub(crate) fn accept(state: &State, id: &str) -> Option<String> {
    let invitation = state.read().of(Kind::OrganizationInvitations).get(id)?.value(now())?;
    let text = |name: &str| invitation[name].as_str().unwrap_or_default();
    let address = text("email_address");
    let present = user_with(&state.read(), address);
    let user = present.or_else(|| {
        let body = json!({"email_address": [address]}).to_string();
        create::create(state, body.as_bytes()).ok()
    })?;
    if !close(state, id, "accepted") {
        return None;
    }
    let mut stores = state.write();
    let organization = text("organization_id");
    if let Some(membership) = memberships::find(&stores, organization, &user) {
        return Some(membership.id.to_string());
    }
    let metadata = |name: &str| invitation[name].as_object().cloned().unwrap_or_default();
    let metadata = [metadata("public_metadata"), metadata("private_metadata")];
    Some(memberships::put(
        state,
        &mut stores,
        organization,
        &user,
        text("role"),
        metadata,
    ))
}
