//! Bodies of requests survive being parsed and written again by the real Node.

use std::path::Path;

use clerk2pg::deliver::body;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use tokio::process::Command;

use crate::support::{
    hard_documents::hard_documents,
    node_app::{node, say_skipped},
    pipe::pipe,
};

#[allow(dead_code, reason = "the unit tests use the rest")]
#[path = "../../src/deliver/body/tests/documents.rs"]
mod documents;

/// Random documents in one run.
const RANDOM: usize = 3000;

#[tokio::test(flavor = "multi_thread")]
async fn node_writes_each_body_as_it_was() {
    if let Err(why) = node().await {
        return say_skipped("bodies with Node", &why);
    }
    let mut payloads = hard_documents();
    assert!(payloads.iter().any(|payload| payload.len() > 1_000_000));
    let mut runner = TestRunner::default();
    let random = (0..RANDOM).map(|_| documents::json().new_tree(&mut runner).unwrap().current().spaced());
    payloads.extend(random);
    let bodies: Vec<_> = payloads.iter().map(|payload| body(payload).unwrap()).collect();

    // What Node writes for the payload, and for the body.
    let documents: Vec<_> = payloads.iter().chain(&bodies).collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/receivers/stringify.mjs");
    let input = serde_json::to_vec(&documents).unwrap();
    let output = pipe(Command::new("node").arg(script), &input).await;
    let written: Vec<String> = serde_json::from_slice(&output).unwrap();
    assert_eq!(written.len(), documents.len());
    let expected = bodies.iter().chain(&bodies);
    for ((document, written), expected) in documents.iter().zip(&written).zip(expected) {
        assert!(
            written == expected,
            "{}\nis written by Node as\n{}\nand by us as\n{}",
            start(document),
            start(written),
            start(expected)
        );
    }
}

/// Returns as much as fits on a screen.
fn start(text: &str) -> String {
    text.chars().take(2000).collect()
}
