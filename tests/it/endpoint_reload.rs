//! SIGHUP gives a running daemon new endpoints, unless an entry cannot be used.

use rustix::process::Signal;

use crate::support::{app_table::AppTable, process::NEVER, summary::Exit, wait::eventually};

/// An endpoint at which nobody listens.
const APP: &str =
    "[[endpoints]]\nname = \"app\"\nurl = \"http://127.0.0.1:1/\"\nsecret = \"whsec_AAAA\"\nevents = [\"user.*\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_entry_keeps_the_old_configuration() {
    let app = AppTable::new(3, "", APP).await;
    let daemon = app.start_daemon(&[NEVER]);
    app.fixture.syncs(1).await;
    let reload = async |text: &str, says: &str| {
        app.set_mapping(text);
        let before = daemon.count_in_log(says);
        daemon.signal(Signal::HUP);
        eventually(&format!("{says}, after {text:?}"), async || {
            daemon.count_in_log(says) > before
        })
        .await;
    };
    for (broken, why) in [
        (APP.replace("events", "event"), "did you mean events?"),
        (APP.replace("user.*", "users.*"), "did you mean user.*?"),
        (APP.replace("127.0.0.1:1", "203.0.113.5"), "its host is not private"),
        (APP.replace("whsec_AAAA", "whsec_AAA"), "secret is not a signing secret"),
        (APP.replace("whsec_AAAA", ""), "app has no secret"),
        (APP.repeat(2), "there are two entries with this name"),
    ] {
        reload(&broken, "the old one stays").await;
        assert_eq!(daemon.count_in_log(why), 1, "{why}: {}", daemon.log());
    }
    assert_eq!(daemon.count_in_log("configuration reloaded"), 0, "{}", daemon.log());
    reload(&APP.replace("app", "other"), "configuration reloaded").await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
