//! The whole program against a real PostgreSQL, Clerk's simulator over real HTTP, and the real binary.
//!
//! `make test` provides the server in `DATABASE_URL`; every test makes a database of its own there.

#[allow(dead_code, reason = "each test uses its part")]
mod harness;
mod postgres;
mod process;
mod provocations;
mod proxy;
mod server;
mod statements;
mod watched;
#[path = "../../fuzz/targets/way.rs"]
mod way;

mod addresses;
mod budget;
mod captured;
mod certificates;
mod check;
mod check_database;
mod cli;
mod client;
mod constraints;
mod containers;
mod daemon;
mod deletions;
mod documents;
mod event_causes;
mod event_order;
mod events;
mod exit_codes;
mod failover;
mod freshness;
mod full_sync;
mod guard;
mod health;
mod hearing;
mod held;
mod history;
mod hostile;
mod identity;
mod incremental;
mod injection;
mod isolation;
mod lagging;
mod lease;
mod listener;
mod looks;
mod migrations;
mod missing;
mod missing_guard;
mod missing_trouble;
mod on_demand;
mod orders;
mod outage;
mod pace;
mod pgbouncer;
mod privileges;
mod refusals;
mod rejected;
mod replicas;
mod resume;
mod schemas;
mod secrets;
mod service;
mod shifts;
mod side_by_side;
mod specification;
mod sqlstate;
mod stand_ins;
mod stop;
mod tls;
mod trouble;
mod usage;
mod walks;
mod watch;
