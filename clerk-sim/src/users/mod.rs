//! Users: what they can be found by, how they are generated, and how requests change them.

pub(crate) mod churn;
pub(crate) mod create;
pub(crate) mod edit;
pub(crate) mod generate;
mod identifications;
mod metadata;
mod model;
pub(crate) mod resource;
mod rules;
mod samples;
pub(crate) mod unstorable;
pub(crate) mod update;
