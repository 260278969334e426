//! What programs do with the organizations of a simulator.
//!
//! Limits of members are not checked here, so that tests can have organizations of any size.

use std::sync::Arc;

use serde_json::json;

use super::Sim;
use crate::clock::now;
use crate::kind::Kind;
use crate::organizations::resource::{INVITED_TO, MEMBER_IN, MEMBER_USER};
use crate::organizations::{churn, invitations, memberships, organization};
use crate::store::entry::Entry;
use crate::store::properties::Text;

impl Sim {
    /// Switches organizations on or off. Nothing is deleted.
    pub fn enable_organizations(&self, enabled: bool) {
        self.state().enable_organizations(enabled);
    }

    /// Creates an organization without members and without a limit of them, and returns its id.
    ///
    /// # Panics
    /// If the name is empty or has more than 256 characters.
    pub fn create_organization(&self, name: &str) -> String {
        let body = json!({"name": name, "max_allowed_memberships": 0}).to_string();
        let created = organization::create(self.state(), body.as_bytes());
        created.expect("an organization can have this name")
    }

    /// Deletes an organization with its memberships and invitations. False if there is no such
    /// organization.
    pub fn delete_organization(&self, id: &str) -> bool {
        self.delete_object(Kind::Organizations, id)
    }

    /// Adds a user to an organization, and returns the id of the membership. `None` if the user is
    /// a member already.
    ///
    /// Neither the user nor the organization nor the role needs to exist.
    pub fn add_member(&self, organization: &str, user: &str, role: &str) -> Option<String> {
        let mut stores = self.state().write();
        if memberships::find(&stores, organization, user).is_some() {
            return None;
        }
        let metadata = Default::default();
        let id = memberships::put(self.state(), &mut stores, organization, user, role, metadata);
        Some(id)
    }

    /// Changes the role of a member, and sets `updated_at` to now. False if there is no such member.
    pub fn change_role(&self, organization: &str, user: &str, role: &str) -> bool {
        let id = self.membership_id(organization, user);
        id.is_some_and(|id| {
            self.update_object(Kind::OrganizationMemberships, &id, |membership| {
                membership["role"] = role.into()
            })
        })
    }

    /// Removes a member from an organization. False if there is no such member.
    pub fn remove_member(&self, organization: &str, user: &str) -> bool {
        let mut stores = self.state().write();
        let membership = memberships::find(&stores, organization, user);
        membership.is_some_and(|entry| {
            let removed = stores.remove(Kind::OrganizationMemberships, &entry.id, now());
            removed.is_some()
        })
    }

    /// The id of a user's membership in an organization. `None` if the user is no member.
    pub fn membership_id(&self, organization: &str, user: &str) -> Option<String> {
        let membership = memberships::find(&self.state().read(), organization, user)?;
        Some(membership.id.to_string())
    }

    /// The ids of all memberships in an organization, in ascending (`created_at`, id) order.
    pub fn memberships_of(&self, organization: &str) -> Vec<String> {
        self.group(Kind::OrganizationMemberships, &MEMBER_IN, organization)
    }

    /// The ids of all memberships of a user, in ascending (`created_at`, id) order.
    pub fn memberships_of_user(&self, user: &str) -> Vec<String> {
        self.group(Kind::OrganizationMemberships, &MEMBER_USER, user)
    }

    /// The ids of all invitations to an organization, in ascending (`created_at`, id) order.
    pub fn invitations_to(&self, organization: &str) -> Vec<String> {
        self.group(Kind::OrganizationInvitations, &INVITED_TO, organization)
    }

    fn group(&self, kind: Kind, by: &Text, value: &str) -> Vec<String> {
        let stores = self.state().read();
        let group = stores.of(kind).group(by, value);
        let id = |entry: &Arc<Entry>| entry.id.to_string();
        group.range(0..group.len()).map(id).collect()
    }

    /// Invites somebody to an organization, and returns the id of the invitation. `None` if there
    /// is no such organization or role, if the address is malformed or invited already, or if its
    /// user is a member.
    pub fn invite(&self, organization: &str, address: &str, role: &str) -> Option<String> {
        let body = json!({"email_address": address, "role": role}).to_string();
        invitations::invite_beyond_limit(self.state(), organization, body.as_bytes()).ok()
    }

    /// Accepts a pending invitation as its invitee does, and returns the id of the membership.
    /// `None` if there is no such invitation.
    ///
    /// If no user has the address, a user with it is created.
    pub fn accept_invitation(&self, id: &str) -> Option<String> {
        invitations::accept(self.state(), id)
    }

    /// Revokes a pending invitation. False if there is no such invitation.
    pub fn revoke_invitation(&self, id: &str) -> bool {
        invitations::close(self.state(), id, "revoked")
    }

    /// Lets a pending invitation expire, which never happens by itself. False if there is no such
    /// invitation.
    pub fn expire_invitation(&self, id: &str) -> bool {
        invitations::close(self.state(), id, "expired")
    }

    /// Changes an organization, a membership or an invitation at random, as churn does. Returns the
    /// kind and the id of what changed; `None` if nothing did.
    pub fn change_organizations_at_random(&self) -> Option<(Kind, String)> {
        churn::change(self.state())
    }

    /// Sets the number of random changes of organizations, memberships and invitations per second.
    /// `None` stops them.
    pub fn set_organization_churn(&self, rate: Option<f64>) {
        self.state().organization_churn.send_replace(rate);
    }
}
