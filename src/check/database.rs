//! Checks the database: the server, the connection to it, and what the schema contains.

use std::time::Duration;

use chrono::TimeDelta;

use super::{
    finding::Finding,
    permissions::{SchemaState, check_permissions},
    tables::check_tables,
    time_limit::{STEP, within},
};
use crate::{
    failure::{Cause, Failure},
    humanize::duration,
    mirror::{
        Inspection, Link, ListenError, Mirror, MirrorError, NotificationStream, PostgresServer, Privileges, Replicas,
        SchemaError,
    },
};

/// Time limit for connecting: longer than the wait for one silent host, so that the next host gets
/// its turn.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(12);

/// Oldest supported version, in the form of `server_version_num`.
const MIN_VERSION: i32 = 140_000;

/// What was found about the database.
pub(super) struct DatabaseFindings {
    /// On the database, TLS, permissions, the schema, notifications and the lease.
    pub(super) findings: Vec<Finding>,
    /// On each of the application's tables.
    pub(super) tables: Vec<Finding>,
    /// The instance that the database mirrors, if any; `None` if that is unknown.
    pub(super) pinned: Option<Option<String>>,
    /// How far its clock is ahead of this machine's; `None` if unknown.
    pub(super) ahead: Option<TimeDelta>,
}

impl DatabaseFindings {
    /// Only a finding: nothing else is known.
    pub(super) fn nothing(database: Finding) -> Self {
        let others = ["tls", "permissions", "schema", "notifications", "lease"];
        let others = others.map(|name| Finding::skipped(name, "there is no connection to the database"));
        Self {
            findings: [database].into_iter().chain(others).collect(),
            tables: Vec::new(),
            pinned: None,
            ahead: None,
        }
    }
}

/// Connects to the database, and checks it. `migrate` says whether the daemon applies migrations.
pub(super) async fn check_database(mirror: &Mirror, migrate: bool) -> DatabaseFindings {
    let found = match within(CONNECT_TIMEOUT, || late(CONNECT_TIMEOUT), Inspection::of(mirror)).await {
        Ok(found) => found,
        Err(failure) => return DatabaseFindings::nothing(Finding::of("database", &failure)),
    };
    let (schema_findings, notifications) = tokio::join!(
        check_schema(mirror, &found.privileges),
        notifications(mirror, found.server.is_standby)
    );
    let SchemaFindings {
        contents,
        pinned,
        lease,
    } = schema_findings;
    let has_mirror = matches!(contents, SchemaState::Ours { is_current: true });
    DatabaseFindings {
        tables: check_tables(&mirror.app_tables(), has_mirror).await,
        findings: vec![
            server(&found.server, &found.link, &found.privileges.whole.role),
            tls(&found.link),
            check_permissions(&found.privileges, &contents, migrate),
            schema(&contents, migrate),
            notifications,
            lease,
        ],
        pinned,
        ahead: Some(found.ahead),
    }
}

fn late(limit: Duration) -> Failure {
    MirrorError::Unavailable(format!("no answer within {}", duration(limit))).into()
}

/// What was found in the schema.
struct SchemaFindings {
    contents: SchemaState,
    pinned: Option<Option<String>>,
    lease: Finding,
}

async fn check_schema(mirror: &Mirror, privileges: &Privileges) -> SchemaFindings {
    let contents = contents(mirror, privileges).await;
    let (pinned, lease) = match contents {
        SchemaState::Nothing | SchemaState::Empty => (Some(None), Finding::skipped("lease", "there is no mirror yet")),
        SchemaState::Ours { is_current } => {
            let pinned = within(STEP, || late(STEP), mirror.instance().id()).await.ok();
            let lease = match is_current {
                true => lease(mirror).await,
                false => Finding::skipped("lease", "migrations are pending"),
            };
            (pinned, lease)
        }
        _ => (None, Finding::skipped("lease", "the schema cannot be used")),
    };
    SchemaFindings {
        contents,
        pinned,
        lease,
    }
}

/// Finds out what the schema contains.
async fn contents(mirror: &Mirror, privileges: &Privileges) -> SchemaState {
    if privileges.whole.owner.is_none() {
        return SchemaState::Nothing;
    }
    if !privileges.whole.is_filled {
        return SchemaState::Empty;
    }
    match privileges.reads_migrations() {
        None => return SchemaState::Unusable(MirrorError::from(SchemaError::Foreign).into()),
        Some(false) => return SchemaState::Hidden,
        Some(true) => {}
    }
    let existing = async { Ok::<_, Failure>(mirror.schema().exists().await) };
    match within(STEP, || late(STEP), existing).await {
        Ok(Ok(true)) => SchemaState::Ours { is_current: true },
        Ok(Ok(false)) => SchemaState::Empty,
        Ok(Err(MirrorError::Schema(SchemaError::Outdated { .. }))) => SchemaState::Ours { is_current: false },
        Ok(Err(error)) => SchemaState::Unusable(error.into()),
        Err(failure) => SchemaState::Unusable(failure),
    }
}

