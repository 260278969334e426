//! A daemon with an HTTP listener: its probes, its page and its metrics.

use crate::support::{
    fixture::Fixture,
    http_client::{Answer, get},
    metrics::Metrics,
    process::Process,
    wait::eventually,
};

/// Listens on any free port.
pub const ANY: (&str, &str) = ("CLERK2PG_HTTP__LISTEN", "127.0.0.1:0");

const LISTENING: &str = "serving probes, metrics and the status page address=\"http://";

/// A daemon with an HTTP listener.
pub struct MonitoredDaemon {
    pub daemon: Process,
    pub address: String,
}

impl MonitoredDaemon {
    pub async fn new(daemon: Process) -> Self {
        daemon.wait_for_log(LISTENING).await;
        let address = addresses(&daemon).pop().unwrap();
        Self { daemon, address }
    }

    /// Starts a daemon that runs one full sync and then syncs only on request.
    pub async fn start(fixture: &Fixture, environment: &[(&str, &str)]) -> Self {
        let obedient = [ANY, ("CLERK2PG_SCHEDULE__FULL", "")];
        Self::new(fixture.start_daemon(&[&obedient, environment].concat())).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        get(&self.address, path).await.expect("nobody listens")
    }

    /// Returns status and text of a probe.
    pub async fn probe(&self, path: &str) -> (u16, String) {
        let answer = self.get(path).await;
        assert!(answer.head.contains("content-type: text/plain"), "{answer:?}");
        (answer.status, answer.body.trim_end().to_owned())
    }

    /// Waits until the daemon is ready and its answer contains this text.
    pub async fn wait_until_ready(&self, says: &str) {
        self.wait_for_readiness(200, says).await;
    }

    /// Waits until the daemon is not ready and its answer contains this reason.
    pub async fn wait_until_not_ready(&self, why: &str) {
        self.wait_for_readiness(503, why).await;
    }

    async fn wait_for_readiness(&self, status: u16, part: &str) {
        eventually(&format!("{status}, {part}"), async || {
            let (now, says) = self.probe("/readyz").await;
            now == status && says.contains(part)
        })
        .await;
    }

    pub async fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics").await;
        let form = Some("text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, form),
            "{answer:?}"
        );
        Metrics::parse(&answer.body)
    }
}

/// Returns the addresses on which a daemon has listened so far.
pub fn addresses(daemon: &Process) -> Vec<String> {
    let log = daemon.log();
    let lines = log.lines().filter_map(|line| line.split_once(LISTENING));
    lines.map(|(_, rest)| rest.trim_end_matches("/\"").to_owned()).collect()
}
