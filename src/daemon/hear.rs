//! What the application asks for by `NOTIFY clerk2pg`.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tracing::{debug, warn};

use crate::{
    due::Due,
    mirror::{Listener, Mirror, NotHeard},
};

/// The longest id that is asked for; Clerk's have 32 characters.
const ID: usize = 100;

/// Listens for as long as that has a use, and marks what is asked for as due.
pub(super) async fn hear(mirror: Mirror, due: Due) {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .with_jitter();
    let mut waiting = pauses.build();
    let mut has_heard = false;
    loop {
        match mirror.listen().await {
            Ok(mut listener) => {
                debug!("listening");
                waiting = pauses.build();
                if std::mem::replace(&mut has_heard, true) {
                    // What was asked for in between was not heard.
                    due.incremental();
                }
                while let Ok(payload) = listener.next().await {
                    mark(&due, &payload);
                }
            }
            Err(NotHeard::Away(error)) => debug!(%error, "cannot listen yet"),
            Err(NotHeard::Deaf(why)) => {
                warn!(
                    why,
                    "NOTIFY clerk2pg is not heard over this connection, as behind a pooler in transaction mode; going on by the schedule alone"
                );
                return;
            }
        }
        tokio::time::sleep(waiting.next().unwrap_or(Duration::from_secs(30))).await;
    }
}

fn mark(due: &Due, payload: &str) {
    let is_id = |text: &str| {
        text.starts_with("user_")
            && text.len() <= ID
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match payload.trim() {
        "sync" => due.incremental(),
        "full" => due.full(),
        id if is_id(id) => due.user(id),
        echo if Listener::is_echo(echo) => {}
        other => debug!(
            bytes = other.len(),
            "a notification that is none of \"sync\", \"full\" and \"user_…\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::due::Task;

    #[test]
    fn what_can_be_asked_for() {
        let check = |payload, expected| {
            let due = Due::default();
            mark(&due, payload);
            assert_eq!(due.take(), expected, "{payload:?}");
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
