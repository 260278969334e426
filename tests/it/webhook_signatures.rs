//! The real libraries that handlers of webhooks use accept events as they are signed here, and
//! refuse others.

use std::time::SystemTime;

use clerk2pg::deliver::{SigningKey, body, signatures};
use serde::Serialize;

use crate::support::{hard_documents::hard_documents, node_app::NodeApp, python_app::PythonApp};

const RECEIVERS: &str = "tests/it/receivers";
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const NEWER_SECRET: &str = "whsec_bmV3ZXIga2V5IG9mIDI0IGJ5dGVz";
const ANOTHER_SECRET: &str = "whsec_YW5vdGhlciBvbmUgb2YgMjQgYnl0";
const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";

/// How long after its signature a request is accepted.
const TOLERANCE: i64 = 5 * 60;

/// A request that a library verifies with a secret.
#[derive(Clone, Serialize)]
struct Request {
    secret: &'static str,
    headers: Headers,
    body: String,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Headers {
    svix_id: String,
    svix_timestamp: String,
    svix_signature: String,
}

impl Request {
    /// Signs a body at a time, in seconds from now.
    fn new(secrets: &[&str], body: &str, age: i64) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let timestamp = i64::try_from(now.as_secs()).unwrap() - age;
        let keys: Vec<_> = secrets
            .iter()
            .map(|secret| SigningKey::parse(secret).unwrap())
            .collect();
        Self {
            secret: SECRET,
            headers: Headers {
                svix_id: ID.to_owned(),
                svix_timestamp: timestamp.to_string(),
                svix_signature: signatures(&keys, ID, timestamp, body),
            },
            body: body.to_owned(),
        }
    }

    fn verified_with(self, secret: &'static str) -> Self {
        Self { secret, ..self }
    }
}

/// Returns requests that are accepted.
fn genuine() -> Vec<Request> {
    let mut requests: Vec<_> = hard_documents()
        .iter()
        .map(|payload| Request::new(&[SECRET], &body(payload).unwrap(), 0))
        .collect();
    let event = short_event();
    // A key that is being rolled: receivers know one or the other.
    let both = Request::new(&[NEWER_SECRET, SECRET], &event, 0);
    requests.extend([both.clone(), both.verified_with(NEWER_SECRET)]);
    requests.push(Request::new(&[SECRET], &event, 0).verified_with("C2FVsBQIhrscChlQIMV+b5sSYspob7oD"));
    requests.push(Request::new(&[SECRET], &event, TOLERANCE - 60));
    requests
}

fn short_event() -> String {
    body(r#"{"data": {"id": "user_1", "first_name": "Ada"}, "type": "user.created", "object": "event"}"#).unwrap()
}

/// Returns requests that are refused, with a part of the reason.
fn forged() -> Vec<(Request, &'static str)> {
    let event = short_event();
    let request = Request::new(&[SECRET], &event, 0);
    let changed = |change: fn(&mut Request)| {
        let mut request = request.clone();
        change(&mut request);
        request
    };
    let no_match = "No matching signature";
    vec![
        (
            changed(|request| request.body = request.body.replace("Ada", "Adb")),
            no_match,
        ),
        (changed(|request| request.headers.svix_id.push('x')), no_match),
        (
            changed(|request| {
                let earlier: i64 = request.headers.svix_timestamp.parse().unwrap();
                request.headers.svix_timestamp = (earlier - 1).to_string();
            }),
            no_match,
        ),
        (
            changed(|request| request.headers.svix_signature = Request::new(&[SECRET], "{}", 0).headers.svix_signature),
            no_match,
        ),
        (request.clone().verified_with(ANOTHER_SECRET), no_match),
        (
            Request::new(&[NEWER_SECRET, SECRET], &event, 0).verified_with(ANOTHER_SECRET),
            no_match,
        ),
        (Request::new(&[SECRET], &event, TOLERANCE + 60), "too old"),
        (Request::new(&[SECRET], &event, -TOLERANCE - 60), "too new"),
    ]
}

/// Returns the requests of a library.
fn input() -> Vec<u8> {
    let forged = forged().into_iter().map(|(request, _)| request);
    serde_json::to_vec(&genuine().into_iter().chain(forged).collect::<Vec<_>>()).unwrap()
}

/// Checks what a library says of each request: of its body as it came, and as it was written again
/// if `bodies` is 2.
fn check(library: &str, output: &[u8], bodies: usize) {
    let verdicts: Vec<Vec<Option<String>>> = serde_json::from_slice(output).unwrap();
    let (genuine, forged) = (genuine(), forged());
    assert_eq!(verdicts.len(), genuine.len() + forged.len(), "{library}");
    let (accepted, refused) = verdicts.split_at(genuine.len());
    for (request, verdicts) in genuine.iter().zip(accepted) {
        let start: String = request.body.chars().take(200).collect();
        assert_eq!(verdicts, &vec![None; bodies], "{library} refuses {start}");
    }
    for ((request, why), verdicts) in forged.iter().zip(refused) {
        assert_eq!(verdicts.len(), bodies);
        for verdict in verdicts {
            let verdict = verdict.as_deref().unwrap_or("accepted");
            assert!(verdict.contains(why), "{library} says {verdict:?} of {}", request.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_libraries_of_npm_verify_events() {
    let Some(receivers) = NodeApp::install_from(RECEIVERS).await else {
        return;
    };
    for library in ["@clerk/backend", "standardwebhooks", "svix", "svix-1"] {
        let output = receivers.answer("verify.mjs", &[library], &input()).await;
        check(library, &output, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_of_pypi_verifies_events() {
    let Some(receivers) = PythonApp::install(RECEIVERS).await else {
        return;
    };
    let output = receivers.answer("verify.py", &input()).await;
    check("svix of PyPI", &output, 1);
}
