//! `[http]`: where the daemon answers probes and serves metrics.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// `[http]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Address for probes and metrics; empty turns it off.
    pub listen: String,
    /// Whether the address may be one that other machines reach.
    pub allow_remote: bool,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9465".to_owned(),
            allow_remote: false,
        }
    }
}

impl HttpSettings {
    /// Returns the address to listen on; `None` if that is turned off.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn address(&self) -> Result<Option<SocketAddr>, &'static str> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        let address = match self.listen.strip_prefix("localhost:") {
            Some(port) => port
                .parse()
                .ok()
                .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => self.listen.parse().ok(),
        };
        let address = address.ok_or("an address and a port, for example \"127.0.0.1:9465\"; \"\" turns it off")?;
        if !address.ip().to_canonical().is_loopback() && !self.allow_remote {
            return Err(
                "an address that only this machine reaches, such as \"127.0.0.1:9465\"; \
                 http.allow_remote = true allows others: put them behind a firewall, as anybody who reaches them can read",
            );
        }
        Ok(Some(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_unless_allowed() {
        let address = |listen: &str, allow_remote| {
            HttpSettings {
                listen: listen.to_owned(),
                allow_remote,
            }
            .address()
        };
        let check = |listen, expected: &str| assert_eq!(address(listen, false), Ok(Some(expected.parse().unwrap())));
        check("127.0.0.1:9465", "127.0.0.1:9465");
        check("[::1]:0", "[::1]:0");
        check("localhost:80", "127.0.0.1:80");
        check("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1");
        assert_eq!(address("", false), Ok(None));
        for listen in ["0.0.0.0:9465", "[::]:9465", "192.0.2.1:9465"] {
            assert!(
                address(listen, false).unwrap_err().contains("http.allow_remote"),
                "{listen}"
            );
            assert_eq!(address(listen, true), Ok(Some(listen.parse().unwrap())));
        }
        for listen in [
            "9465",
            ":9465",
            "127.0.0.1",
            "localhost",
            "example.com:80",
            "127.0.0.1:99999",
        ] {
            assert!(
                address(listen, true).unwrap_err().contains("127.0.0.1:9465"),
                "{listen}"
            );
        }
    }
}
