//! The Clerk side: asks the Backend API within its budget, and splits answers into documents, which
//! are not decoded here.

mod body;
mod budget;
mod client;
mod error;
mod error_response;
mod page;
mod requests;
mod retry;
mod split;
mod tally;

pub use body::{MAX_BODY, ResponseBody, unpack};
pub use client::{Client, ClientSettings};
pub use error::{ClientError, Error, Objection};
pub use error_response::ErrorResponse;
pub use page::{Page, RawObject};
pub use requests::{Instance, Lookup, Members};
pub use split::MAX_OBJECTS;
pub use tally::Tally;

/// The largest body of an answer that is not a list, in bytes.
const MAX_ANSWER: usize = 1 << 20;
