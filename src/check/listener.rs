//! The daemon's own address: free for it, its own already, or somebody else's.

use std::net::SocketAddr;

use super::Finding;
use crate::watch::{self, Listener};

const NAME: &str = "listener";

/// Takes the address for a moment, and where it is taken asks who is there.
pub(super) async fn knock(address: Option<SocketAddr>) -> Finding {
    let Some(address) = address else {
        return Finding::ok(NAME, "turned off (http.listen = \"\")");
    };
    let Err(failure) = Listener::default().bind(Some(address)) else {
        return Finding::ok(
            NAME,
            format!("http://{address}/ is free: no daemon runs here, or with another http.listen"),
        );
    };
    match watch::hear(address).await {
        Ok(verdict) if verdict.is_good => {
            Finding::ok(NAME, format!("a daemon answers at http://{address}/: {}", verdict.says))
        }
        Ok(verdict) => Finding::warn(
            NAME,
            format!(
                "a daemon answers at http://{address}/, and is not ready: {}",
                verdict.says
            ),
        )
        .hint("its log says more, as does `clerk2pg status`"),
        Err(_) => Finding {
            hint: failure.hint,
            ..Finding::warn(NAME, format!("{}; a daemon would not start", failure.message))
        },
    }
}
