//! The addresses that may be connected to.
//!
//! An endpoint is inside the network. So plain HTTP, which anybody on the way can read, goes only to
//! private addresses. The addresses at which clouds give out credentials are never asked, so that a
//! name that somebody else controls cannot lead there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address may not be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForbiddenAddress {
    #[error("not private: use https")]
    NotPrivate,
    #[error("an address of the cloud's metadata")]
    Metadata,
    #[error("a link-local address")]
    LinkLocal,
    #[error("not the address of one host")]
    NoHost,
}

/// Services of clouds that give out credentials, in addition to the link-local 169.254.169.254.
/// Source: documented by Alibaba Cloud, Azure and Oracle Cloud.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// The same with IPv6. Source: documented by Google Cloud and Oracle Cloud. Those of AWS are in
/// fd00:ec2::/32.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// Whether an address may be connected to.
pub(crate) fn check_address(ip: IpAddr, is_encrypted: bool) -> Result<(), ForbiddenAddress> {
    match ip {
        IpAddr::V4(ip) => check_v4(ip, is_encrypted),
        IpAddr::V6(ip) => match inside(ip) {
            Some(ip) => check_v4(ip, is_encrypted),
            None => check_v6(ip, is_encrypted),
        },
    }
}

fn check_v4(ip: Ipv4Addr, is_encrypted: bool) -> Result<(), ForbiddenAddress> {
    let is_shared = matches!(ip.octets(), [100, 64..=127, ..]);
    match ip.octets() {
        _ if METADATA_V4.contains(&ip) => Err(ForbiddenAddress::Metadata),
        _ if ip.is_link_local() => Err(ForbiddenAddress::LinkLocal),
        [0, ..] => Err(ForbiddenAddress::NoHost),
        _ if ip.is_multicast() || ip.is_broadcast() => Err(ForbiddenAddress::NoHost),
        // Tailscale and Kubernetes use the addresses that carriers share, 100.64.0.0/10.
        _ if is_encrypted || ip.is_loopback() || ip.is_private() || is_shared => Ok(()),
        _ => Err(ForbiddenAddress::NotPrivate),
    }
}

fn check_v6(ip: Ipv6Addr, is_encrypted: bool) -> Result<(), ForbiddenAddress> {
    match ip.segments() {
        _ if METADATA_V6.contains(&ip) => Err(ForbiddenAddress::Metadata),
        [0xfd00, 0xec2, ..] => Err(ForbiddenAddress::Metadata),
        _ if ip.is_unicast_link_local() => Err(ForbiddenAddress::LinkLocal),
        _ if ip.is_unspecified() || ip.is_multicast() => Err(ForbiddenAddress::NoHost),
        _ if is_encrypted || ip.is_loopback() || ip.is_unique_local() => Ok(()),
        _ => Err(ForbiddenAddress::NotPrivate),
    }
}

/// Returns the IPv4 address that an IPv6 address leads to.
fn inside(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high, low| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        // No host and loopback.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Compatible, mapped and translated.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => of(high, low),
        // NAT64, with the common prefix and with local ones.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => of(high, low),
        // 6to4.
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks an address over http and over https.
    fn check(ip: &str, http: Option<ForbiddenAddress>, https: Option<ForbiddenAddress>) {
        let ip: IpAddr = ip.parse().unwrap();
        assert_eq!(check_address(ip, false).err(), http, "{ip} over http");
        assert_eq!(check_address(ip, true).err(), https, "{ip} over https");
    }

    #[test]
    fn private_addresses_are_allowed() {
        for ip in [
            "127.0.0.1",
            "127.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.0",
            "100.127.255.255",
            "::1",
            "fc00::1",
            "fd12:3456:789a::1",
            "::ffff:10.0.0.1",
            "::ffff:0:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "2002:a00:1::1",
        ] {
            check(ip, None, None);
        }
    }

    #[test]
    fn public_addresses_need_encryption() {
        for ip in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "203.0.113.5",
            "2606:4700::1111",
            "fbff::1",
            "fec0::1",
            "::ffff:1.1.1.1",
            "::1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            check(ip, Some(ForbiddenAddress::NotPrivate), None);
        }
    }

    #[test]
    fn others_are_never_allowed() {
        let never = |why, ips: &[&str]| ips.iter().for_each(|ip| check(ip, Some(why), Some(why)));
        never(
            ForbiddenAddress::Metadata,
            &[
                "100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
                "::ffff:168.63.129.16",
                "fd00:ec2::254",
                "fd00:ec2::23",
                "fd20:ce::254",
                "fd00:c1::a9fe:a9fe",
            ],
        );
        never(
            ForbiddenAddress::LinkLocal,
            &[
                "169.254.0.0",
                "169.254.169.254",
                "169.254.170.2",
                "169.254.255.255",
                "fe80::1",
                "febf::1",
                "::ffff:169.254.169.254",
                "::ffff:0:169.254.169.254",
                "::169.254.169.254",
                "64:ff9b::169.254.169.254",
                "64:ff9b:1::169.254.169.254",
                "2002:a9fe:a9fe::1",
            ],
        );
        never(
            ForbiddenAddress::NoHost,
            &[
                "0.0.0.0",
                "0.1.2.3",
                "224.0.0.1",
                "239.255.255.255",
                "255.255.255.255",
                "::",
                // Compatible with 0.0.0.2.
                "::2",
                "::ffff:0.0.0.0",
                "ff02::1",
            ],
        );
    }
}
