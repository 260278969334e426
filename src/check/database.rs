//! The Postgres side: the server, the way there, and what is in the database.

use std::time::Duration;

use chrono::TimeDelta;

use super::{
    Finding, STEP,
    permissions::{self, Contents},
    within,
};
use crate::{
    failure::{Cause, Failure},
    mirror::{
        Error, Inspection, Link, ListenError, Mirror, NotificationStream, PostgresServer, Replicas, Rights, SchemaError,
    },
};

/// How long it may take to connect: longer than one host that keeps silent is waited for, so that the next one has its turn.
const CONNECT: Duration = Duration::from_secs(12);

/// The oldest server that is supported, as it gives its version.
const OLDEST: i32 = 140_000;

/// What was found.
pub(super) struct Seen {
    /// The database, TLS, permissions, the schema, notifications and the lease.
    pub(super) findings: Vec<Finding>,
    /// The instance that the database mirrors, if any; none as a whole where that cannot be told.
    pub(super) pinned: Option<Option<String>>,
    /// How far its clock is ahead of this machine's.
    pub(super) ahead: Option<TimeDelta>,
}

impl Seen {
    pub(super) fn nothing(database: Finding) -> Self {
        let others = ["tls", "permissions", "schema", "notifications", "lease"];
        let others = others.map(|name| Finding::skipped(name, "there is no connection to the database"));
        Self {
            findings: [database].into_iter().chain(others).collect(),
            pinned: None,
            ahead: None,
        }
    }
}

/// Looks.
pub(super) async fn look(mirror: &Mirror, migrate: bool) -> Seen {
    let found = match within(CONNECT, || late(CONNECT), Inspection::of(mirror)).await {
        Ok(found) => found,
        Err(failure) => return Seen::nothing(Finding::of("database", &failure)),
    };
    let (inside, notifications) = tokio::join!(inside(mirror, &found.rights), hear(mirror, found.server.is_standby));
    let Inside {
        contents,
        pinned,
        lease,
    } = inside;
    Seen {
        findings: vec![
            server(&found.server, &found.link, &found.rights.whole.role),
            tls(&found.link),
            permissions::judge(&found.rights, &contents, migrate),
            schema(&contents, migrate),
            notifications,
            lease,
        ],
        pinned,
        ahead: Some(found.ahead),
    }
}

fn late(limit: Duration) -> Failure {
    Error::Unavailable(format!("no answer within {} s", limit.as_secs())).into()
}

/// What is in the schema.
struct Inside {
    contents: Contents,
    pinned: Option<Option<String>>,
    lease: Finding,
}

async fn inside(mirror: &Mirror, rights: &Rights) -> Inside {
    let contents = contents(mirror, rights).await;
    let (pinned, lease) = match contents {
        Contents::Nothing | Contents::Empty => (Some(None), Finding::skipped("lease", "there is no mirror yet")),
        Contents::Ours { is_current } => {
            let pinned = within(STEP, || late(STEP), mirror.instance().id()).await.ok();
            let lease = match is_current {
                true => lease(mirror).await,
                false => Finding::skipped("lease", "migrations are pending"),
            };
            (pinned, lease)
        }
        _ => (None, Finding::skipped("lease", "the schema cannot be used")),
    };
    Inside {
        contents,
        pinned,
        lease,
    }
}

async fn contents(mirror: &Mirror, rights: &Rights) -> Contents {
    if rights.whole.owner.is_none() {
        return Contents::Nothing;
    }
    if !rights.whole.is_filled {
        return Contents::Empty;
    }
    match rights.reads_bookkeeping() {
        None => return Contents::Unusable(Error::from(SchemaError::Foreign).into()),
        Some(false) => return Contents::Hidden,
        Some(true) => {}
    }
    let existing = async { Ok::<_, Failure>(mirror.schema().exists().await) };
    match within(STEP, || late(STEP), existing).await {
        Ok(Ok(true)) => Contents::Ours { is_current: true },
        Ok(Ok(false)) => Contents::Empty,
        Ok(Err(Error::Schema(SchemaError::Outdated { .. }))) => Contents::Ours { is_current: false },
        Ok(Err(error)) => Contents::Unusable(error.into()),
        Err(failure) => Contents::Unusable(failure),
    }
}

