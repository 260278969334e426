//! What the form of a shown object depends on.

use std::cell::OnceCell;

use super::query_string::QueryString;
use crate::errors::Failure;
use crate::organizations::roles::RoleTable;
use crate::stores::View;

/// Properties that a request can ask for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Include {
    pub(crate) members_count: bool,
    pub(crate) missing_member_with_elevated_permissions: bool,
}

/// The state in which objects are shown, and how.
pub(crate) struct Rendering<'a> {
    pub(crate) view: &'a View<'a>,
    /// In Unix milliseconds.
    pub(crate) now: i64,
    pub(crate) include: Include,
    roles: OnceCell<RoleTable>,
}

impl Include {
    pub(crate) const COUNTS: Self = Self {
        members_count: true,
        missing_member_with_elevated_permissions: false,
    };

    pub(crate) fn read(query: &str) -> Result<Self, Failure> {
        let parameters = QueryString::read(query);
        let flag = |name| Ok(parameters.flag(name)?.unwrap_or(false));
        Ok(Self {
            members_count: flag("include_members_count")?,
            missing_member_with_elevated_permissions: flag("include_missing_member_with_elevated_permissions")?,
        })
    }
}

impl<'a> Rendering<'a> {
    pub(crate) fn new(view: &'a View<'a>, now: i64, include: Include) -> Self {
        Self {
            view,
            now,
            include,
            roles: OnceCell::new(),
        }
    }

    /// The roles of the instance.
    pub(crate) fn roles(&self) -> &RoleTable {
        self.roles.get_or_init(|| RoleTable::read(self.view))
    }
}
