//! The process: arguments, configuration, logging and exit codes. The only place that sees the whole configuration.

use std::{io::Write, process::ExitCode, sync::LazyLock, time::Duration};

use clap::{CommandFactory, Parser};
use clerk2pg::{
    check, clerk,
    cli::{Arguments, Command, Format},
    config::{self, Loaded, Source},
    daemon,
    failure::{Cause, Failure},
    logging::{self, Levels},
    mirror::{self, Mirror},
    output,
    progress::Progress,
    sync::{Carryover, Options, Outcome, Rechecks, Repinned, Syncer, due::Due},
    watch::{self, Listener, Sources, Verdict, Watch},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const HELD: u8 = 3;
const DIFFERENCES: u8 = 4;
const REJECTED: u8 = 5;

/// How long a single run waits for Postgres, and for another clerk2pg's lease on top of the lease's own time.
const PATIENCE: Duration = Duration::from_secs(30);

/// This process among all that work on a database. In containers that share their host's name, each may be process 1.
static HOLDER: LazyLock<String> = LazyLock::new(|| {
    let host = gethostname::gethostname();
    let (host, pid) = (host.to_string_lossy(), std::process::id());
    format!("{host}:{pid}:{:04x}", fastrand::u16(..))
});

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.command.is_some() && (arguments.once || arguments.dry_run) {
        let message = "--once and --dry-run sync, and go with no command";
        Arguments::command()
            .error(clap::error::ErrorKind::ArgumentConflict, message)
            .exit();
    }
    let loaded = match config::load(&Source::of_process(arguments.config.clone())) {
        Ok(loaded) => loaded,
        Err(error) => return unusable(&arguments, error.into()),
    };
    let progress = Progress::default();
    let levels = match logging::start(&loaded.settings.log, progress.clone()) {
        Ok(levels) => levels,
        Err(error) => {
            let message = format!("log.level (or RUST_LOG) cannot be used: {error}");
            let failure = Failure::new(Cause::Configuration, message).hint("for example info, or clerk2pg=debug");
            return unusable(&arguments, failure);
        }
    };
    // It fails only where one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("the runtime does not start: {error}"), None);
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(dispatch(&arguments, loaded, &levels, &progress));
    // A hung connection must not keep the process: what matters is committed or given up by now.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

async fn dispatch(arguments: &Arguments, loaded: Loaded, levels: &Levels, progress: &Progress) -> ExitCode {
    // Of two things that are missing, the key is asked for first. A probe needs neither, and a check tells of both.
    let checked = match arguments.command {
        None => loaded.require_key().and_then(|()| loaded.require_database()),
        Some(Command::Check | Command::Health) => Ok(()),
        Some(_) => loaded.require_database(),
    };
    if let Err(error) = checked {
        return unusable(arguments, error.into());
    }
    if arguments.command.is_none() {
        for file in loaded.exposed() {
            let file = file.display().to_string();
            let mend = format!("chmod o-r {file}");
            warn!(file, mend, "others on this machine can read the secret in this file");
        }
        let clerk = &loaded.settings.clerk;
        if clerk.sends_key_in_clear() {
            warn!(
                api_url = clerk.api_url,
                "the secret key is sent to another machine in clear text; write clerk.api_url with https://"
            );
        }
    }
    let format = arguments.format;
    let result = match &arguments.command {
        Some(Command::Check) => check(&loaded, format).await,
        Some(Command::Status) => status(&loaded, format).await,
        Some(Command::Approve { sum }) => approve(&loaded, format, sum).await,
        Some(Command::Repin { instance }) => repin(&loaded, format, instance.as_deref(), progress).await,
        Some(Command::Migrate) => migrate(&loaded, format).await,
        Some(Command::Health) => health(&loaded, format).await,
        None if arguments.dry_run => dry_run(&loaded, format, arguments.exit_code, progress).await,
        None if arguments.once => once(&loaded, format, arguments.exit_code, progress).await,
        None => follow(arguments, loaded, levels, progress).await,
    };
    result.unwrap_or_else(|failure| failed(arguments, &failure))
}

async fn follow(
    arguments: &Arguments,
    loaded: Loaded,
    levels: &Levels,
    progress: &Progress,
) -> Result<ExitCode, Failure> {
    let watch = Watch::default();
    let setup = |loaded: &Loaded| {
        Ok::<_, Failure>(daemon::Setup {
            syncer: syncer(loaded, progress, &watch, None)?,
            // Another name than the syncs': `status` tells by theirs when the daemon was last at work here.
            aside: mirror(loaded, 1, "clerk2pg aside")?,
            full: loaded.settings.schedule.full.clone(),
            incremental: loaded.settings.schedule.incremental.clone(),
        })
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        incremental = loaded.settings.schedule.incremental,
        full = loaded.settings.schedule.full,
        "clerk2pg follows Clerk"
    );
    let address = |loaded: &Loaded| loaded.settings.http.address().unwrap_or_default();
    let mut listener = Listener::default();
    let first = setup(&loaded)?;
    listener.serve(listener.bind(address(&loaded))?, sources(&first))?;
    let mut clerk = first.syncer.clerk.clone();
    let mut reload = || {
        let loaded = config::load(&Source::of_process(arguments.config.clone()))?;
        loaded.require_key()?;
        loaded.require_database()?;
        let mut setup = setup(&loaded)?;
        setup.syncer.clerk = setup.syncer.clerk.in_place_of(&clerk);
        let sources = sources(&setup);
        let bound = listener.bind(address(&loaded))?;
        levels
            .set(&loaded.settings.log)
            .map_err(|error| Failure::new(Cause::NeedsPerson, format!("log.level cannot be used: {error}")))?;
        listener.serve(bound, sources)?;
        clerk = setup.syncer.clerk.clone();
        Ok(setup)
    };
    daemon::run(first, &mut reload).await?;
    Ok(ExitCode::SUCCESS)
}

/// What the daemon shows to those who watch it.
fn sources(daemon::Setup { syncer, aside, .. }: &daemon::Setup) -> Sources {
    Sources {
        watch: syncer.watch.clone(),
        clerk: syncer.clerk.clone(),
        mirror: aside.clone(),
        holder: syncer.options.holder.clone(),
    }
}

async fn health(loaded: &Loaded, format: Format) -> Result<ExitCode, Failure> {
    let http = &loaded.settings.http;
    let known = http.address().ok().flatten().filter(|address| address.port() != 0);
    let verdict = match known {
        Some(address) => watch::ask(address).await,
        None => Verdict::bad(format!(
            "http.listen = {:?} is no address to ask at; the daemon and this command need the same one, with a port",
            http.listen
        )),
    };
    output::health(format, verdict.is_good, &verdict.says).map_err(stdout)?;
    match verdict.is_good {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::new(Cause::Other, format!("not ready: {}", verdict.says))),
    }
}