fn server(server: &PostgresServer, Link { place, .. }: &Link, role: &str) -> Finding {
    let name = "database";
    let version = server.version.split(' ').next().unwrap_or_default();
    let says = format!("PostgreSQL {version} at {place}, as {role}");
    if server.version_number < OLDEST {
        return Finding::failed(name, format!("{says}: too old")).hint("clerk2pg needs PostgreSQL 14 or newer");
    }
    if server.is_standby {
        return Finding::failed(name, format!("{says}: a standby, which cannot be written to")).hint(
            "give the primary's address; or all hosts, with target_session_attrs=read-write, so that the primary is found",
        );
    }
    if server.is_read_only {
        return Finding::failed(name, format!("{says}: transactions are read-only (default_transaction_read_only)"))
            .hint(format!("ALTER ROLE {role} SET default_transaction_read_only = off; or is it set for the database, the server or in the address?"));
    }
    match server.encoding.as_str() {
        "UTF8" => Finding::ok(name, says),
        "SQL_ASCII" => Finding::warn(
            name,
            format!("{says}: its encoding is SQL_ASCII, which has no escapes of JSON beyond ASCII, so that users with one are rejected"),
        )
        .hint(ENCODING),
        encoding => Finding::warn(
            name,
            format!("{says}: its encoding is {encoding}, which cannot hold all of Unicode, so that users with other characters are rejected"),
        )
        .hint(ENCODING),
    }
}

/// The hint for a database whose encoding cannot hold all users.
const ENCODING: &str = "move to a database that is made with CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'";

fn tls(link: &Link) -> Finding {
    let (name, sslmode) = ("tls", link.sslmode);
    let Some(version) = &link.tls else {
        return match link.is_local {
            true => Finding::ok(name, "not encrypted, and nothing leaves this machine"),
            false => Finding::warn(
                name,
                format!("not encrypted (sslmode={sslmode}): who is on the way can read the users"),
            )
            .hint("sslmode=verify-full in database.url (DATABASE_URL), or require"),
        };
    };
    let checked = match (link.checks_certificate, link.checks_name) {
        (true, true) => "the server's certificate is checked, and the name in it",
        (true, false) => "the server's certificate is checked, but not the name in it",
        (false, _) => "the server's certificate is not checked",
    };
    Finding::ok(name, format!("{version}; {checked} (sslmode={sslmode})"))
}

fn schema(contents: &Contents, migrate: bool) -> Finding {
    let name = "schema";
    let outdated = |missing| Finding::of(name, &Error::from(SchemaError::Outdated { missing }).into());
    match contents {
        Contents::Nothing | Contents::Empty if migrate => Finding::ok(name, "not there yet: the first start makes it"),
        Contents::Nothing | Contents::Empty => outdated(true),
        Contents::Ours { is_current: true } => Finding::ok(name, "up to date"),
        Contents::Ours { is_current: false } if migrate => Finding::ok(
            name,
            "older than this clerk2pg: the next start applies the pending migrations",
        ),
        Contents::Ours { is_current: false } => outdated(false),
        Contents::Hidden => Finding::skipped(name, "the role may not read which version it is"),
        Contents::Unusable(failure) => Finding::of(name, failure),
    }
}

