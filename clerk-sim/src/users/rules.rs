//! Rules that both creating and updating a user apply.

use crate::errors::Failure;
use crate::parameters::Parameters;

/// How long a requested lock lasts, in seconds (a guess). At Clerk it is a setting of the instance.
pub(super) const LOCK_SECONDS: i64 = 3600;

/// Refuses a password that is too short.
///
/// "Must be at least 8 characters long" (documented). Lists of hacked passwords are not consulted.
pub(super) fn check_password(parameters: &Parameters) -> Result<(), Failure> {
    let is_short = parameters
        .text("password")
        .is_some_and(|password| password.chars().count() < 8);
    if is_short && !parameters.flag("skip_password_checks") {
        return Err(Failure::short_password());
    }
    Ok(())
}
