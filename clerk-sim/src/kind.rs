//! The kinds of objects that an instance has.

use serde::{Deserialize, Serialize};

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Users.
    Users,
    /// Organizations.
    Organizations,
    /// Memberships of users in organizations.
    OrganizationMemberships,
    /// Invitations to organizations.
    OrganizationInvitations,
    /// Roles that members of organizations can have.
    OrganizationRoles,
    /// Permissions that roles can have.
    OrganizationPermissions,
}

impl Kind {
    /// All kinds. Their order is that of the declaration.
    pub const ALL: [Self; 6] = [
        Self::Users,
        Self::Organizations,
        Self::OrganizationMemberships,
        Self::OrganizationInvitations,
        Self::OrganizationRoles,
        Self::OrganizationPermissions,
    ];
}
