//! The errors of requests about organizations. Their statuses, codes and texts are documented.

use crate::errors::Failure;

/// Organizations are switched off. Also observed.
pub(crate) fn not_enabled(status: u16) -> Failure {
    Failure::new(
        status,
        "organization_not_enabled_in_instance",
        "access denied",
        "The organizations feature is not enabled for this instance. You can enable it at https://dashboard.clerk.com.",
    )
}

pub(super) fn no_organization() -> Failure {
    Failure::new(404, "resource_not_found", "not found", "Given organization not found.")
}

pub(super) fn no_role() -> Failure {
    Failure::new(404, "resource_not_found", "not found", "Organization role not found").about("role")
}

pub(super) fn no_creator(user_id: &str) -> Failure {
    let why = format!("No users found with id {user_id}.");
    Failure::new(400, "organization_creator_not_found", "creator not found", why)
}

pub(super) fn already_a_member(user_id: &str) -> Failure {
    let why = format!("{user_id} is already a member of the organization.");
    Failure::new(400, "already_a_member_in_organization", "already a member", why)
}

pub(super) fn too_many_members(limit: u64) -> Failure {
    let why =
        format!("You have reached your limit of {limit} organization memberships, including outstanding invitations.");
    let message = "organization membership quota exceeded";
    Failure::new(403, "organization_membership_quota_exceeded", message, why)
}

pub(super) fn already_invited() -> Failure {
    let why = "Organizations cannot have duplicate pending invitations for an email address.";
    let message = "organization invitation not unique";
    Failure::new(400, "organization_invitation_not_unique", message, why)
}

pub(super) fn not_pending() -> Failure {
    let why = "The organization invitation is not in the 'pending' status.";
    Failure::new(404, "organization_invitation_not_pending", "not pending", why)
}
