//! The lists of organizations and what belongs to them, with their filters and orders, as Clerk
//! documents them.
//!
//! Guessed: that `created_at` orders memberships by their own time, although their filters
//! `created_at_…` mean the user; that texts are compared without case.

use super::render;
use crate::kind::Kind;
use crate::list::resource::{FilterKind, Join, Link, ListForm, Resource, SortKey};
use crate::store::Indexes;
use crate::store::identifier::IdentifierKind;
use crate::store::properties::Text;
use crate::users::resource::{
    EMAIL_ADDRESS, NAMES, PHONE_NUMBER, PRIMARY_EMAIL_ADDRESS, PRIMARY_PHONE_NUMBER, USERNAME, WEB3_WALLET,
};

/// The organization of a membership.
pub(crate) static MEMBER_IN: Text = Text::Path(&["organization", "id"]);
/// The user of a membership.
pub(crate) static MEMBER_USER: Text = Text::Path(&["public_user_data", "user_id"]);
/// The organization of an invitation.
pub(crate) static INVITED_TO: Text = Text::Property("organization_id");
/// The organization and the status of an invitation, with a space between.
pub(crate) static INVITED_TO_AND_STATUS: Text = Text::Joined(&["organization_id", "status"]);
/// The address of an invitation, in lower case.
pub(crate) static INVITED_ADDRESS: Text = Text::Property("email_address");

/// Slugs are unique in an instance (documented).
pub(crate) static SLUG: IdentifierKind = IdentifierKind {
    name: "slug",
    ignores_case: false,
    text: Text::Property("slug"),
};

/// Keys of roles and permissions are unique in an instance (documented).
pub(crate) static KEY: IdentifierKind = IdentifierKind {
    name: "key",
    ignores_case: false,
    text: Text::Property("key"),
};

/// The address of an invitation, compared without case (a guess).
static ADDRESS: IdentifierKind = IdentifierKind {
    name: "address",
    ignores_case: true,
    text: Text::Property("email_address"),
};

/// What each kind is found by.
pub(crate) static ORGANIZATION_INDEXES: Indexes = Indexes {
    identifiers: &[&SLUG],
    groups: &[],
};
pub(crate) static MEMBERSHIP_INDEXES: Indexes = Indexes {
    identifiers: &[],
    groups: &[&MEMBER_IN, &MEMBER_USER],
};
pub(crate) static INVITATION_INDEXES: Indexes = Indexes {
    identifiers: &[],
    groups: &[&INVITED_TO, &INVITED_TO_AND_STATUS, &INVITED_ADDRESS],
};
pub(crate) static ROLE_INDEXES: Indexes = Indexes {
    identifiers: &[&KEY],
    groups: &[],
};

/// Organizations and their members.
static MEMBERS: Link = Link {
    kind: Kind::OrganizationMemberships,
    here: &MEMBER_IN,
    there: &MEMBER_USER,
};

/// `GET /v1/organizations`.
pub(crate) static ORGANIZATIONS: Resource = Resource {
    kind: Kind::Organizations,
    object: "organization",
    orders: &[
        ("name", SortKey::Text(Text::Property("name"))),
        ("created_at", SortKey::CreatedAt),
        (
            "members_count",
            SortKey::GroupSize(Kind::OrganizationMemberships, &MEMBER_IN),
        ),
    ],
    filters: &[
        FilterKind::IdOrContains("query", &[&Text::Property("name"), &Text::Property("slug")]),
        FilterKind::SignedLink("user_id", &MEMBERS, None),
        FilterKind::Id("organization_id"),
    ],
    join: None,
    form: ListForm::WithTotal,
    write: render::organization,
};

const MEMBERSHIP_ORDERS: &[(&str, SortKey)] = &[
    ("phone_number", SortKey::Text(PRIMARY_PHONE_NUMBER)),
    ("email_address", SortKey::Text(PRIMARY_EMAIL_ADDRESS)),
    ("created_at", SortKey::CreatedAt),
    ("first_name", SortKey::Text(Text::Property("first_name"))),
    ("last_name", SortKey::Text(Text::Property("last_name"))),
    ("username", SortKey::Text(Text::Property("username"))),
];

/// `GET /v1/organization_memberships`.
pub(crate) static MEMBERSHIPS: Resource = Resource {
    kind: Kind::OrganizationMemberships,
    object: "organization_membership",
    orders: MEMBERSHIP_ORDERS,
    filters: &[],
    join: Some(Join {
        kind: Kind::Users,
        id: &MEMBER_USER,
    }),
    form: ListForm::WithTotal,
    write: render::membership,
};

/// What `query` searches in the user of a membership.
static USER_TEXTS: [&Text; 8] = [
    &EMAIL_ADDRESS.text,
    &PHONE_NUMBER.text,
    &USERNAME.text,
    &WEB3_WALLET.text,
    &Text::Property("id"),
    NAMES[0],
    NAMES[1],
    NAMES[2],
];

