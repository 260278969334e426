//! The commands: each does its work and prints the result on stdout.

mod built_in;
mod delivery;
mod init;

use std::{
    io,
    time::{Duration, SystemTime},
};

pub use built_in::{print_built_in, run_print_schema};
use clerk2pg::{
    check::{self, Finding},
    cli::{Arguments, Format},
    config::{self, ConfigSource, Loaded},
    daemon,
    failure::{Cause, Failure},
    logging::LogLevel,
    mirror::set_schema,
    output,
    progress::Progress,
    resource::RESOURCES,
    sync::{Carryover, PlanLine, Repinned},
    watch::{self, HttpServer, ProbeResult, Watch},
};
pub use delivery::{run_endpoints, run_redeliver, run_send_test};
pub use init::run_init;
use tracing::info;

use crate::setup::{
    NO_MIRROR, PATIENCE, build_check, build_daemon, build_existing_mirror, build_mirror, build_sources, build_syncer,
};

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything is done.
    Success,
    /// It is not done, and the report says why.
    Incomplete,
    /// The configuration cannot be used.
    Unusable,
    /// Deletions, rows of the application's tables or a mapping are held.
    Held,
    /// A dry run found differences, and `--exit-code` was given.
    Differences,
    /// Users or rows are rejected, and `--exit-code` was given.
    Rejected,
}

/// What every command that syncs is given.
pub struct Invocation<'a> {
    pub arguments: &'a Arguments,
    pub loaded: Loaded,
    pub level: &'a LogLevel,
    pub progress: &'a Progress,
}

/// Runs the daemon until a signal stops it.
pub async fn run_daemon(invocation: Invocation<'_>) -> Result<Exit, Failure> {
    let Invocation {
        arguments,
        loaded,
        level,
        progress,
    } = invocation;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        incremental = loaded.settings.schedule.incremental,
        full = loaded.settings.schedule.full,
        "clerk2pg starts"
    );
    let watch = Watch::default();
    let address = |loaded: &Loaded| loaded.settings.http.address().unwrap_or_default();
    let mut server = HttpServer::default();
    let first = build_daemon(&loaded, progress, &watch)?;
    server.serve(server.bind(address(&loaded))?, build_sources(&first))?;
    let mut client = first.syncer.clerk.clone();
    let mut reload = || {
        let loaded = config::load(&ConfigSource::of_process(arguments.config.clone()))?;
        loaded.require_key()?;
        loaded.require_database()?;
        loaded.require_endpoints()?;
        if !set_schema(&loaded.settings.database.schema) {
            return Err(Failure::new(
                Cause::NeedsPerson,
                "database.schema differs from that of the running daemon",
            )
            .hint("restart the daemon: it begins in the new schema with a full sync"));
        }
        let mut setup = build_daemon(&loaded, progress, &watch)?;
        // All resources spend the same budget, also what the old client has spent of it.
        let in_place = setup.syncer.clerk.clone().in_place_of(&client);
        setup.syncer = setup.syncer.with_client(&in_place);
        let sources = build_sources(&setup);
        let bound = server.bind(address(&loaded))?;
        level
            .set(&loaded.settings.log.level)
            .map_err(|error| Failure::new(Cause::NeedsPerson, format!("log.level cannot be used: {error}")))?;
        server.serve(bound, sources)?;
        client = setup.syncer.clerk.clone();
        Ok(setup)
    };
    daemon::run(first, &mut reload).await?;
    Ok(Exit::Success)
}

/// Runs one full sync: `--once`.
pub async fn run_once(loaded: &Loaded, arguments: &Arguments, progress: &Progress) -> Result<Exit, Failure> {
    if loaded.require_endpoints().is_ok_and(|endpoints| !endpoints.is_empty()) {
        info!("--once delivers no events; the daemon does");
    }
    let patience = loaded.settings.lease.ttl.0 + PATIENCE;
    let syncer = build_syncer(loaded, progress, &Watch::default(), Some(patience))?;
    let report = daemon::once(&syncer.stop, async {
        syncer.mirror.wait(PATIENCE).await?;
        syncer.full_sync(&mut Carryover::default()).await
    })
    .await?;
    printed(output::report(arguments.format(), &report))?;
    Ok(match () {
        () if report.is_incomplete() => Exit::Incomplete,
        () if report.has_held() => Exit::Held,
        () if arguments.exit_code && report.has_rejected() => Exit::Rejected,
        () => Exit::Success,
    })
}

/// Prints the plan of one full sync: `--dry-run`.
pub async fn run_dry_run(loaded: &Loaded, arguments: &Arguments, progress: &Progress) -> Result<Exit, Failure> {
    let (format, exit_code) = (arguments.format(), arguments.exit_code);
    let syncer = build_syncer(loaded, progress, &Watch::default(), None)?;
    let (mut lines, mut written) = (output::PlanLines::default(), Ok(()));
    let mut print = |line: PlanLine<'_>| {
        if format == Format::Human && written.is_ok() {
            written = progress.suspend(|| lines.print(line));
        }
    };
    let report = daemon::once(&syncer.stop, syncer.plan(&mut print)).await?;
    printed(written.and_then(|()| lines.end_part()))?;
    printed(output::report(format, &report))?;
    Ok(match () {
        () if report.is_incomplete() => Exit::Incomplete,
        () if exit_code && report.has_changes() => Exit::Differences,
        () if exit_code && report.has_rejected() => Exit::Rejected,
        () => Exit::Success,
    })
}

