use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use rcgen::date_time_ymd;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::*;
use crate::deliver::Start;

#[allow(dead_code, reason = "the tests of the program use the rest")]
#[path = "../../../tests/it/support/authority.rs"]
mod authority;
#[allow(dead_code, reason = "the tests of the program use the rest")]
#[path = "../../../tests/it/support/raw_receiver.rs"]
mod raw_receiver;

use authority::{Authority, parameters};
use raw_receiver::{RawReceiver, RawReply};

const LOCAL: [u8; 4] = [127, 0, 0, 1];
const LOCAL_TOO: [u8; 4] = [127, 0, 0, 2];
const PUBLIC: [u8; 4] = [203, 0, 113, 5];

fn endpoint(scheme: &str, port: u16) -> Endpoint {
    Endpoint {
        name: "app".to_owned(),
        url: format!("{scheme}://app:{port}/hook").parse().unwrap(),
        keys: vec![SigningKey::parse("whsec_AAAA").unwrap()],
        types: vec!["user.created".to_owned()],
        start: Start::Now,
        concurrency: 8,
        timeout: Duration::from_secs(5),
    }
}

/// Returns a client that trusts an authority, or nobody.
fn client(endpoint: &Endpoint, authority: Option<&Authority>, look_up: LookUp) -> EndpointClient {
    let mut roots = RootCertStore::empty();
    if let Some(authority) = authority {
        let certificate = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
    }
    let tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    EndpointClient::with(endpoint, tls, NameLookup::Table(look_up))
}

type LookUp = fn(&str) -> io::Result<Vec<std::net::IpAddr>>;

async fn send(client: &EndpointClient) -> AttemptOutcome {
    client.send("msg_1", "{}".to_owned()).await.outcome
}

const DELIVERED: AttemptOutcome = AttemptOutcome::Delivered { status: 200 };

fn unreachable_as(why: &str) -> AttemptOutcome {
    unreachable(why.to_owned())
}

async fn receiver(address: [u8; 4], port: u16) -> RawReceiver {
    RawReceiver::at((address, port).into(), None, |_| RawReply::status(200)).await
}

#[tokio::test]
async fn a_name_that_becomes_public_is_not_sent_to() {
    static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
    let receiver = receiver(LOCAL, 0).await;
    let client = client(&endpoint("http", receiver.address.port()), None, |_| {
        Ok(vec![match LOOKUPS.fetch_add(1, Ordering::SeqCst) {
            0 | 2 => PUBLIC.into(),
            _ => LOCAL.into(),
        }])
    });
    let public = "app resolves to 203.0.113.5, which is not private: use https";
    assert_eq!(send(&client).await, unreachable_as(public));
    assert_eq!(send(&client).await, DELIVERED);
    // The connection to the private address is still open.
    assert_eq!(send(&client).await, unreachable_as(public));
    assert_eq!((receiver.received().len(), receiver.connections()), (1, 1));
}

#[tokio::test]
async fn a_name_that_moves_is_followed() {
    static MOVED: AtomicUsize = AtomicUsize::new(0);
    let first = receiver(LOCAL, 0).await;
    let second = receiver(LOCAL_TOO, first.address.port()).await;
    let client = client(&endpoint("http", first.address.port()), None, |_| {
        Ok(vec![match MOVED.load(Ordering::SeqCst) {
            0 => LOCAL.into(),
            _ => LOCAL_TOO.into(),
        }])
    });
    assert_eq!(send(&client).await, DELIVERED);
    assert_eq!(send(&client).await, DELIVERED);
    MOVED.store(1, Ordering::SeqCst);
    assert_eq!(send(&client).await, DELIVERED);
    assert_eq!((first.received().len(), first.connections()), (2, 1));
    assert_eq!((second.received().len(), second.connections()), (1, 1));
}

#[tokio::test]
async fn each_allowed_address_is_tried_and_no_other() {
    static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
    let receiver = receiver(LOCAL, 0).await;
    let client = client(&endpoint("http", receiver.address.port()), None, |_| {
        let mut addresses = vec![PUBLIC.into(), LOCAL_TOO.into(), LOCAL.into()];
        if LOOKUPS.fetch_add(1, Ordering::SeqCst) > 0 {
            addresses.reverse();
        }
        Ok(addresses)
    });
    assert_eq!(client.reach().await, Ok(receiver.address));
    for _ in 0..3 {
        assert_eq!(send(&client).await, DELIVERED);
    }
    // One of `reach`, and one of all requests: the order of the addresses means nothing.
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn a_failed_lookup_is_no_attempt() {
    let client = client(&endpoint("http", 1), None, |_| Err(io::ErrorKind::NotFound.into()));
    assert_eq!(send(&client).await, unreachable_as("app does not resolve"));
    assert_eq!(client.reach().await, Err("app does not resolve".to_owned()));
}

/// Connects to a server with this certificate.
async fn check_certificate(authority: &Authority, identity: (String, String), expected: Result<(), &str>) {
    let receiver = RawReceiver::at((LOCAL, 0).into(), Some(identity), |_| RawReply::status(200)).await;
    let client = client(&endpoint("https", receiver.address.port()), Some(authority), |_| {
        Ok(vec![LOCAL.into()])
    });
    assert_eq!(
        client.reach().await,
        expected.map(|()| receiver.address).map_err(str::to_owned)
    );
    assert!(receiver.received().is_empty());
    assert_eq!(
        send(&client).await,
        expected.map_or_else(unreachable_as, |()| DELIVERED)
    );
    assert_eq!(receiver.received().len(), usize::from(expected.is_ok()));
}

#[tokio::test]
async fn certificates_are_checked() {
    let authority = Authority::new("ours");
    check_certificate(&authority, authority.sign(&["app"], "app"), Ok(())).await;
    check_certificate(
        &authority,
        authority.sign(&["another"], "another"),
        Err("the certificate is for another name"),
    )
    .await;
    let mut expired = parameters(&["app"], "app");
    expired.not_after = date_time_ymd(2020, 1, 1);
    check_certificate(
        &authority,
        authority.sign_parameters(&expired),
        Err("the certificate has expired"),
    )
    .await;
    check_certificate(
        &authority,
        Authority::new("theirs").sign(&["app"], "app"),
        Err("the certificate is not signed by a trusted authority"),
    )
    .await;
}

#[tokio::test]
async fn a_server_without_tls_is_not_sent_to() {
    let receiver = receiver(LOCAL, 0).await;
    let mut endpoint = endpoint("https", receiver.address.port());
    endpoint.timeout = Duration::from_millis(300);
    let client = client(&endpoint, None, |_| Ok(vec![LOCAL.into()]));
    // The server waits for the rest of what it takes for a request.
    let why = "no connection in time";
    assert_eq!(send(&client).await, unreachable_as(why));
    assert_eq!(client.reach().await, Err(why.to_owned()));
    assert!(receiver.received().is_empty());
}