/// `GET /v1/organizations/{organization_id}/memberships`. All filters but `role` mean the user.
pub(crate) static MEMBERSHIPS_OF_ORGANIZATION: Resource = Resource {
    kind: Kind::OrganizationMemberships,
    object: "organization_membership",
    orders: MEMBERSHIP_ORDERS,
    filters: &[
        FilterKind::SignedGroup("user_id", &MEMBER_USER),
        FilterKind::Identifier("email_address", &EMAIL_ADDRESS),
        FilterKind::Identifier("phone_number", &PHONE_NUMBER),
        FilterKind::Identifier("username", &USERNAME),
        FilterKind::Identifier("web3_wallet", &WEB3_WALLET),
        FilterKind::AnyText("role", Text::Property("role")),
        FilterKind::Contains("query", &USER_TEXTS),
        FilterKind::Contains("email_address_query", &[&EMAIL_ADDRESS.text]),
        FilterKind::Contains("phone_number_query", &[&PHONE_NUMBER.text]),
        FilterKind::Contains("username_query", &[&USERNAME.text]),
        FilterKind::Contains("name_query", &NAMES),
        FilterKind::Time("last_active_at"),
        FilterKind::Time("created_at"),
    ],
    join: Some(Join {
        kind: Kind::Users,
        id: &MEMBER_USER,
    }),
    form: ListForm::WithTotal,
    write: render::membership,
};

/// `GET /v1/users/{user_id}/organization_memberships`.
pub(crate) static MEMBERSHIPS_OF_USER: Resource = Resource {
    kind: Kind::OrganizationMemberships,
    object: "organization_membership",
    orders: &[],
    filters: &[],
    join: None,
    form: ListForm::WithTotal,
    write: render::membership,
};

const INVITATION_ORDERS: &[(&str, SortKey)] = &[
    ("created_at", SortKey::CreatedAt),
    ("email_address", SortKey::Text(Text::Property("email_address"))),
];
const STATUS: FilterKind = FilterKind::AnyText("status", Text::Property("status"));

/// `GET /v1/organization_invitations`.
pub(crate) static INVITATIONS: Resource = Resource {
    kind: Kind::OrganizationInvitations,
    object: "organization_invitation",
    orders: INVITATION_ORDERS,
    filters: &[
        STATUS,
        FilterKind::Contains("query", &[&Text::Property("email_address")]),
    ],
    join: None,
    form: ListForm::WithTotal,
    write: render::invitation_with_organization,
};

/// `GET /v1/organizations/{organization_id}/invitations`.
pub(crate) static INVITATIONS_OF_ORGANIZATION: Resource = Resource {
    kind: Kind::OrganizationInvitations,
    object: "organization_invitation",
    orders: INVITATION_ORDERS,
    filters: &[STATUS, FilterKind::Identifier("email_address", &ADDRESS)],
    join: None,
    form: ListForm::WithTotal,
    write: render::invitation,
};

/// `GET /v1/organizations/{organization_id}/invitations/pending`.
pub(crate) static PENDING_INVITATIONS: Resource = Resource {
    kind: Kind::OrganizationInvitations,
    object: "organization_invitation",
    orders: &[],
    filters: &[],
    join: None,
    form: ListForm::WithTotal,
    write: render::invitation,
};

/// `GET /v1/users/{user_id}/organization_invitations`.
pub(crate) static INVITATIONS_OF_USER: Resource = Resource {
    kind: Kind::OrganizationInvitations,
    object: "organization_invitation",
    orders: &[],
    filters: &[STATUS],
    join: None,
    form: ListForm::WithTotal,
    write: render::invitation_with_organization,
};

const KEY_ORDERS: &[(&str, SortKey)] = &[
    ("created_at", SortKey::CreatedAt),
    ("name", SortKey::Text(Text::Property("name"))),
    ("key", SortKey::Text(Text::Property("key"))),
];
const KEY_QUERY: FilterKind = FilterKind::IdOrContains("query", &[&Text::Property("name"), &Text::Property("key")]);

/// `GET /v1/organization_roles`.
pub(crate) static ROLES: Resource = Resource {
    kind: Kind::OrganizationRoles,
    object: "role",
    orders: KEY_ORDERS,
    filters: &[KEY_QUERY],
    join: None,
    form: ListForm::WithTotal,
    write: render::as_stored,
};

/// `GET /v1/organization_permissions`.
pub(crate) static PERMISSIONS: Resource = Resource {
    kind: Kind::OrganizationPermissions,
    object: "permission",
    orders: KEY_ORDERS,
    filters: &[KEY_QUERY],
    join: None,
    form: ListForm::WithTotal,
    write: render::as_stored,
};
