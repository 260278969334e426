//! What somebody between clerk2pg and Clerk can do who cannot prove to be Clerk.

use crate::support::{
    authority::Authority,
    fixture::mirrored,
    raw_receiver::{RawReceiver, RawReply},
    summary::Exit,
};

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_prove_to_be_clerk_gets_no_key() {
    let fixture = mirrored(5).await;
    // The right name from an authority that nobody trusts, and another name.
    for hosts in [["localhost", "127.0.0.1"], ["clerk.example", "192.0.2.1"]] {
        let identity = Authority::new("theirs").sign(&hosts, "theirs");
        let clerk = RawReceiver::at("127.0.0.1:0".parse().unwrap(), Some(identity), |_| {
            RawReply::status(200)
        })
        .await;
        let url = format!("https://localhost:{}", clerk.address.port());
        let environment = [("CLERK_API_URL", url.as_str()), ("CLERK2PG_CLERK__TIMEOUT", "1s")];
        let ran = fixture.once_with(&environment).await;
        ran.assert_exit(Exit::Failed);
        assert!(ran.stderr.contains("Clerk"), "{ran:#?}");
        assert!(clerk.connections() > 0, "nobody has asked: {ran:#?}");
        assert!(clerk.received().is_empty(), "{:?}", clerk.received());
        assert_eq!(fixture.users().await, 5);
    }
}
