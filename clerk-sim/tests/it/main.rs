//! Tests of the simulator over HTTP, as its clients see it.

mod control;
mod lists;
mod organization_churn;
mod organization_faults;
mod organization_filters;
mod organization_invitations;
mod organization_lists;
mod organization_members;
mod organization_spec;
mod organizations;
mod program;
mod quirks;
mod replicas;
mod rules;
mod spec;
mod specification;
mod support;
mod writes;
