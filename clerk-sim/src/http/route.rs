//! The routes under `/v1`.

use super::organization_route::OrganizationRoute;
use crate::faults::Endpoint;
use crate::users::update::Restriction;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    List,
    Count,
    Instance,
    Get(&'a str),
    Create,
    Update(&'a str),
    Delete(&'a str),
    MergeMetadata(&'a str),
    ReplaceMetadata(&'a str),
    Restrict(Restriction, &'a str),
    Organization(OrganizationRoute<'a>),
    Unknown,
}

impl<'a> Route<'a> {
    pub(crate) fn find(method: &str, path: &'a str) -> Self {
        let parts: Vec<&str> = path.strip_prefix("/v1/").unwrap_or_default().split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["users"]) => Self::List,
            ("GET", ["users", "count"]) => Self::Count,
            ("GET", ["instance"]) => Self::Instance,
            ("GET", ["users", id]) => Self::Get(id),
            ("POST", ["users"]) => Self::Create,
            ("PATCH", ["users", id]) => Self::Update(id),
            ("DELETE", ["users", id]) => Self::Delete(id),
            ("PATCH", ["users", id, "metadata"]) => Self::MergeMetadata(id),
            ("PUT", ["users", id, "metadata"]) => Self::ReplaceMetadata(id),
            ("POST", ["users", id, "ban"]) => Self::Restrict(Restriction::Ban, id),
            ("POST", ["users", id, "unban"]) => Self::Restrict(Restriction::Unban, id),
            ("POST", ["users", id, "lock"]) => Self::Restrict(Restriction::Lock, id),
            ("POST", ["users", id, "unlock"]) => Self::Restrict(Restriction::Unlock, id),
            _ => OrganizationRoute::find(method, path).map_or(Self::Unknown, Self::Organization),
        }
    }

    /// Method and path without ids, for statistics.
    pub(crate) fn template(self) -> &'static str {
        match self {
            Self::List => "GET /v1/users",
            Self::Count => "GET /v1/users/count",
            Self::Instance => "GET /v1/instance",
            Self::Get(_) => "GET /v1/users/{user_id}",
            Self::Create => "POST /v1/users",
            Self::Update(_) => "PATCH /v1/users/{user_id}",
            Self::Delete(_) => "DELETE /v1/users/{user_id}",
            Self::MergeMetadata(_) => "PATCH /v1/users/{user_id}/metadata",
            Self::ReplaceMetadata(_) => "PUT /v1/users/{user_id}/metadata",
            Self::Restrict(Restriction::Ban, _) => "POST /v1/users/{user_id}/ban",
            Self::Restrict(Restriction::Unban, _) => "POST /v1/users/{user_id}/unban",
            Self::Restrict(Restriction::Lock, _) => "POST /v1/users/{user_id}/lock",
            Self::Restrict(Restriction::Unlock, _) => "POST /v1/users/{user_id}/unlock",
            Self::Organization(route) => route.template,
            Self::Unknown => "other",
        }
    }

    /// Whether the answer is a list or a count, which can take long.
    pub(crate) fn is_slow(self) -> bool {
        matches!(
            self.endpoint(),
            Some(Endpoint::List | Endpoint::Count | Endpoint::OrganizationList)
        )
    }

    /// The kind of request, by which fault rules choose. `None` for unknown paths.
    pub(crate) fn endpoint(self) -> Option<Endpoint> {
        match self {
            Self::List => Some(Endpoint::List),
            Self::Count => Some(Endpoint::Count),
            Self::Instance => Some(Endpoint::Instance),
            Self::Get(_) => Some(Endpoint::Get),
            Self::Organization(route) => Some(route.endpoint()),
            Self::Unknown => None,
            _ => Some(Endpoint::Write),
        }
    }
}
