//! The daemon's own address: free for it, its own already, or somebody else's.

use std::net::SocketAddr;

use super::Finding;
use crate::watch::{self, HttpServer};

const NAME: &str = "listener";

/// Takes the address for a moment, and where it is taken asks who is there.
pub(super) async fn knock(address: Option<SocketAddr>) -> Finding {
    let Some(address) = address else {
        return Finding::ok(NAME, "turned off (http.listen = \"\")");
    };
    let Err(failure) = HttpServer::default().bind(Some(address)) else {
        return Finding::ok(
            NAME,
            format!("http://{address}/ is free: no daemon runs here, or with another http.listen"),
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
        .hint("its log says more, as does `clerk2pg status`"),
        Err(_) => Finding {
            hint: failure.hint,
            ..Finding::warn(NAME, format!("{}; a daemon would not start", failure.message))
        },
    }
}
