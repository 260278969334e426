//! Delivery: events are sent to endpoints, the webhook handlers that people have, signed as Svix
//! signs them.

mod address;
mod attempt;
mod body;
mod client;
mod delivery;
mod destination;
mod endpoint;
mod message_id;
mod pause;
mod queue;
mod retry;
mod sign;
mod worker;

pub(crate) use address::check_address;
pub use attempt::{Attempt, AttemptOutcome};
pub use body::body;
pub use client::{EndpointClient, HttpsUnavailable};
pub use delivery::Delivery;
pub use endpoint::{Endpoint, Start};
pub use sign::{InvalidSigningKey, SigningKey, signatures};