/// Tries whether what is notified is heard. Running daemons know such a trial, and leave it alone.
async fn hear(mirror: &Mirror, is_standby: bool) -> Finding {
    let name = "notifications";
    if is_standby {
        return Finding::skipped(name, "a standby has none");
    }
    let why = match tokio::time::timeout(STEP, NotificationStream::open(mirror)).await {
        Ok(Ok(_)) => {
            return Finding::ok(
                name,
                "NOTIFY clerk2pg is heard: no pooler in transaction mode is on the way",
            );
        }
        Ok(Err(ListenError::Unavailable(error))) => return Finding::of(name, &error.into()),
        Ok(Err(ListenError::Unsupported(why))) => why,
        Err(_) => "what is notified does not arrive".to_owned(),
    };
    Finding::warn(name, format!("NOTIFY clerk2pg is not heard: {why}, as behind a pooler in transaction mode")).hint(
        "nothing, where the schedule is enough: all else works behind one; the server's own address, or a pooler in session mode, lets it be heard",
    )
}

async fn lease(mirror: &Mirror) -> Finding {
    let name = "lease";
    let asked = async { Ok::<_, Error>((mirror.leases().holder().await?, mirror.leadership().replicas().await?)) };
    match within(STEP, || late(STEP), asked).await {
        Ok((holder, replicas)) => Finding::ok(name, held(holder.as_deref(), &replicas)),
        Err(failure) if failure.cause == Cause::NeedsPerson => Finding::skipped(name, "the role may not read it"),
        Err(failure) => Finding::of(name, &failure),
    }
}

/// Who syncs, who leads, and who stands by.
fn held(holder: Option<&str>, Replicas { leader, standbys }: &Replicas) -> String {
    let mut says = match holder {
        Some(holder) => format!("{holder} is syncing at this moment"),
        None => "free: nobody is syncing at this moment".to_owned(),
    };
    if let Some(leader) = leader {
        says += &format!("; of the daemons, {leader} leads or led last");
    }
    match standbys.as_slice() {
        [] => {}
        [standby] => says += &format!("; {standby} stands by"),
        standbys => says += &format!("; {} stand by", standbys.join(", ")),
    }
    says
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CheckStatus;

    #[test]
    fn what_crosses_a_network_in_clear_is_told() {
        let check = |tls: Option<&str>, is_local, checks: [bool; 2], status, says: &str| {
            let finding = super::tls(&Link {
                place: String::new(),
                tls: tls.map(str::to_owned),
                is_local,
                sslmode: "prefer",
                checks_certificate: checks[0],
                checks_name: checks[1],
            });
            assert_eq!(finding.status, status, "{finding:?}");
            assert!(finding.says.starts_with(says), "{finding:?}");
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
    fn who_syncs_leads_and_stands_by() {
        let check = |holder, leader: Option<&str>, standbys: &[&str], expected: &str| {
            let replicas = Replicas {
                leader: leader.map(str::to_owned),
                standbys: standbys.iter().map(ToString::to_string).collect(),
            };
            assert_eq!(held(holder, &replicas), expected);
        };
        let free = "free: nobody is syncing at this moment";
        check(None, None, &[], free);
        check(
            None,
            Some("a:1"),
            &[],
            &format!("{free}; of the daemons, a:1 leads or led last"),
        );
        let all = "a:1 is syncing at this moment; of the daemons, a:1 leads or led last; b:2, c:3 stand by";
        check(Some("a:1"), Some("a:1"), &["b:2", "c:3"], all);
        check(None, None, &["b:2"], &format!("{free}; b:2 stands by"));
    }

    #[test]
    fn a_server_must_be_new_enough_and_take_writes() {
        let check = |version_number, is_standby, is_read_only, status, says: &str| {
            let told = PostgresServer::of_test("15.4 (Debian 15.4-1)", version_number, is_standby, is_read_only);
            let link = Link {
                place: "db:5432/app".to_owned(),
                tls: None,
                is_local: true,
                sslmode: "prefer",
                checks_certificate: false,
                checks_name: false,
            };
            let finding = server(&told, &link, "app");
            let expected = format!("PostgreSQL 15.4 at db:5432/app, as app{says}");
            assert_eq!((finding.status, finding.says), (status, expected));
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
