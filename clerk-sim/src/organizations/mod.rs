//! Organizations with their memberships, invitations, roles and permissions.

pub(crate) mod churn;
pub(crate) mod errors;
pub(crate) mod generate;
pub(crate) mod invitations;
pub(crate) mod memberships;
pub(crate) mod options;
pub(crate) mod organization;
mod public_data;
pub(crate) mod render;
pub(crate) mod resource;
pub(crate) mod roles;
mod samples;
