//! The host of an endpoint: its addresses, and which of them may be connected to.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::Url;
use tokio::net::lookup_host;

use super::address::check_address;

/// How long the attempts of a burst share a lookup, which takes longer than the rest of an attempt.
/// The retry of an event comes later than this.
const LOOKUP_LIFETIME: Duration = Duration::from_secs(1);

/// The host of an endpoint.
#[derive(Debug)]
pub(super) struct Destination {
    /// As in the URL, without brackets.
    name: String,
    port: u16,
    is_encrypted: bool,
    addresses: HostAddresses,
}

/// The addresses of a host that may be connected to, at least one, or why there is none.
type Allowed = Result<Arc<[SocketAddr]>, String>;

#[derive(Debug)]
enum HostAddresses {
    /// Those of an address itself, and of `localhost`, which are always the same. Source: RFC 6761.
    Fixed(Allowed),
    LookedUp {
        lookup: NameLookup,
        latest: Mutex<Option<(Instant, Arc<[SocketAddr]>)>>,
    },
}

/// Where names are looked up.
#[derive(Debug, Clone, Copy)]
pub(super) enum NameLookup {
    /// In the system's resolver.
    System,
    /// In a table. Attempts do not share lookups.
    #[cfg(test)]
    Table(fn(&str) -> io::Result<Vec<IpAddr>>),
}

impl Destination {
    pub(super) fn new(url: &Url, lookup: NameLookup) -> Self {
        let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = url.port_or_known_default().unwrap_or_default();
        let is_encrypted = url.scheme() == "https";
        let fixed = |ips: &[IpAddr]| HostAddresses::Fixed(allowed(name, port, is_encrypted, ips));
        let addresses = match name.parse() {
            Ok(ip) => fixed(&[ip]),
            Err(_) if name == "localhost" => fixed(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
            Err(_) => HostAddresses::LookedUp {
                lookup,
                latest: Mutex::default(),
            },
        };
        Self {
            name: name.to_owned(),
            port,
            is_encrypted,
            addresses,
        }
    }

    /// Returns the name or the address, as in the URL.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is connected to with TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Returns the addresses that may be connected to.
    pub(super) async fn addresses(&self) -> Allowed {
        let (lookup, latest) = match &self.addresses {
            HostAddresses::Fixed(allowed) => return allowed.clone(),
            HostAddresses::LookedUp { lookup, latest } => (lookup, latest),
        };
        let known = latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, addresses)) = known.filter(|(at, _)| at.elapsed() < lookup.lifetime()) {
            return Ok(addresses);
        }
        let found = lookup.ask(&self.name).await;
        let found = found.map_err(|_| format!("{} does not resolve", self.name))?;
        let addresses = allowed(&self.name, self.port, self.is_encrypted, &found)?;
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

/// Returns the addresses that may be connected to. The texts are for people.
fn allowed(name: &str, port: u16, is_encrypted: bool, found: &[IpAddr]) -> Allowed {
    let (mut addresses, mut refused) = (Vec::new(), None);
    for &ip in found {
        match check_address(ip, is_encrypted) {
            Ok(()) => addresses.push(SocketAddr::new(ip, port)),
            Err(why) => refused = refused.or(Some((ip, why))),
        }
    }
    match refused {
        _ if !addresses.is_empty() => Ok(addresses.into()),
        Some((ip, why)) if name.parse() == Ok(ip) => Err(format!("{ip} is {why}")),
        Some((ip, why)) => Err(format!("{name} resolves to {ip}, which is {why}")),
        None => Err(format!("{name} does not resolve")),
    }
}

impl NameLookup {
    fn lifetime(self) -> Duration {
        match self {
            NameLookup::System => LOOKUP_LIFETIME,
            #[cfg(test)]
            NameLookup::Table(_) => Duration::ZERO,
        }
    }

    async fn ask(self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            NameLookup::System => Ok(lookup_host((name, 0)).await?.map(|address| address.ip()).collect()),
            #[cfg(test)]
            NameLookup::Table(look_up) => look_up(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn addresses(url: &str, lookup: NameLookup) -> Result<Vec<String>, String> {
        let destination = Destination::new(&url.parse().unwrap(), lookup);
        let addresses = destination.addresses().await?;
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    const TABLE: NameLookup = NameLookup::Table(|name| match name {
        "app" => Ok(vec![
            [203, 0, 113, 5].into(),
            [10, 0, 0, 2].into(),
            [169, 254, 169, 254].into(),
        ]),
        "public" => Ok(vec![[203, 0, 113, 5].into()]),
        "metadata" => Ok(vec![[169, 254, 169, 254].into()]),
        "empty" => Ok(Vec::new()),
        _ => Err(io::ErrorKind::NotFound.into()),
    });

    #[tokio::test]
    async fn only_allowed_addresses_are_connected_to() {
        let check = async |url: &str, expected: &[&str]| {
            let expected = expected.iter().map(ToString::to_string).collect();
            assert_eq!(addresses(url, TABLE).await, Ok(expected), "{url}");
        };
        check("http://app:3000/x?y", &["10.0.0.2:3000"]).await;
        check("https://app/", &["203.0.113.5:443", "10.0.0.2:443"]).await;
        check("http://localhost/", &["127.0.0.1:80", "[::1]:80"]).await;
        check("http://LOCALHOST:1/", &["127.0.0.1:1", "[::1]:1"]).await;
        check("http://127.1/", &["127.0.0.1:80"]).await;
        check("http://[::1]:5/", &["[::1]:5"]).await;
        check("https://203.0.113.5/", &["203.0.113.5:443"]).await;
    }

    #[tokio::test]
    async fn a_host_without_an_allowed_address_is_refused() {
        let check = async |url: &str, why: &str| {
            assert_eq!(addresses(url, TABLE).await, Err(why.to_owned()), "{url}");
        };
        check(
            "http://public/",
            "public resolves to 203.0.113.5, which is not private: use https",
        )
        .await;
        check("http://203.0.113.5/", "203.0.113.5 is not private: use https").await;
        // The same address in other spellings.
        check("http://0xCB007105/", "203.0.113.5 is not private: use https").await;
        check(
            "http://[::ffff:203.0.113.5]/",
            "::ffff:203.0.113.5 is not private: use https",
        )
        .await;
        let metadata = "metadata resolves to 169.254.169.254, which is a link-local address";
        check("http://metadata/", metadata).await;
        check("https://metadata/", metadata).await;
        check(
            "https://[fd00:ec2::254]/",
            "fd00:ec2::254 is an address of the cloud's metadata",
        )
        .await;
        check("http://empty/", "empty does not resolve").await;
        check("http://unknown/", "unknown does not resolve").await;
    }

    #[tokio::test]
    async fn the_system_resolves_names() {
        // A domain that never exists. Source: RFC 6761.
        let why = "clerk2pg.invalid does not resolve".to_owned();
        assert_eq!(
            addresses("http://clerk2pg.invalid/", NameLookup::System).await,
            Err(why)
        );
    }
}
