//! What `clerk2pg check` prints, and that it writes nothing.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{fixture::Fixture, program::ProgramOutput};

pub const NAMES: [&str; 12] = [
    "configuration",
    "clerk",
    "instance",
    "clock",
    "database",
    "tls",
    "permissions",
    "schema",
    "notifications",
    "lease",
    "budget",
    "listener",
];

/// The report of `clerk2pg check --format json`.
#[derive(Debug)]
pub struct CheckReport {
    pub ran: ProgramOutput,
    json: Value,
}

impl CheckReport {
    pub fn new(ran: ProgramOutput) -> Self {
        let json = ran.json();
        let checks = json["checks"].as_array().unwrap();
        let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
        assert_eq!(names, NAMES, "{ran:#?}");
        let failed: Vec<_> = checks.iter().filter(|check| check["status"] == "failed").collect();
        assert_eq!(json["ok"], failed.is_empty(), "{ran:#?}");
        assert!(
            failed.iter().all(|check| check["hint"].is_string()),
            "a failed check without a hint: {ran:#?}"
        );
        let code = match failed.first() {
            None => 0,
            Some(first) if first["name"] == "configuration" => 2,
            Some(_) => 1,
        };
        assert_eq!(ran.code, Some(code), "{ran:#?}");
        Self { ran, json }
    }

    pub fn find(&self, name: &str) -> &Value {
        let mut checks = self.json["checks"].as_array().unwrap().iter();
        checks.find(|check| check["name"] == name).unwrap()
    }

    /// Asserts the status of one check and a part of its text.
    #[track_caller]
    pub fn assert_check(&self, name: &str, status: &str, says: &str) -> &Self {
        let found = self.find(name);
        assert_eq!(found["status"], status, "{name}: {:#?}", self.ran);
        let said = found["message"].as_str().unwrap();
        assert!(said.contains(says), "{name} does not say {says:?}: {said}");
        self
    }

    /// Asserts a part of the hint of one check.
    #[track_caller]
    pub fn assert_hint(&self, name: &str, hint: &str) -> &Self {
        let found = self.find(name)["hint"].as_str().unwrap_or_default();
        assert!(found.contains(hint), "{name} has no hint with {hint:?}: {found}");
        self
    }

    /// Asserts that these checks failed and no others.
    #[track_caller]
    pub fn assert_failed(&self, names: &[&str]) -> &Self {
        let checks = self.json["checks"].as_array().unwrap().iter();
        let failed = checks.filter(|check| check["status"] == "failed");
        let failed: Vec<_> = failed.map(|check| check["name"].as_str().unwrap()).collect();
        assert_eq!(failed, names, "{:#?}", self.ran);
        self
    }
}

/// Runs a check, and asserts that it writes nothing and prints no secret.
pub async fn check_with(fixture: &Fixture, environment: &[(&str, &str)]) -> CheckReport {
    let before = fixture.db.snapshot().await;
    let started = Instant::now();
    let ran = fixture.run_with(&["check", "--format", "json"], environment).await;
    assert!(started.elapsed() < Duration::from_secs(30), "{ran:#?}");
    assert_eq!(fixture.db.snapshot().await, before, "{ran:#?}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    for secret in [fixture.sim.secret_key(), "hidden"] {
        assert!(!said.contains(secret), "{ran:#?}");
    }
    CheckReport::new(ran)
}
