//! Marks as due what the application requests with `NOTIFY clerk2pg`.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tracing::{debug, warn};

use crate::{
    mirror::{ListenError, Mirror, NotificationStream},
    resource::RESOURCES,
    schedule::due::Due,
};

/// Longest id that is accepted; Clerk's have 32 characters.
const MAX_ID: usize = 100;

/// Listens, and marks what is requested as due.
pub(super) async fn mark_notified(mirror: Mirror, due: Due) {
    let pauses = |least, most| {
        ExponentialBuilder::default()
            .with_min_delay(least)
            .with_max_delay(most)
            .without_max_times()
            .with_jitter()
            .build()
    };
    let lost = || pauses(Duration::from_millis(500), Duration::from_secs(30));
    // A pooler remains a pooler, but a standby server may become the primary.
    let mut unsupported = pauses(Duration::from_secs(5), Duration::from_secs(600));
    let mut waiting = lost();
    let (mut has_listened, mut has_warned) = (false, false);
    loop {
        let pause = match NotificationStream::open(&mirror).await {
            Ok(mut listener) => {
                debug!("listening");
                waiting = lost();
                if std::mem::replace(&mut has_listened, true) {
                    // Notifications that were sent in between are lost.
                    due.incremental();
                }
                while let Ok(payload) = listener.next().await {
                    mark(&due, &payload);
                }
                waiting.next()
            }
            Err(ListenError::Unavailable(error)) => {
                debug!(%error, "cannot listen yet");
                waiting.next()
            }
            Err(ListenError::Unsupported(why)) => {
                if !std::mem::replace(&mut has_warned, true) {
                    warn!(
                        why,
                        "NOTIFY clerk2pg does not arrive over this connection, as behind a pooler in transaction mode; only the schedule is used"
                    );
                }
                unsupported.next()
            }
        };
        tokio::time::sleep(pause.unwrap_or(Duration::from_secs(600))).await;
    }
}

fn mark(due: &Due, payload: &str) {
    let is_id = |text: &str| {
        RESOURCES.iter().any(|resource| text.starts_with(resource.id_prefix))
            && text.len() <= MAX_ID
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match payload.trim() {
        "sync" => due.ask_incremental(),
        "full" => due.ask_full(),
        id if is_id(id) => due.user(id),
        echo if NotificationStream::is_echo(echo) => {}
        other => debug!(
            bytes = other.len(),
            "unknown notification; expected \"sync\", \"full\", \"user_…\", \"org_…\", \"orgmem_…\" or the like"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::due::{Allowed, Task};

    #[test]
    fn payloads_that_are_understood() {
        let check = |payload, expected| {
            let due = Due::default();
            mark(&due, payload);
            assert_eq!(due.take(&Allowed::ALL), expected, "{payload:?}");
        };
        check("sync", Some(Task::Incremental));
        check(" full\n", Some(Task::Full));
        check("user_2abC", Some(Task::Users(vec!["user_2abC".to_owned()])));
        check("orgmem_2abC", Some(Task::Users(vec!["orgmem_2abC".to_owned()])));
        check("sess_2abC", None);
        check("user_../instance", None);
        let long = format!("user_{}", "a".repeat(200));
        check(&long, None);
        check("echo 0123", None);
        check("", None);
        check("SYNC", None);
    }
}
