//! The filters, orders and identifiers of users, as Clerk documents them.
//!
//! Guessed: that addresses and usernames are compared without case, and external ids with it.

use crate::kind::Kind;
use crate::list::resource::{FilterKind, Link, ListForm, Resource, SortKey};
use crate::organizations::resource::{MEMBER_IN, MEMBER_USER};
use crate::store::Indexes;
use crate::store::identifier::IdentifierKind;
use crate::store::properties::Text;

pub(crate) static EMAIL_ADDRESS: IdentifierKind = IdentifierKind {
    name: "email_address",
    ignores_case: true,
    text: Text::Items {
        list: "email_addresses",
        path: &["email_address"],
    },
};

pub(crate) static PHONE_NUMBER: IdentifierKind = IdentifierKind {
    name: "phone_number",
    ignores_case: false,
    text: Text::Items {
        list: "phone_numbers",
        path: &["phone_number"],
    },
};

pub(crate) static WEB3_WALLET: IdentifierKind = IdentifierKind {
    name: "web3_wallet",
    ignores_case: true,
    text: Text::Items {
        list: "web3_wallets",
        path: &["web3_wallet"],
    },
};

pub(crate) static USERNAME: IdentifierKind = IdentifierKind {
    name: "username",
    ignores_case: true,
    text: Text::Property("username"),
};

pub(crate) static EXTERNAL_ID: IdentifierKind = IdentifierKind {
    name: "external_id",
    ignores_case: false,
    text: Text::Property("external_id"),
};

/// `provider`, a space, `provider_user_id`.
pub(crate) static EXTERNAL_ACCOUNT: IdentifierKind = IdentifierKind {
    name: "external_account",
    ignores_case: false,
    text: Text::ItemPairs {
        list: "external_accounts",
        keys: ["provider", "provider_user_id"],
    },
};

pub(crate) const PRIMARY_EMAIL_ADDRESS: Text = Text::Referenced {
    id: "primary_email_address_id",
    list: "email_addresses",
    key: "email_address",
};

pub(crate) const PRIMARY_PHONE_NUMBER: Text = Text::Referenced {
    id: "primary_phone_number_id",
    list: "phone_numbers",
    key: "phone_number",
};

pub(crate) const PRIMARY_WEB3_WALLET: Text = Text::Referenced {
    id: "primary_web3_wallet_id",
    list: "web3_wallets",
    key: "web3_wallet",
};

/// What users are found by.
pub(crate) static USER_INDEXES: Indexes = Indexes {
    identifiers: &[
        &EMAIL_ADDRESS,
        &PHONE_NUMBER,
        &WEB3_WALLET,
        &USERNAME,
        &EXTERNAL_ID,
        &EXTERNAL_ACCOUNT,
    ],
    groups: &[],
};

/// Users and the organizations that they are members in.
static MEMBERSHIPS: Link = Link {
    kind: Kind::OrganizationMemberships,
    here: &MEMBER_USER,
    there: &MEMBER_IN,
};

/// What `name_query` searches.
pub(crate) static NAMES: [&Text; 3] = [
    &Text::Property("first_name"),
    &Text::Property("last_name"),
    &Text::Joined(&["first_name", "last_name"]),
];

/// What `query` searches.
static ALL_TEXTS: [&Text; 8] = [
    &EMAIL_ADDRESS.text,
    &PHONE_NUMBER.text,
    &WEB3_WALLET.text,
    &USERNAME.text,
    &Text::Id,
    NAMES[0],
    NAMES[1],
    NAMES[2],
];

/// `GET /v1/users` and `GET /v1/users/count`.
pub(crate) static USERS: Resource = Resource {
    kind: Kind::Users,
    object: "user",
    orders: &[
        ("created_at", SortKey::CreatedAt),
        ("updated_at", SortKey::UpdatedAt),
        ("email_address", SortKey::Text(PRIMARY_EMAIL_ADDRESS)),
        ("web3wallet", SortKey::Text(PRIMARY_WEB3_WALLET)),
        ("first_name", SortKey::Text(Text::Property("first_name"))),
        ("last_name", SortKey::Text(Text::Property("last_name"))),
        ("phone_number", SortKey::Text(PRIMARY_PHONE_NUMBER)),
        ("username", SortKey::Text(Text::Property("username"))),
        ("last_active_at", SortKey::Time("last_active_at")),
        ("last_sign_in_at", SortKey::Time("last_sign_in_at")),
    ],
    filters: &[
        FilterKind::TwoPartIdentifier {
            first: "provider",
            second: "provider_user_id",
            kind: &EXTERNAL_ACCOUNT,
        },
        FilterKind::Flag("banned"),
        FilterKind::TimeSince("last_active_at"),
        FilterKind::CreatedAt,
        FilterKind::Id("user_id"),
        FilterKind::Identifier("email_address", &EMAIL_ADDRESS),
        FilterKind::Identifier("phone_number", &PHONE_NUMBER),
        FilterKind::Identifier("web3_wallet", &WEB3_WALLET),
        FilterKind::Identifier("username", &USERNAME),
        FilterKind::SignedIdentifier("external_id", &EXTERNAL_ID),
        FilterKind::SignedLink(
            "organization_id",
            &MEMBERSHIPS,
            Some(Text::Items {
                list: "organization_memberships",
                path: &["organization", "id"],
            }),
        ),
        FilterKind::Contains("query", &ALL_TEXTS),
        FilterKind::Contains("email_address_query", &[&EMAIL_ADDRESS.text]),
        FilterKind::Contains("phone_number_query", &[&PHONE_NUMBER.text]),
        FilterKind::Contains("username_query", &[&USERNAME.text]),
        FilterKind::Contains("name_query", &NAMES),
        FilterKind::Time("last_sign_in_at"),
    ],
    join: None,
    form: ListForm::Array,
    write: |entry, rendering, out| entry.write(rendering.now, out),
};
