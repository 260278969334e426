//! When an event that an endpoint did not accept is tried again.

use std::time::Duration;

/// Pauses between the attempts, the same as Svix's: after the last one fails, the event is dead.
/// Source: documented.
const PAUSES: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(10),
];

/// Returns after how long an event is tried again that has been tried so often; `None` if it is
/// dead. A pause is up to a tenth longer, so that events that failed together are not tried
/// together.
pub(super) fn pause_after(attempts: u32, retry_after: Option<Duration>) -> Option<Duration> {
    let index = usize::try_from(attempts.saturating_sub(1)).ok()?;
    let pause = PAUSES.get(index)?.mul_f64(1.0 + fastrand::f64() / 10.0);
    Some(pause.max(retry_after.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_ATTEMPTS: u32 = PAUSES.len() as u32 + 1;

    #[test]
    fn pauses_are_those_of_svix_with_some_jitter() {
        for (attempts, pause) in (1..MAX_ATTEMPTS).zip(PAUSES) {
            let chosen = pause_after(attempts, None).unwrap();
            assert!((pause..=pause.mul_f64(1.1)).contains(&chosen), "{attempts}: {chosen:?}");
        }
        assert_eq!(pause_after(MAX_ATTEMPTS, None), None);
    }

    #[test]
    fn an_endpoint_may_ask_for_a_longer_pause_but_not_a_shorter_one() {
        let minute = Duration::from_mins(1);
        assert_eq!(pause_after(1, Some(minute)), Some(minute));
        assert!(pause_after(2, Some(minute)).unwrap() >= PAUSES[1]);
    }
}
