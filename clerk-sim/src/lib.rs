//! A simulator of the part of Clerk's Backend API that deals with users and organizations.
//!
//! It answers as Clerk does, as far as that is known, for up to a million generated users. On
//! demand it answers as a server in trouble does. Comments and the README say what is documented by
//! Clerk, what was observed, and what is a guess.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! use clerk_sim::{Options, Quirks, Sim};
//!
//! let sim = Sim::start(Options { users: 20, ..Options::default() }).await?;
//! let first = &sim.user_ids()[0];
//! assert!(sim.update(first, |user| user["first_name"] = "Ada".into()));
//! sim.set_faults(Quirks { ignore_starting_after: true, ..Quirks::default() });
//! println!("{}/v1/users with the key {}", sim.url(), sim.secret_key());
//! sim.stop().await;
//! # Ok(())
//! # }
//! ```

// The document of a new user is one json! with about fifty keys.
#![recursion_limit = "256"]

mod churn;
mod clock;
mod errors;
mod faults;
mod http;
mod ids;
mod kind;
mod limit;
mod list;
mod metadata;
mod oddity;
mod organizations;
mod parameters;
mod resources;
mod seed;
mod shutdown;
mod sim;
mod state;
mod stats;
mod store;
mod stores;
mod users;

pub use faults::{
    DeletedCursor, Effect, Endpoint, ErrorAnswer, ErrorBody, Faults, OrganizationsOff, Quirks, Replicas, Rule, Shuffle,
    WrongCount,
};
pub use kind::Kind;
pub use limit::RateLimit;
pub use oddity::Oddity;
pub use organizations::options::{OrganizationOptions, PerOrganization};
pub use sim::Sim;
pub use state::Options;
pub use stats::Request;
pub use users::unstorable::Unstorable;
