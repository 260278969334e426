//! A simulator of the part of Clerk's Backend API that deals with users.
//!
//! It answers as Clerk does, as far as that is known, for thousands or a million generated users, and on demand as a server in
//! trouble does. What is documented, what was observed and what is a guess is said where it is decided, and together in the README.
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

// The document of a new user is one json! of some fifty keys.
#![recursion_limit = "256"]

mod accounts;
mod canonical;
mod churn;
mod control;
mod create;
mod document;
mod errors;
mod facts;
mod faults;
mod fields;
mod generate;
mod ids;
mod limit;
mod metadata;
mod model;
mod oddity;
mod people;
mod query;
mod ranked;
mod reply;
mod routes;
mod select;
mod server;
mod sim;
mod state;
mod stats;
mod store;
mod unstorable;
mod write;

pub use faults::{
    DeletedCursor, Effect, Endpoint, ErrorAnswer, ErrorBody, Faults, Quirks, Replicas, Rule, Shuffle, WrongCount,
};
pub use limit::RateLimit;
pub use oddity::Oddity;
pub use sim::Sim;
pub use state::Options;
pub use stats::Request;
pub use unstorable::Unstorable;
