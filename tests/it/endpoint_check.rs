//! `clerk2pg check` reports each endpoint, and sends nothing to it.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    check::NAMES,
    fixture::{Fixture, mirrored},
    http_server::{Server, answer},
    program::ProgramOutput,
};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A mirror, and a configuration file with endpoints.
struct Scene {
    fixture: Fixture,
    folder: TempDir,
}

/// What a check has found.
#[derive(Debug)]
struct Checked {
    configuration: Value,
    endpoints: Vec<Value>,
}

fn entry(name: &str, url: &str) -> String {
    format!("[[endpoints]]\nname = \"{name}\"\nurl = \"{url}\"\n")
}

impl Scene {
    async fn new() -> Self {
        Self {
            fixture: mirrored(3).await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn run(&self, format: &str, text: &str, environment: &[(&str, &str)]) -> ProgramOutput {
        let config = self.path("config.toml");
        fs::write(&config, text).unwrap();
        let arguments = ["check", "--config", &config, "--format", format];
        let before = self.fixture.db.snapshot().await;
        let ran = self.fixture.run_with(&arguments, environment).await;
        assert_eq!(self.fixture.db.snapshot().await, before, "{ran:#?}");
        for secret in [SECRET, "hidden"] {
            assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(secret), "{ran:#?}");
        }
        ran
    }

    async fn check(&self, text: &str, environment: &[(&str, &str)]) -> Checked {
        let ran = self.run("json", text, environment).await;
        let json = ran.json();
        let (others, endpoints) = json["checks"].as_array().unwrap().split_at(NAMES.len());
        assert!(
            endpoints.iter().all(|finding| finding["name"] == "endpoint"),
            "{ran:#?}"
        );
        let all = || others.iter().chain(endpoints);
        let failed: Vec<_> = all().filter(|finding| finding["status"] == "failed").collect();
        assert!(failed.iter().all(|finding| finding["hint"].is_string()), "{ran:#?}");
        let code = match failed.first() {
            None => 0,
            Some(first) if first["name"] == "configuration" => 2,
            Some(_) => 1,
        };
        assert_eq!(ran.code, Some(code), "{ran:#?}");
        Checked {
            configuration: others[0].clone(),
            endpoints: endpoints.to_vec(),
        }
    }

    /// Checks with a secret in the environment.
    async fn check_signed(&self, text: &str) -> Checked {
        self.check(text, &[("CLERK_WEBHOOK_SIGNING_SECRET", SECRET)]).await
    }
}

impl Checked {
    #[track_caller]
    fn assert_endpoint(&self, at: usize, status: &str, says: &str, hint: &str) -> &Self {
        assert_finding(&self.endpoints[at], status, says, hint);
        self
    }
}

/// Asserts a finding's status, and parts of its message and hint.
#[track_caller]
fn assert_finding(finding: &Value, status: &str, says: &str, hint: &str) {
    assert_eq!(finding["status"], status, "{finding:#?}");
    let message = finding["message"].as_str().unwrap();
    assert!(message.contains(says), "the message does not say {says:?}: {message}");
    let found = finding["hint"].as_str().unwrap_or_default();
    assert!(found.contains(hint), "the hint does not say {hint:?}: {found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_connected_to_and_get_nothing() {
    let scene = Scene::new().await;
    let server = Server::start(|_| answer("200 OK", "", b"")).await;
    let address = server.url.strip_prefix("http://").unwrap();
    let port = address.rsplit_once(':').unwrap().1;
    let text = entry("app", &format!("{}/api/webhooks/clerk?token=hidden", server.url))
        + "events = [\"user.deleted\"]\n"
        + &entry("named", &format!("http://localhost:{port}/"))
        + &entry("away", "http://127.0.0.1:1/")
        + &entry("nowhere", "https://clerk2pg.invalid/");
    let right = "is its url right, does your handler run";
    scene
        .check_signed(&text)
        .await
        .assert_endpoint(
            0,
            "ok",
            &format!(
                "app: {} accepts connections, at {address}; it gets user.deleted",
                server.url
            ),
            "",
        )
        .assert_endpoint(
            1,
            "ok",
            &format!("at {address}; it gets user.created, user.updated, user.deleted"),
            "",
        )
        .assert_endpoint(
            2,
            "failed",
            "away: http://127.0.0.1:1 cannot be reached: connection refused",
            right,
        )
        .assert_endpoint(
            3,
            "failed",
            "nowhere: https://clerk2pg.invalid cannot be reached: clerk2pg.invalid does not resolve",
            right,
        );
    assert_eq!(server.requests(), [""; 0]);

    let text = entry("app", &server.url);
    let ran = scene.run("human", &text, &[("CLERK_WEBHOOK_SECRET", SECRET)]).await;
    let last = ran.stdout.lines().last().unwrap();
    assert!(
        last.starts_with(&format!("✓ endpoint       app: {} accepts connections", server.url)),
        "{ran:#?}"
    );
    assert_eq!((ran.code, scene.check_signed("").await.endpoints.len()), (Some(0), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_silent_delays_the_check_by_seconds() {
    let scene = Scene::new().await;
    // It never answers the handshake.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let started = Instant::now();
    scene.check_signed(&entry("app", &url)).await.assert_endpoint(
        0,
        "failed",
        "cannot be reached: no answer within 5 s",
        "",
    );
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_the_daemon_is_no_handler() {
    let scene = Scene::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let environment = [
        ("CLERK2PG_HTTP__LISTEN", address.as_str()),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
    ];
    scene
        .check(&entry("app", &format!("http://{address}/")), &environment)
        .await
        .assert_endpoint(0, "warn", "clerk2pg itself listens", "the address of your handler");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_are_missing_or_exposed_are_reported() {
    let scene = Scene::new().await;
    let app = entry("app", "http://127.0.0.1:1/");
    let checked = scene.check(&app, &[]).await;
    assert_finding(
        &checked.configuration,
        "failed",
        "[[endpoints]] app has no secret",
        "Webhooks → endpoint → Signing Secret",
    );
    assert_eq!(checked.endpoints.len(), 0, "{checked:#?}");
    let checked = scene.check(&app, &[("CLERK_SECRET_KEY", "")]).await;
    assert_finding(
        &checked.configuration,
        "failed",
        "CLERK_SECRET_KEY is not set; ",
        "; for the endpoints: it is in Clerk's dashboard",
    );

    let set_mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    set_mode(scene.folder.path(), 0o755);
    let file = scene.path("secret");
    fs::write(&file, SECRET).unwrap();
    set_mode(Path::new(&file), 0o604);
    let checked = scene.check(&format!("{app}secret_file = \"{file}\"\n"), &[]).await;
    assert_finding(
        &checked.configuration,
        "warn",
        &format!("can read the secret in {file}"),
        &format!("chmod o-r {file}"),
    );
}
