//! Trying everything that a sync needs, without writing anything: the command `check`.
//!
//! The two sides are asked at the same time, each step within its time, and neither stops the other; what could not be tried says why.

mod budget;
mod clerk;
mod clock;
mod database;
mod listener;
mod permissions;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chrono::Utc;
use serde::Serialize;

use crate::{
    clerk::Client,
    failure::{Cause, Failure},
    mirror::Mirror,
};

/// How long one question may take.
const STEP: Duration = Duration::from_secs(5);

/// What is tried, in the order in which it is told.
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

/// What is to be tried. A side that the configuration gives nothing for is told of, and the other one is tried.
pub struct CheckInput {
    /// The configuration file that was read, if any.
    pub file: Option<PathBuf>,
    /// Files with secrets that others on this machine may read.
    pub exposed: Vec<PathBuf>,
    /// The secret key travels in clear text to another machine.
    pub sends_key_in_clear: bool,
    /// The Clerk side.
    pub clerk: Result<Client, Failure>,
    /// Whether the key is one of a production instance.
    pub is_live_key: bool,
    /// The Postgres side.
    pub mirror: Result<Mirror, Failure>,
    /// Whether the daemon applies migrations itself.
    pub migrate: bool,
    /// When full syncs are due.
    pub full: String,
    /// When incremental syncs are due.
    pub incremental: String,
    /// Where the daemon listens, if it does.
    pub listen: Option<SocketAddr>,
}

/// What came of trying one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tried, in a word.
    pub name: &'static str,
    /// How it went.
    pub status: CheckStatus,
    /// What was found.
    pub says: String,
    /// What to do about it, where there is something to do.
    pub hint: Option<String>,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// It works.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// Without a change it does not work.
    Failed,
    /// It could not be tried.
    Skipped,
}

impl Finding {
    fn new(name: &'static str, status: CheckStatus, says: impl Into<String>) -> Self {
        let (says, hint) = (says.into(), None);
        Self {
            name,
            status,
            says,
            hint,
        }
    }

    fn ok(name: &'static str, says: impl Into<String>) -> Self {
        Self::new(name, CheckStatus::Ok, says)
    }

    fn warn(name: &'static str, says: impl Into<String>) -> Self {
        Self::new(name, CheckStatus::Warn, says)
    }

    fn failed(name: &'static str, says: impl Into<String>) -> Self {
        Self::new(name, CheckStatus::Failed, says)
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, CheckStatus::Skipped, why)
    }

    fn of(name: &'static str, failure: &Failure) -> Self {
        Self {
            hint: failure.hint.clone(),
            ..Self::failed(name, &failure.message)
        }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// Tries everything, in less than half a minute.
pub async fn run(subject: &CheckInput) -> Vec<Finding> {
    let (clerk, database, listener) = tokio::join!(
        async {
            match &subject.clerk {
                Ok(client) => clerk::ask(client, subject.is_live_key).await,
                Err(failure) => clerk::Seen::nothing(unready("clerk", failure, "key to ask with")),
            }
        },
        async {
            match &subject.mirror {
                Ok(mirror) => database::look(mirror, subject.migrate).await,
                Err(failure) => database::Seen::nothing(unready("database", failure, "address to connect to")),
            }
        },
        listener::knock(subject.listen)
    );
    let per_second = subject.clerk.as_ref().map(Client::requests_per_second);
    let mut findings = vec![
        configuration(subject),
        clerk.answer.clone(),
        clerk.instance(database.pinned.as_ref()),
        clock::compare(clerk.ahead, database.ahead),
    ];
    findings.extend(database.findings);
    findings.push(match per_second {
        Ok(per_second) => budget::weigh(
            per_second,
            clerk.users,
            [&subject.incremental, &subject.full],
            Utc::now(),
        ),
        Err(_) => Finding::skipped("budget", "it follows from the key"),
    });
    findings.push(listener);
    debug_assert!(findings.iter().map(|finding| finding.name).eq(CHECKS));
    findings
}

/// What is told where the configuration cannot be used at all.
pub fn unusable(failure: &Failure) -> Vec<Finding> {
    let others = CHECKS[1..].iter();
    [Finding::of(CHECKS[0], failure)]
        .into_iter()
        .chain(others.map(|&name| Finding::skipped(name, "the configuration cannot be used")))
        .collect()
}

/// Whether all is well enough to go on.
pub fn is_ok(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.status != CheckStatus::Failed)
}

/// Whether it is the configuration that has to be changed first.
pub fn is_unusable(findings: &[Finding]) -> bool {
    let mut of_configuration = findings.iter().filter(|finding| finding.name == CHECKS[0]);
    of_configuration.any(|finding| finding.status == CheckStatus::Failed)
}

fn configuration(subject: &CheckInput) -> Finding {
    let name = CHECKS[0];
    let of_sides = [
        ("for Clerk", subject.clerk.as_ref().err()),
        ("for the database", subject.mirror.as_ref().err()),
    ];
    let unusable: Vec<_> = of_sides
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
    let read = match &subject.file {
        Some(file) => format!("{} is read, and every key in it is known", file.display()),
        None => "there is no file; the environment and the defaults stand".to_owned(),
    };
    let (mut says, mut hints) = (vec![read], Vec::new());
    if subject.sends_key_in_clear {
        says.push("the secret key is sent to another machine in clear text".to_owned());
        hints.push("write clerk.api_url (CLERK_API_URL) with https://".to_owned());
    }
    if !subject.exposed.is_empty() {
        let files: Vec<_> = subject.exposed.iter().map(|file| file.display().to_string()).collect();
        says.push(format!(
            "everybody on this machine can read the secret in {}",
            files.join(" and ")
        ));
        hints.push(format!("chmod o-r {}", files.join(" ")));
    }
    match hints.as_slice() {
        [] => Finding::ok(name, says.concat()),
        hints => Finding::warn(name, says.join("; ")).hint(hints.join("; ")),
    }
}

/// A side that could not be set up. Where it is the configuration that has nothing for it, that is told there.
fn unready(name: &'static str, failure: &Failure, lacks: &str) -> Finding {
    match failure.cause {
        Cause::Configuration => Finding::skipped(name, format!("the configuration has no {lacks}")),
        _ => Finding::of(name, failure),
    }
}

/// An answer in time, or why there is none.
async fn within<T, E: Into<Failure>>(
    limit: Duration,
    late: impl FnOnce() -> Failure,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(late()),
    }
}
