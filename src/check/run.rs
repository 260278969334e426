//! The order of the checks, and what all of them are given.

use std::{net::SocketAddr, path::PathBuf};

use chrono::Utc;

use super::{
    budget, clerk, clock, database, endpoints,
    finding::{CheckStatus, Finding},
    listener,
    organizations::{self, ListFindings},
};
use crate::{
    clerk::Client,
    deliver::Endpoint,
    failure::{Cause, Failure},
    mirror::Mirror,
    resource::Resource,
};

/// The checks, in the order in which they are reported. One of organizations, one of each of the
/// application's tables and one of each endpoint follow.
const CHECKS: [&str; 12] = [
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

/// What is checked. If the configuration lacks one side, that is a finding, and the other side is
/// checked.
pub struct CheckInput {
    /// The configuration file that was read, if any.
    pub file: Option<PathBuf>,
    /// Files with secrets that other users of this machine can read.
    pub exposed: Vec<PathBuf>,
    /// Whether the secret key is sent to another machine in clear text.
    pub sends_key_in_clear: bool,
    /// The client of Clerk.
    pub clerk: Result<Client, Failure>,
    /// What is mirrored besides users.
    pub resources: Vec<&'static Resource>,
    /// Whether the key looks like one of a production instance.
    pub is_live_key: bool,
    /// The database.
    pub mirror: Result<Mirror, Failure>,
    /// Whether the daemon applies migrations itself.
    pub migrate: bool,
    /// When full syncs are due.
    pub full: String,
    /// When incremental syncs are due.
    pub incremental: String,
    /// Where the daemon listens; `None` if that is turned off.
    pub listen: Option<SocketAddr>,
    /// Where events are delivered.
    pub endpoints: Result<Vec<Endpoint>, Failure>,
}

/// Runs all checks, in less than half a minute.
pub async fn run(input: &CheckInput) -> Vec<Finding> {
    let ((clerk, lists), database, listener, endpoints) = tokio::join!(
        async {
            let client = match &input.clerk {
                Ok(client) => client,
                Err(failure) => {
                    let findings = clerk::ClerkFindings::nothing(unready("clerk", failure, "key to ask with"));
                    return (findings, ListFindings::default());
                }
            };
            let findings = clerk::check_clerk(client, input.is_live_key).await;
            let lists = match findings.answer.status {
                CheckStatus::Failed => ListFindings::default(),
                _ => organizations::check_lists(client, &input.resources).await,
            };
            (findings, lists)
        },
        async {
            match &input.mirror {
                Ok(mirror) => database::check_database(mirror, input.migrate).await,
                Err(failure) => {
                    database::DatabaseFindings::nothing(unready("database", failure, "address to connect to"))
                }
            }
        },
        listener::check_listener(input.listen),
        endpoints::check_endpoints(input.endpoints.as_deref().unwrap_or_default(), input.listen)
    );
    let per_second = input.clerk.as_ref().map(Client::requests_per_second);
    let mut findings = vec![
        configuration(input),
        clerk.answer.clone(),
        clerk.instance(database.pinned.as_ref()),
        clock::compare_clocks(clerk.ahead, database.ahead),
    ];
    findings.extend(database.findings);
    findings.push(match per_second {
        Ok(per_second) => budget::check_budget(
            per_second,
            clerk.users,
            &lists.totals,
            [&input.incremental, &input.full],
            Utc::now(),
        ),
        Err(_) => Finding::skipped("budget", "it depends on the key"),
    });
    findings.push(listener);
    let tables = database.tables;
    debug_assert!(findings.iter().map(|finding| finding.name).eq(CHECKS));
    findings.extend(lists.finding);
    findings.extend(tables);
    findings.extend(endpoints);
    findings
}

/// Returns the findings for a configuration that cannot be used.
pub fn unusable(failure: &Failure) -> Vec<Finding> {
    let others = CHECKS[1..].iter();
    [Finding::of(CHECKS[0], failure)]
        .into_iter()
        .chain(others.map(|&name| Finding::skipped(name, "the configuration cannot be used")))
        .collect()
}

/// Whether no check failed.
pub fn is_ok(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.status != CheckStatus::Failed)
}

/// Whether the configuration itself failed.
pub fn is_unusable(findings: &[Finding]) -> bool {
    let mut configuration = findings.iter().filter(|finding| finding.name == CHECKS[0]);
    configuration.any(|finding| finding.status == CheckStatus::Failed)
}

/// Checks the configuration file, the secrets in it and what the others need of it.
fn configuration(input: &CheckInput) -> Finding {
    let name = CHECKS[0];
    let sides = [
        ("for Clerk", input.clerk.as_ref().err()),
        ("for the database", input.mirror.as_ref().err()),
        ("for the endpoints", input.endpoints.as_ref().err()),
    ];
    let unusable: Vec<_> = sides
        .into_iter()
        .filter_map(|(side, failure)| Some((side, failure?)))
        .filter(|(_, failure)| failure.cause == Cause::Configuration)
        .collect();
    match unusable.as_slice() {
        [] => {}
        [(_, failure)] => return Finding::of(name, failure),
        several => {
            let messages: Vec<_> = several.iter().map(|(_, failure)| failure.message.as_str()).collect();
            let hints = several
                .iter()
                .filter_map(|(side, failure)| Some((side, failure.hint.as_ref()?)));
            let hints: Vec<_> = hints.map(|(side, hint)| format!("{side}: {hint}")).collect();
            return Finding::failed(name, messages.join("; ")).hint(hints.join("; "));
        }
    }
    let read = match &input.file {
        Some(file) => format!("{} is read, and every key in it is known", file.display()),
        None => "there is no file; the environment and the defaults are used".to_owned(),
    };
    let (mut messages, mut hints) = (vec![read], Vec::new());
    if input.sends_key_in_clear {
        messages.push("the secret key is sent to another machine in clear text".to_owned());
        hints.push("set clerk.api_url (CLERK_API_URL) to an https:// address".to_owned());
    }
    if !input.exposed.is_empty() {
        let files: Vec<_> = input.exposed.iter().map(|file| file.display().to_string()).collect();
        messages.push(format!(
            "every user of this machine can read the secret in {}",
            files.join(" and ")
        ));
        hints.push(format!("chmod o-r {}", files.join(" ")));
    }
    match hints.as_slice() {
        [] => Finding::ok(name, messages.concat()),
        hints => Finding::warn(name, messages.join("; ")).hint(hints.join("; ")),
    }
}

/// Returns the finding for a side that could not be set up. If the configuration lacks it, the
/// configuration's own finding says why.
fn unready(name: &'static str, failure: &Failure, lacks: &str) -> Finding {
    match failure.cause {
        Cause::Configuration => Finding::skipped(name, format!("the configuration has no {lacks}")),
        _ => Finding::of(name, failure),
    }
}