/// Reports the server: its version, and whether it can be written to.
fn server(server: &PostgresServer, Link { place, .. }: &Link, role: &str) -> Finding {
    let name = "database";
    let version = server.version.split(' ').next().unwrap_or_default();
    let message = format!("PostgreSQL {version} at {place}, as {role}");
    if server.version_number < MIN_VERSION {
        return Finding::failed(name, format!("{message}: too old")).hint("clerk2pg needs PostgreSQL 14 or newer");
    }
    if server.is_standby {
        return Finding::failed(name, format!("{message}: a standby, which cannot be written to")).hint(
            "give the primary's address; or all hosts, with target_session_attrs=read-write, so that the primary is found",
        );
    }
    if server.is_read_only {
        return Finding::failed(name, format!("{message}: transactions are read-only (default_transaction_read_only)"))
            .hint(format!("ALTER ROLE {role} SET default_transaction_read_only = off; or remove it from the database, the server or the address"));
    }
    match server.encoding.as_str() {
        "UTF8" => Finding::ok(name, message),
        "SQL_ASCII" => Finding::warn(
            name,
            format!("{message}: its encoding is SQL_ASCII, which cannot read JSON escapes beyond ASCII, so users with one are rejected"),
        )
        .hint(ENCODING),
        encoding => Finding::warn(
            name,
            format!("{message}: its encoding is {encoding}, which cannot store all of Unicode, so users with other characters are rejected"),
        )
        .hint(ENCODING),
    }
}

/// The hint for a database whose encoding cannot hold all users.
const ENCODING: &str = "move to a database that was created with CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'";

/// Reports whether the connection is encrypted.
fn tls(link: &Link) -> Finding {
    let (name, sslmode) = ("tls", link.sslmode);
    let Some(version) = &link.tls else {
        return match link.is_local {
            true => Finding::ok(name, "not encrypted, and nothing leaves this machine"),
            false => Finding::warn(
                name,
                format!("not encrypted (sslmode={sslmode}): anybody on the network path can read the users"),
            )
            .hint("set sslmode=verify-full, or require, in database.url (DATABASE_URL)"),
        };
    };
    let checked = match (link.checks_certificate, link.checks_name) {
        (true, true) => "the server's certificate is checked, and the name in it",
        (true, false) => "the server's certificate is checked, but not the name in it",
        (false, _) => "the server's certificate is not checked",
    };
    Finding::ok(name, format!("{version}; {checked} (sslmode={sslmode})"))
}

/// Reports whether the schema is up to date.
fn schema(contents: &SchemaState, migrate: bool) -> Finding {
    let name = "schema";
    let outdated = |missing| Finding::of(name, &MirrorError::from(SchemaError::Outdated { missing }).into());
    match contents {
        SchemaState::Nothing | SchemaState::Empty if migrate => {
            Finding::ok(name, "not there yet: the first start creates it")
        }
        SchemaState::Nothing | SchemaState::Empty => outdated(true),
        SchemaState::Ours { is_current: true } => Finding::ok(name, "up to date"),
        SchemaState::Ours { is_current: false } if migrate => Finding::ok(
            name,
            "older than this clerk2pg: the next start applies the pending migrations",
        ),
        SchemaState::Ours { is_current: false } => outdated(false),
        SchemaState::Hidden => Finding::skipped(name, "the role may not read which version it is"),
        SchemaState::Unusable(failure) => Finding::of(name, failure),
    }
}

/// Checks whether notifications arrive. Running daemons ignore the test notification.
async fn notifications(mirror: &Mirror, is_standby: bool) -> Finding {
    let name = "notifications";
    if is_standby {
        return Finding::skipped(name, "a standby server has none");
    }
    let why = match tokio::time::timeout(STEP, NotificationStream::open(mirror)).await {
        Ok(Ok(_)) => {
            return Finding::ok(name, "NOTIFY clerk2pg arrives: there is no pooler in transaction mode");
        }
        Ok(Err(ListenError::Unavailable(error))) => return Finding::of(name, &error.into()),
        Ok(Err(ListenError::Unsupported(why))) => why,
        Err(_) => "no notification arrives".to_owned(),
    };
    Finding::warn(
        name,
        format!("NOTIFY clerk2pg does not arrive: {why}, as behind a pooler in transaction mode"),
    )
    .hint("only NOTIFY needs this: connect directly or through a session-mode pooler; otherwise ignore")
}

