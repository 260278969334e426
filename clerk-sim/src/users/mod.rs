//! Users: what they can be found by, how they are generated, and how requests change them.

pub(crate) mod churn;
pub(crate) mod create;
pub(crate) mod generate;
mod identifications;
mod model;
pub(crate) mod resource;
mod rules;
pub(crate) mod samples;
pub(crate) mod unstorable;
pub(crate) mod update;