async fn once(loaded: &Loaded, format: Format, exit_code: bool, progress: &Progress) -> Result<ExitCode, Failure> {
    let syncer = syncer(
        loaded,
        progress,
        &Watch::default(),
        Some(loaded.settings.lease.ttl.0 + PATIENCE),
    )?;
    let report = daemon::once(&syncer.stop, async {
        syncer.mirror.wait(PATIENCE).await?;
        syncer.full_sync(&mut Carryover::default()).await
    })
    .await?;
    output::report(format, &report).map_err(stdout)?;
    Ok(match report.outcome {
        Outcome::Held => ExitCode::from(HELD),
        Outcome::Incomplete | Outcome::Failed => ExitCode::from(FAILED),
        _ if exit_code && report.rejected > 0 => ExitCode::from(REJECTED),
        Outcome::InSync | Outcome::Changed | Outcome::Planned => ExitCode::SUCCESS,
    })
}

async fn dry_run(loaded: &Loaded, format: Format, exit_code: bool, progress: &Progress) -> Result<ExitCode, Failure> {
    let syncer = syncer(loaded, progress, &Watch::default(), None)?;
    let mut unwritten = None;
    let mut print = |line: clerk2pg::sync::Line<'_>| {
        if format == Format::Human && unwritten.is_none() {
            unwritten = progress.suspend(|| output::plan_line(line)).err();
        }
    };
    let report = daemon::once(&syncer.stop, syncer.plan(&mut print)).await?;
    match unwritten {
        // `clerk2pg --dry-run | head` has read enough.
        Some(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        Some(error) => return Err(stdout(error)),
        None => {}
    }
    output::report(format, &report).map_err(stdout)?;
    Ok(match report.outcome {
        Outcome::Incomplete => ExitCode::from(FAILED),
        _ if exit_code && report.has_changes() => ExitCode::from(DIFFERENCES),
        _ if exit_code && report.rejected > 0 => ExitCode::from(REJECTED),
        _ => ExitCode::SUCCESS,
    })
}

