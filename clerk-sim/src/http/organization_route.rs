//! The routes of organizations and what belongs to them.

use crate::faults::Endpoint;

/// What a request about organizations does. Its objects are in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    ListOrganizations,
    CreateOrganization,
    GetOrganization,
    UpdateOrganization,
    DeleteOrganization,
    MergeMetadata,
    ReplaceMetadata,
    ListMemberships,
    ListMembershipsOfOrganization,
    ListMembershipsOfUser,
    AddMember,
    ChangeRole,
    RemoveMember,
    MergeMembershipMetadata,
    ListInvitations,
    ListInvitationsOfOrganization,
    ListPendingInvitations,
    ListInvitationsOfUser,
    Invite,
    InviteMany,
    GetInvitation,
    RevokeInvitation,
    ListRoles,
    GetRole,
    ListPermissions,
    GetPermission,
}

use Operation as O;

/// All operations with method and path. A name in braces stands for an id.
const OPERATIONS: [(Operation, &str); 26] = [
    (O::ListOrganizations, "GET /v1/organizations"),
    (O::CreateOrganization, "POST /v1/organizations"),
    (O::GetOrganization, "GET /v1/organizations/{organization_id}"),
    (O::UpdateOrganization, "PATCH /v1/organizations/{organization_id}"),
    (O::DeleteOrganization, "DELETE /v1/organizations/{organization_id}"),
    (O::MergeMetadata, "PATCH /v1/organizations/{organization_id}/metadata"),
    (O::ReplaceMetadata, "PUT /v1/organizations/{organization_id}/metadata"),
    (O::ListMemberships, "GET /v1/organization_memberships"),
    (
        O::ListMembershipsOfOrganization,
        "GET /v1/organizations/{organization_id}/memberships",
    ),
    (
        O::ListMembershipsOfUser,
        "GET /v1/users/{user_id}/organization_memberships",
    ),
    (O::AddMember, "POST /v1/organizations/{organization_id}/memberships"),
    (
        O::ChangeRole,
        "PATCH /v1/organizations/{organization_id}/memberships/{user_id}",
    ),
    (
        O::RemoveMember,
        "DELETE /v1/organizations/{organization_id}/memberships/{user_id}",
    ),
    (
        O::MergeMembershipMetadata,
        "PATCH /v1/organizations/{organization_id}/memberships/{user_id}/metadata",
    ),
    (O::ListInvitations, "GET /v1/organization_invitations"),
    (
        O::ListInvitationsOfOrganization,
        "GET /v1/organizations/{organization_id}/invitations",
    ),
    // Before the invitation with an id, which could be any text.
    (
        O::ListPendingInvitations,
        "GET /v1/organizations/{organization_id}/invitations/pending",
    ),
    (
        O::ListInvitationsOfUser,
        "GET /v1/users/{user_id}/organization_invitations",
    ),
    (O::Invite, "POST /v1/organizations/{organization_id}/invitations"),
    (
        O::InviteMany,
        "POST /v1/organizations/{organization_id}/invitations/bulk",
    ),
    (
        O::GetInvitation,
        "GET /v1/organizations/{organization_id}/invitations/{invitation_id}",
    ),
    (
        O::RevokeInvitation,
        "POST /v1/organizations/{organization_id}/invitations/{invitation_id}/revoke",
    ),
    (O::ListRoles, "GET /v1/organization_roles"),
    (O::GetRole, "GET /v1/organization_roles/{organization_role_id}"),
    (O::ListPermissions, "GET /v1/organization_permissions"),
    (O::GetPermission, "GET /v1/organization_permissions/{permission_id}"),
];

/// An operation and the objects that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrganizationRoute<'a> {
    pub(crate) operation: Operation,
    /// Method and path without ids, for statistics.
    pub(crate) template: &'static str,
    /// The ids in the path. Empty if there are fewer than two.
    pub(crate) ids: [&'a str; 2],
}

impl<'a> OrganizationRoute<'a> {
    /// `None` for all other paths.
    pub(crate) fn find(method: &str, path: &'a str) -> Option<Self> {
        OPERATIONS.iter().find_map(|(operation, template)| {
            let pattern = template.strip_prefix(method)?.strip_prefix(' ')?;
            let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
            let (mut ids, mut found) = ([""; 2], 0);
            loop {
                match (patterns.next(), parts.next()) {
                    (None, None) => break,
                    (Some(pattern), Some(part)) if pattern == part => {}
                    (Some(pattern), Some(part)) if pattern.starts_with('{') && !part.is_empty() => {
                        ids[found] = part;
                        found += 1;
                    }
                    _ => return None,
                }
            }
            Some(Self {
                operation: *operation,
                template,
                ids,
            })
        })
    }

    /// The kind of request, by which fault rules choose.
    pub(crate) fn endpoint(self) -> Endpoint {
        match self.operation {
            O::ListOrganizations
            | O::ListMemberships
            | O::ListMembershipsOfOrganization
            | O::ListMembershipsOfUser
            | O::ListInvitations
            | O::ListInvitationsOfOrganization
            | O::ListPendingInvitations
            | O::ListInvitationsOfUser
            | O::ListRoles
            | O::ListPermissions => Endpoint::OrganizationList,
            O::GetOrganization | O::GetInvitation | O::GetRole | O::GetPermission => Endpoint::OrganizationGet,
            _ => Endpoint::Write,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_with_their_ids() {
        let find = |method, path| OrganizationRoute::find(method, path).map(|route| (route.operation, route.ids));
        for (method, path, operation, ids) in [
            ("GET", "/v1/organizations", O::ListOrganizations, ["", ""]),
            ("GET", "/v1/organizations/a-slug", O::GetOrganization, ["a-slug", ""]),
            ("PATCH", "/v1/organizations/o/memberships/u", O::ChangeRole, ["o", "u"]),
            (
                "GET",
                "/v1/organizations/o/invitations/pending",
                O::ListPendingInvitations,
                ["o", ""],
            ),
            ("GET", "/v1/organizations/o/invitations/i", O::GetInvitation, ["o", "i"]),
            (
                "GET",
                "/v1/users/u/organization_memberships",
                O::ListMembershipsOfUser,
                ["u", ""],
            ),
        ] {
            assert_eq!(find(method, path), Some((operation, ids)), "{method} {path}");
        }
        for path in [
            "/v1/organizations/",
            "/v1/organization",
            "/v1/users",
            "/v1/organizations/o/invitations/i/x",
        ] {
            assert_eq!(find("GET", path), None, "{path}");
        }
    }
}
