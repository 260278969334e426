use super::*;

fn users(ids: &[&str]) -> Option<Task> {
    Some(Task::Users(ids.iter().map(|id| (*id).to_owned()).collect()))
}

#[test]
fn what_is_marked_twice_is_done_once_and_a_full_sync_absorbs_the_rest() {
    let due = Due::default();
    let take = || due.take(&Allowed::ALL);
    assert_eq!(take(), None);
    due.scheduled_incremental();
    due.scheduled_incremental();
    due.incremental();
    assert_eq!(take(), Some(Task::Incremental));
    assert_eq!(take(), None);
    due.user("user_b");
    due.full();
    due.scheduled_incremental();
    due.user("user_a");
    due.user("user_b");
    assert_eq!(take(), users(&["user_b", "user_a"]));
    assert_eq!(take(), Some(Task::Full));
    assert_eq!(take(), None);
}

#[test]
fn too_many_users_become_an_incremental_sync() {
    let due = Due::default();
    for n in 0..=queue::MAX_WAITING {
        due.user(&format!("user_{n}"));
    }
    assert_eq!(due.take_users(usize::MAX).len(), queue::MAX_WAITING);
    assert_eq!(due.take(&Allowed::ALL), Some(Task::Incremental));
    due.limit(NotificationLimits {
        ids_at_once: 2,
        gap: Duration::ZERO,
    });
    due.user("user_a");
    due.user("user_b");
    assert!(!due.has_incremental());
    due.user("user_c");
    assert!(due.has_incremental());
}

#[test]
fn users_go_first_but_in_turns_with_the_rest() {
    let due = Due::default();
    let some = Allowed {
        users: 1,
        ..Allowed::ALL
    };
    ["user_a", "user_b", "user_c"].iter().for_each(|id| due.user(id));
    due.scheduled_incremental();
    assert_eq!(due.take(&some), users(&["user_a"]));
    assert_eq!(due.take(&some), Some(Task::ScheduledIncremental));
    assert_eq!(due.take(&some), users(&["user_b"]));
    assert_eq!(due.take(&some), users(&["user_c"]), "nothing else is due");
    due.user("user_d");
    let none = Allowed {
        users: 0,
        ..Allowed::ALL
    };
    assert_eq!(due.take(&none), None);
}

#[test]
fn what_failed_lets_everything_else_go_first() {
    let due = Due::default();
    let take = || due.take(&Allowed::ALL);
    due.full();
    let full = take().unwrap();
    due.failed(full, false);
    due.scheduled_incremental();
    assert_eq!(take(), Some(Task::ScheduledIncremental));
    assert_eq!(take(), Some(Task::Full));
    due.user("user_bad");
    let bad = take().unwrap();
    due.failed(bad, true);
    due.full();
    assert_eq!((take(), take()), (Some(Task::Full), None), "the user waits for a while");
    assert!(due.next(None, None, None).unwrap() > Instant::now());
}

#[test]
fn syncs_that_notifications_ask_for_are_spaced() {
    let due = Due::default();
    let gap = Duration::from_secs(60);
    due.limit(NotificationLimits { ids_at_once: 1, gap });
    let take = || due.take(&Allowed::ALL);
    for task in [Task::Incremental, Task::Full] {
        for asked in [true, false] {
            match task {
                Task::Full => due.ask_full(),
                _ => due.ask_incremental(),
            }
            assert_eq!(take(), asked.then(|| task.clone()));
        }
    }
    assert!(!due.has_incremental() && !due.take_incremental());
    assert!(due.next(None, None, None).unwrap() > Instant::now());
    due.scheduled_incremental();
    assert_eq!(
        take(),
        Some(Task::ScheduledIncremental),
        "the schedule does not wait for it"
    );
    due.full();
    assert_eq!((take(), take()), (Some(Task::Full), None));
}
