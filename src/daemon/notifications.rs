//! What the application asks for by `NOTIFY clerk2pg`.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tracing::{debug, warn};

use crate::{
    mirror::{ListenError, Mirror, NotificationStream},
    sync::due::Due,
};

/// The longest id that is asked for; Clerk's have 32 characters.
const ID: usize = 100;

/// Listens, and marks what is asked for as due.
pub(super) async fn hear(mirror: Mirror, due: Due) {
    let pauses = |least, most| {
        ExponentialBuilder::default()
            .with_min_delay(least)
            .with_max_delay(most)
            .without_max_times()
            .with_jitter()
            .build()
    };
    let lost = || pauses(Duration::from_millis(500), Duration::from_secs(30));
    // A pooler stays one; a standby becomes a server that can be listened to.
    let mut deaf = pauses(Duration::from_secs(5), Duration::from_secs(600));
    let mut waiting = lost();
    let (mut has_heard, mut has_told) = (false, false);
    loop {
        let pause = match NotificationStream::open(&mirror).await {
            Ok(mut listener) => {
                debug!("listening");
                waiting = lost();
                if std::mem::replace(&mut has_heard, true) {
                    // What was asked for in between was not heard.
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
                if !std::mem::replace(&mut has_told, true) {
                    warn!(
                        why,
                        "NOTIFY clerk2pg is not heard over this connection, as behind a pooler in transaction mode; going on by the schedule alone"
                    );
                }
                deaf.next()
            }
        };
        tokio::time::sleep(pause.unwrap_or(Duration::from_secs(600))).await;
    }
}

fn mark(due: &Due, payload: &str) {
    let is_id = |text: &str| {
        text.starts_with("user_")
            && text.len() <= ID
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match payload.trim() {
        "sync" => due.ask_incremental(),
        "full" => due.ask_full(),
        id if is_id(id) => due.user(id),
        echo if NotificationStream::is_echo(echo) => {}
        other => debug!(
            bytes = other.len(),
            "a notification that is none of \"sync\", \"full\" and \"user_…\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::due::{Allowed, Task};

    #[test]
    fn what_can_be_asked_for() {
        let check = |payload, expected| {
            let due = Due::default();
            mark(&due, payload);
            assert_eq!(due.take(&Allowed::ALL), expected, "{payload:?}");
        };
        check("sync", Some(Task::Incremental));
        check(" full\n", Some(Task::Full));
        check("user_2abC", Some(Task::Users(vec!["user_2abC".to_owned()])));
        check("user_../instance", None);
        let long = format!("user_{}", "a".repeat(200));
        check(&long, None);
        check("echo 0123", None);
        check("", None);
        check("SYNC", None);
    }
}
