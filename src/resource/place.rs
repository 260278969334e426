//! Where Clerk has an object.

/// Where Clerk has an object, as far as the mirror knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Clerk's id.
    pub id: String,
    /// The organization that it belongs to.
    pub organization_id: Option<String>,
    /// Whether the mirror has that organization.
    pub has_organization: bool,
    /// The user that a membership is about.
    pub user_id: Option<String>,
    /// Another member of the organization: the ids of the membership and of the user.
    pub witness: Option<(String, String)>,
}

impl Place {
    /// The place of an object that is found by its id alone.
    pub fn of(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            ..Self::default()
        }
    }
}