/// Reports which clerk2pg syncs, leads and stands by.
async fn lease(mirror: &Mirror) -> Finding {
    let name = "lease";
    let asked =
        async { Ok::<_, MirrorError>((mirror.leases().holder().await?, mirror.leadership().replicas().await?)) };
    match within(STEP, || late(STEP), asked).await {
        Ok((holder, replicas)) => Finding::ok(name, describe_lease(holder.as_deref(), &replicas)),
        Err(failure) if failure.cause == Cause::NeedsPerson => Finding::skipped(name, "the role may not read it"),
        Err(failure) => Finding::of(name, &failure),
    }
}

/// Describes the holder of the lease and the replicas.
fn describe_lease(holder: Option<&str>, Replicas { leader, standbys }: &Replicas) -> String {
    let mut message = match holder {
        Some(holder) => format!("{holder} is syncing now"),
        None => "free: no clerk2pg is syncing now".to_owned(),
    };
    if let Some(leader) = leader {
        message += &format!("; of the daemons, {leader} leads or led last");
    }
    match standbys.as_slice() {
        [] => {}
        [standby] => message += &format!("; {standby} stands by"),
        standbys => message += &format!("; {} stand by", standbys.join(", ")),
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::CheckStatus;

    #[test]
    fn an_unencrypted_connection_over_a_network_is_reported() {
        let check = |tls: Option<&str>, is_local, checks: [bool; 2], status, message: &str| {
            let finding = super::tls(&Link {
                place: String::new(),
                tls: tls.map(str::to_owned),
                is_local,
                sslmode: "prefer",
                checks_certificate: checks[0],
                checks_name: checks[1],
            });
            assert_eq!(finding.status, status, "{finding:?}");
            assert!(finding.message.starts_with(message), "{finding:?}");
        };
        check(
            None,
            false,
            [false, false],
            CheckStatus::Warn,
            "not encrypted (sslmode=prefer)",
        );
        check(
            None,
            true,
            [false, false],
            CheckStatus::Ok,
            "not encrypted, and nothing leaves",
        );
        check(
            Some("TLSv1.3"),
            false,
            [false, false],
            CheckStatus::Ok,
            "TLSv1.3; the server's certificate is not checked",
        );
        check(
            Some("TLSv1.3"),
            false,
            [true, false],
            CheckStatus::Ok,
            "TLSv1.3; the server's certificate is checked, but not",
        );
        check(
            Some("TLS"),
            false,
            [true, true],
            CheckStatus::Ok,
            "TLS; the server's certificate is checked, and the name",
        );
    }

    #[test]
    fn the_holder_the_leader_and_the_standbys_are_named() {
        let check = |holder, leader: Option<&str>, standbys: &[&str], expected: &str| {
            let replicas = Replicas {
                leader: leader.map(str::to_owned),
                standbys: standbys.iter().map(ToString::to_string).collect(),
            };
            assert_eq!(describe_lease(holder, &replicas), expected);
        };
        let free = "free: no clerk2pg is syncing now";
        check(None, None, &[], free);
        check(
            None,
            Some("a:1"),
            &[],
            &format!("{free}; of the daemons, a:1 leads or led last"),
        );
        let all = "a:1 is syncing now; of the daemons, a:1 leads or led last; b:2, c:3 stand by";
        check(Some("a:1"), Some("a:1"), &["b:2", "c:3"], all);
        check(None, None, &["b:2"], &format!("{free}; b:2 stands by"));
    }

    #[test]
    fn a_server_must_be_new_enough_and_writable() {
        let check = |version_number, is_standby, is_read_only, status, message: &str| {
            let found = PostgresServer::of_test("15.4 (Debian 15.4-1)", version_number, is_standby, is_read_only);
            let link = Link {
                place: "db:5432/app".to_owned(),
                tls: None,
                is_local: true,
                sslmode: "prefer",
                checks_certificate: false,
                checks_name: false,
            };
            let finding = server(&found, &link, "app");
            let expected = format!("PostgreSQL 15.4 at db:5432/app, as app{message}");
            assert_eq!((finding.status, finding.message), (status, expected));
        };
        check(150_004, false, false, CheckStatus::Ok, "");
        check(140_000, false, false, CheckStatus::Ok, "");
        check(130_012, false, false, CheckStatus::Failed, ": too old");
        check(
            150_004,
            true,
            false,
            CheckStatus::Failed,
            ": a standby, which cannot be written to",
        );
        let read_only = ": transactions are read-only (default_transaction_read_only)";
        check(150_004, false, true, CheckStatus::Failed, read_only);
    }
}