/// Tries everything that a sync needs: `check`.
pub async fn run_check(loaded: &Loaded, format: Format) -> Result<Exit, Failure> {
    report_findings(format, &check::run(&build_check(loaded)).await)
}

/// Prints findings, and judges them.
pub fn report_findings(format: Format, findings: &[Finding]) -> Result<Exit, Failure> {
    printed(output::findings(format, findings))?;
    Ok(if check::is_unusable(findings) {
        Exit::Unusable
    } else if check::is_ok(findings) {
        Exit::Success
    } else {
        Exit::Incomplete
    })
}

/// Prints the state of the mirror: `status`.
pub async fn run_status(loaded: &Loaded, format: Format) -> Result<Exit, Failure> {
    let mirror = build_existing_mirror(loaded).await?;
    printed(output::status(format, &mirror.overview().details(10, 20).await?))?;
    Ok(Exit::Success)
}

/// Prints the state of the mirror again and again: `status --watch`. What fails is tried again.
pub async fn watch_status(loaded: &Loaded, format: Format, pause: Duration) -> Result<Exit, Failure> {
    let mirror = build_mirror(loaded)?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let look = async {
            match mirror.schema().exists().await? {
                true => Ok(mirror.overview().details(10, 20).await?),
                false => Err(Failure::new(Cause::NeedsPerson, NO_MIRROR)),
            }
        };
        let looked = tokio::select! {
            looked = look => looked,
            _ = &mut interrupted => return Ok(Exit::Success),
        };
        let shown = match looked {
            Ok(details) => output::status_again(format, &details),
            Err(failure) => output::status_failed(format, &failure),
        };
        let is_closed = shown.as_ref().is_err_and(output::is_closed);
        printed(shown)?;
        if is_closed {
            return Ok(Exit::Success);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut interrupted => return Ok(Exit::Success),
        }
    }
}

/// Approves the held deletions with a checksum: `approve`.
pub async fn run_approve(loaded: &Loaded, format: Format, sum: &str) -> Result<Exit, Failure> {
    let mirror = build_existing_mirror(loaded).await?;
    if let Some((table, rows)) = mirror.app_tables().approve(sum).await? {
        printed(output::approved_rows(format, &table, rows, SystemTime::now().into()))?;
        return Ok(Exit::Success);
    }
    let mut held = None;
    for resource in RESOURCES {
        let holds = mirror.of(resource).holds();
        if let Some(count) = holds.approve(sum).await? {
            printed(output::approved(format, resource, count, SystemTime::now().into()))?;
            return Ok(Exit::Success);
        }
        held = held.or(holds.checksum().await?);
    }
    Err(match held {
        Some(held) => Failure::new(
            Cause::Other,
            format!(
                "checksum {sum} does not match the held deletions ({held}): \
                 the set has changed since you reviewed it"
            ),
        )
        .hint("review the deletions again with `clerk2pg --dry-run`"),
        None => Failure::new(Cause::Other, "no deletions are held").hint("see `clerk2pg status`"),
    })
}

/// Chooses another Clerk instance for this database: `repin`.
pub async fn run_repin(
    loaded: &Loaded,
    format: Format,
    instance: Option<&str>,
    progress: &Progress,
) -> Result<Exit, Failure> {
    loaded.require_key()?;
    build_existing_mirror(loaded).await?;
    let patience = loaded.settings.lease.ttl.0 + PATIENCE;
    let syncer = build_syncer(loaded, progress, &Watch::default(), Some(patience))?;
    let repinned: Repinned = daemon::once(&syncer.stop, syncer.repin(instance)).await?;
    printed(output::repinned(format, &repinned))?;
    Ok(Exit::Success)
}

/// Applies migrations: `migrate`.
pub async fn run_migrate(loaded: &Loaded, format: Format) -> Result<Exit, Failure> {
    let applied = build_mirror(loaded)?.schema().prepare(true).await?;
    printed(output::migrated(format, &applied))?;
    Ok(Exit::Success)
}

/// Asks the daemon on this machine whether it is ready: `health`.
pub async fn run_health(loaded: &Loaded, format: Format) -> Result<Exit, Failure> {
    let http = &loaded.settings.http;
    let known = http.address().ok().flatten().filter(|address| address.port() != 0);
    let probe = match known {
        Some(address) => watch::probe(address).await,
        None => ProbeResult::failed(format!(
            "http.listen = {:?} is not an address to ask; set the same address with a port for the daemon and for this command",
            http.listen
        )),
    };
    printed(output::health(format, probe.is_ok, &probe.message))?;
    match probe.is_ok {
        true => Ok(Exit::Success),
        false => Err(Failure::new(Cause::Other, format!("not ready: {}", probe.message))),
    }
}

/// Judges what a command has printed on stdout. A reader that has seen enough, as in
/// `clerk2pg status | head -1`, is no failure, and does not change the exit code.
fn printed(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if !output::is_closed(&error) => {
            Err(Failure::new(Cause::Other, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
