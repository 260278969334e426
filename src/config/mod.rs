//! The configuration: defaults, `config.toml`, `CLERK2PG_<SECTION>__<KEY>` and familiar variables;
//! later ones win. Only `setup` and the commands import this module.

mod endpoints;
mod environment;
mod error;
mod exclusions;
mod exposed;
#[cfg(test)]
mod folder;
mod http;
mod keys;
mod load;
mod settings;
mod signing;
mod tables;
mod validate;

pub use environment::ConfigSource;
pub use error::ConfigError;
pub use http::HttpSettings;
pub use load::{Loaded, load};
pub use settings::{
    ClerkSettings, DatabaseSettings, DeleteSettings, EventSettings, HumanDuration, LeaseSettings, LogSettings,
    ScheduleSettings, Settings,
};
