//! Changes organizations, memberships and invitations at random.

use rand::RngExt;
use serde_json::json;

use super::generate::{self, membership, random_name, random_role};
use super::invitations;
use super::memberships;
use super::render::{ADMIN, PENDING};
use super::resource::{INVITED_TO, INVITED_TO_AND_STATUS, MEMBER_IN, MEMBER_USER};
use crate::clock::now;
use crate::kind::Kind;
use crate::state::State;
use crate::store::edit::{Touch, edit};
use crate::store::groups::group_of;

/// Makes one change, and returns the kind and the id of the object that it was made to. `None` if
/// there is no object to change.
///
/// Of a hundred changes, 2 create and 2 delete an organization, and 16 update one. 24 add and 20
/// remove a member, 16 change a role, and 5 change the metadata of a membership. 9 invite somebody;
/// 3 invitations are accepted, 2 are revoked, and 1 expires.
pub(crate) fn change(state: &State) -> Option<(Kind, String)> {
    let roll = state.organization_rng().random_range(0..100);
    let (kind, id) = match roll {
        0..2 => (Kind::Organizations, create(state)),
        2..4 => (Kind::Organizations, delete(state)?),
        4..20 => (Kind::Organizations, update(state)?),
        20..44 => (Kind::OrganizationMemberships, add_member(state)?),
        44..64 => (Kind::OrganizationMemberships, remove_member(state)?),
        64..85 => (Kind::OrganizationMemberships, update_membership(state, roll < 80)?),
        85..94 => (Kind::OrganizationInvitations, invite(state)?),
        94..97 => (
            Kind::OrganizationInvitations,
            with_pending(state, |id| invitations::accept(state, id).is_some())?,
        ),
        97..99 => (
            Kind::OrganizationInvitations,
            with_pending(state, |id| invitations::close(state, id, "revoked"))?,
        ),
        _ => (
            Kind::OrganizationInvitations,
            with_pending(state, |id| invitations::close(state, id, "expired"))?,
        ),
    };
    Some((kind, id))
}

/// The id of an object at random. `None` if there is none of this kind.
fn random(state: &State, kind: Kind) -> Option<String> {
    let stores = state.read();
    let store = stores.of(kind);
    let rank = (store.len() > 0).then(|| state.organization_rng().random_range(0..store.len()))?;
    store.by_created_at.nth(rank).map(|entry| entry.id.to_string())
}

/// Creates an organization with up to five members, of which the first is an admin.
fn create(state: &State) -> String {
    let members = state.organization_rng().random_range(1..=5);
    let mut users: Vec<_> = (0..members).filter_map(|_| random(state, Kind::Users)).collect();
    users.sort_unstable();
    users.dedup();
    let (seed, n, now) = (state.options.seed, state.next_organization(), now());
    let creator = users.first().map(String::as_str);
    let (entry, _) = generate::organization(seed, n, Some(now), creator, 50);
    let id = entry.id.to_string();
    let mut stores = state.write();
    stores.of_mut(Kind::Organizations).put(entry, now);
    for (k, user) in users.iter().enumerate() {
        let rng = &mut *state.organization_rng();
        let role = if k == 0 { ADMIN } else { random_role(rng) };
        let membership = membership(&id, user, role, now, rng);
        stores.of_mut(Kind::OrganizationMemberships).put(membership, now);
    }
    id
}

fn delete(state: &State) -> Option<String> {
    let id = random(state, Kind::Organizations)?;
    state.write().remove(Kind::Organizations, &id, now()).map(|_| id)
}

/// Changes the name or metadata of an organization. One in eight is only active, which does not
/// move `updated_at` (a guess, as observed of users).
fn update(state: &State) -> Option<String> {
    let id = random(state, Kind::Organizations)?;
    let (roll, name) = {
        let rng = &mut *state.organization_rng();
        (rng.random_range(0..8), random_name(rng))
    };
    let touch = if roll == 0 { Touch::Nothing } else { Touch::UpdatedAt };
    let changed = edit(
        state.write().of_mut(Kind::Organizations),
        &id,
        touch,
        |organization| match roll {
            0 => organization["last_active_at"] = now().into(),
            1..4 => organization["public_metadata"] = json!({"plan": name, "revision": now()}),
            _ => organization["name"] = name.into(),
        },
    );
    changed.then_some(id)
}

/// Adds a user at random to an organization at random.
fn add_member(state: &State) -> Option<String> {
    let (organization, user) = (random(state, Kind::Organizations)?, random(state, Kind::Users)?);
    let mut stores = state.write();
    if memberships::find(&stores, &organization, &user).is_some() {
        return None;
    }
    let role = random_role(&mut *state.organization_rng());
    let metadata = Default::default();
    Some(memberships::put(
        state,
        &mut stores,
        &organization,
        &user,
        role,
        metadata,
    ))
}

fn remove_member(state: &State) -> Option<String> {
    let id = random(state, Kind::OrganizationMemberships)?;
    let removed = state.write().remove(Kind::OrganizationMemberships, &id, now());
    removed.map(|_| id)
}

/// Changes the role or the metadata of a membership.
fn update_membership(state: &State, is_role: bool) -> Option<String> {
    let id = random(state, Kind::OrganizationMemberships)?;
    let (role, revision) = {
        let rng = &mut *state.organization_rng();
        (random_role(rng), rng.random::<u32>())
    };
    let mut stores = state.write();
    let memberships = stores.of_mut(Kind::OrganizationMemberships);
    let changed = edit(memberships, &id, Touch::UpdatedAt, |membership| {
        if is_role {
            membership["role"] = role.into();
        } else {
            membership["public_metadata"] = json!({"revision": revision});
        }
    });
    changed.then_some(id)
}

/// Invites somebody on behalf of a member.
fn invite(state: &State) -> Option<String> {
    let membership = random(state, Kind::OrganizationMemberships)?;
    let [organization, inviter] = {
        let stores = state.read();
        let entry = stores.of(Kind::OrganizationMemberships).get(&membership)?;
        [group_of(entry, &MEMBER_IN)?, group_of(entry, &MEMBER_USER)?]
    };
    let number = state.organization_rng().random::<u64>();
    let role = random_role(&mut *state.organization_rng());
    let body = json!({
        "email_address": format!("invitee-{number:016x}@example.com"), "role": role, "inviter_user_id": inviter,
        "public_metadata": {"from": "churn"},
    });
    invitations::invite(state, &organization, body.to_string().as_bytes()).ok()
}

/// Changes a pending invitation of an organization at random, and returns the id of the invitation.
fn with_pending(state: &State, change: impl FnOnce(&str) -> bool) -> Option<String> {
    let invitation = random(state, Kind::OrganizationInvitations)?;
    let pending = {
        let stores = state.read();
        let invitations = stores.of(Kind::OrganizationInvitations);
        let organization = group_of(invitations.get(&invitation)?, &INVITED_TO)?;
        let group = invitations.group(&INVITED_TO_AND_STATUS, &format!("{organization} {PENDING}"));
        group.nth(0)?.id.to_string()
    };
    change(&pending).then_some(pending)
}
