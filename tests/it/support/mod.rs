//! What several suites share: fixtures, servers, proxies, waits and comparisons.

pub mod authority;
pub mod changes;
pub mod check;
pub mod client;
pub mod compare;
pub mod connecting;
pub mod database;
pub mod events;
pub mod everything;
pub mod faults;
pub mod fixture;
pub mod http_client;
pub mod http_server;
pub mod metrics;
pub mod monitored;
pub mod on_demand;
pub mod polling;
pub mod postgres;
pub mod process;
pub mod program;
pub mod proxy;
pub mod roles;
pub mod statement_counter;
pub mod summary;
pub mod syncs;
pub mod wait;
