//! Tests of the simulator over HTTP, as its clients see it.

mod control;
mod lists;
mod program;
mod quirks;
mod replicas;
mod rules;
mod spec;
mod support;
mod writes;