async fn check(loaded: &Loaded, format: Format) -> Result<ExitCode, Failure> {
    let settings = &loaded.settings;
    let clerk = || Ok(clerk(loaded)?.asking_once());
    let subject = check::Subject {
        file: loaded.file.clone(),
        exposed: loaded.exposed(),
        sends_key_in_clear: settings.clerk.sends_key_in_clear(),
        clerk: loaded.require_key().map_err(Failure::from).and_then(|()| clerk()),
        is_live_key: settings.clerk.secret_key.expose().starts_with("sk_live_"),
        mirror: loaded
            .require_database()
            .map_err(Failure::from)
            .and_then(|()| mirror(loaded, 2, "clerk2pg check")),
        migrate: settings.database.migrate,
        full: settings.schedule.full.clone(),
        incremental: settings.schedule.incremental.clone(),
        listen: settings.http.address().unwrap_or_default(),
    };
    told(format, &check::run(&subject).await)
}

/// Tells what a check found.
fn told(format: Format, findings: &[check::Finding]) -> Result<ExitCode, Failure> {
    output::findings(format, findings).map_err(stdout)?;
    Ok(if check::is_unusable(findings) {
        ExitCode::from(USAGE)
    } else if check::is_ok(findings) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

async fn status(loaded: &Loaded, format: Format) -> Result<ExitCode, Failure> {
    let mirror = existing_mirror(loaded).await?;
    output::status(format, &mirror.overview().details(10, 20).await?).map_err(stdout)?;
    Ok(ExitCode::SUCCESS)
}

async fn approve(loaded: &Loaded, format: Format, sum: &str) -> Result<ExitCode, Failure> {
    let mirror = existing_mirror(loaded).await?;
    let Some(count) = mirror.missing().approve(sum).await? else {
        return Err(match mirror.missing().checksum().await? {
            Some(held) => Failure::new(
                Cause::Other,
                format!(
                    "the held deletions have the checksum {held}, not {sum}: they are others than those you looked at"
                ),
            )
            .hint("look again with `clerk2pg --dry-run`"),
            None => Failure::new(Cause::Other, "no deletions are held").hint("see `clerk2pg status`"),
        });
    };
    output::approved(format, count, chrono::DateTime::from(std::time::SystemTime::now())).map_err(stdout)?;
    Ok(ExitCode::SUCCESS)
}

async fn repin(
    loaded: &Loaded,
    format: Format,
    instance: Option<&str>,
    progress: &Progress,
) -> Result<ExitCode, Failure> {
    loaded.require_key()?;
    existing_mirror(loaded).await?;
    let patience = Some(loaded.settings.lease.ttl.0 + PATIENCE);
    let syncer = syncer(loaded, progress, &Watch::default(), patience)?;
    let repinned: Repinned = daemon::once(&syncer.stop, syncer.repin(instance)).await?;
    output::repinned(format, &repinned).map_err(stdout)?;
    Ok(ExitCode::SUCCESS)
}

async fn migrate(loaded: &Loaded, format: Format) -> Result<ExitCode, Failure> {
    let applied = whole_mirror(loaded)?.schema().prepare(true).await?;
    output::migrated(format, &applied).map_err(stdout)?;
    Ok(ExitCode::SUCCESS)
}

fn mirror(loaded: &Loaded, max_connections: usize, application_name: &'static str) -> Result<Mirror, Failure> {
    Ok(Mirror::new(&mirror::MirrorSettings {
        url: loaded.settings.database.url.clone(),
        variables: loaded.variables.clone(),
        max_connections,
        application_name,
    })?)
}

/// The mirror with as many connections as are allowed.
fn whole_mirror(loaded: &Loaded) -> Result<Mirror, Failure> {
    mirror(loaded, loaded.settings.database.max_connections, "clerk2pg")
}

/// For commands that read: there must be something.
async fn existing_mirror(loaded: &Loaded) -> Result<Mirror, Failure> {
    let mirror = whole_mirror(loaded)?;
    if mirror.schema().exists().await? {
        return Ok(mirror);
    }
    Err(Failure::new(Cause::NeedsPerson, "there is no mirror in this database yet").hint("run `clerk2pg --once` first"))
}

fn clerk(loaded: &Loaded) -> Result<clerk::Client, Failure> {
    let settings = &loaded.settings.clerk;
    clerk::Client::new(&clerk::Settings {
        api_url: settings.api_url.clone(),
        secret_key: settings.secret_key.clone(),
        rate_limit: Some(settings.rate_limit).filter(|&limit| limit > 0),
        request_budget: settings.request_budget,
        timeout: settings.timeout.0,
    })
    .map_err(|error| Failure::new(Cause::NeedsPerson, format!("{error:#}")))
}

fn syncer(loaded: &Loaded, progress: &Progress, watch: &Watch, patience: Option<Duration>) -> Result<Syncer, Failure> {
    let settings = &loaded.settings;
    Ok(Syncer {
        clerk: clerk(loaded)?.counting(watch.requests()),
        mirror: whole_mirror(loaded)?,
        options: Options {
            concurrency: settings.clerk.concurrency,
            delete_mode: settings.deletes.mode,
            limits: settings.deletes.limits(),
            migrate: settings.database.migrate,
            holder: HOLDER.clone(),
            lease_ttl: settings.lease.ttl.0,
            patience,
            initial_events: settings.events.initial,
            keep_events: settings.events.keep.0,
        },
        stop: CancellationToken::new(),
        progress: progress.clone(),
        due: Due::default(),
        watch: watch.clone(),
        rechecks: Rechecks::default(),
    })
}

/// Tells of a configuration that cannot be used.
fn unusable(arguments: &Arguments, failure: Failure) -> ExitCode {
    if arguments.command == Some(Command::Check) {
        return told(arguments.format, &check::unusable(&failure))
            .unwrap_or_else(|failure| failed(arguments, &failure));
    }
    failed(arguments, &failure)
}

/// Tells what failed, to people and to programs.
fn failed(arguments: &Arguments, failure: &Failure) -> ExitCode {
    say(&failure.message, failure.hint.as_deref());
    let syncs_once = arguments.command.is_none() && (arguments.once || arguments.dry_run);
    if syncs_once && let Err(error) = output::failure(arguments.format, failure) {
        say(&format!("stdout cannot be written: {error}"), None);
    }
    ExitCode::from(match failure.cause {
        Cause::Configuration => USAGE,
        _ => FAILED,
    })
}

/// Tells a person what failed, why, and what to do.
fn say(message: &str, hint: Option<&str>) {
    let error = anstyle::AnsiColor::Red.on_default().bold();
    let mut stderr = anstream::stderr().lock();
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(stderr, "{error}error:{error:#} {message}");
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "hint: {hint}");
    }
}

fn stdout(error: std::io::Error) -> Failure {
    Failure::new(Cause::Other, format!("stdout cannot be written: {error}"))
}
