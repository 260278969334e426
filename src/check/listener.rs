//! Checks the daemon's address: free, in use by a daemon, or in use by another program.

use std::net::SocketAddr;

use super::finding::Finding;
use crate::watch::{self, HttpServer};

const NAME: &str = "listener";

/// Binds the address for a moment. If it is in use, asks whether a daemon answers there.
pub(super) async fn check_listener(address: Option<SocketAddr>) -> Finding {
    let Some(address) = address else {
        return Finding::ok(NAME, "turned off (http.listen = \"\")");
    };
    let Err(failure) = HttpServer::default().bind(Some(address)) else {
        return Finding::ok(
            NAME,
            format!("http://{address}/ is free: no daemon runs here, or it has another http.listen"),
        );
    };
    match watch::try_probe(address).await {
        Ok(probe) if probe.is_ok => Finding::ok(
            NAME,
            format!("a daemon answers at http://{address}/: {}", probe.message),
        ),
        Ok(probe) => Finding::warn(
            NAME,
            format!(
                "a daemon answers at http://{address}/, and is not ready: {}",
                probe.message
            ),
        )
        .hint("see its log, or `clerk2pg status`"),
        Err(_) => Finding {
            hint: failure.hint,
            ..Finding::warn(NAME, format!("{}; a daemon would not start", failure.message))
        },
    }
}
