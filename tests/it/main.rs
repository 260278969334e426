//! End-to-end tests: the real binary, a real PostgreSQL, and Clerk's simulator over real HTTP.
//!
//! `make test` provides the server in `DATABASE_URL`. Each test creates its own database there.

#[path = "../../fuzz/targets/properties.rs"]
mod properties;

#[allow(dead_code, reason = "the histories use other parts")]
mod support;

mod access_refused;
mod app_table_departures;
mod app_table_locks;
mod app_tables;
mod app_tables_plan;
mod certificates;
mod check;
mod check_database;
mod cli;
mod client;
mod clock_jumps;
mod configuration_errors;
mod constraints;
mod daemon;
mod database_urls;
mod deletions;
mod deployment_files;
mod documents;
mod dropped_schema;
mod emulators;
mod encodings;
mod event_causes;
mod event_order;
mod events;
mod existing_schemas;
mod exit_codes;
mod failover;
mod flapping_count;
mod flood;
mod freshness;
mod full_sync;
mod generated_ids;
mod guard;
mod health;
mod held_deletions;
mod hostile_answers;
mod http_listener;
mod idle_connections;
mod incremental;
mod instance;
mod isolation_levels;
mod lease;
mod list_orders;
mod locked_rows;
mod memory_bounds;
mod migrations;
mod missing_users;
mod missing_users_guard;
mod missing_users_misled;
mod notifications;
mod on_demand;
mod openapi;
mod outage;
mod pagination;
mod partitioned_walks;
mod pgbouncer;
mod privileges;
mod probes_and_metrics;
mod random_histories;
mod recipes;
mod rejected_users;
mod replica_lag;
mod request_budget;
mod request_rate;
mod resumed_syncs;
mod search_path;
mod secrets;
mod service_manager;
mod several_daemons;
mod shifting_lists;
mod shutdown;
mod signups_during_syncs;
mod sql_injection;
mod sqlstate;
mod tied_timestamps;
mod tls;
mod unexpected_values;
mod unique_values;
