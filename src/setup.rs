//! Builds clients and tasks from the settings: the only place that sees all of them.

use std::{sync::LazyLock, time::Duration};

use clerk2pg::{
    check::CheckInput,
    clerk,
    config::Loaded,
    daemon::DaemonSetup,
    deliver::Delivery,
    failure::{Cause, Failure},
    mirror::{Mirror, MirrorSettings},
    progress::Progress,
    resource::{ORGANIZATIONS, USERS},
    schedule::due::Due,
    sync::{Options, Rechecks, Syncer},
    watch::{Sources, Watch},
};
use tokio_util::sync::CancellationToken;

/// How long a single sync waits for Postgres. It waits as long for another clerk2pg's lease, after
/// the lease's own time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Why a command has nothing to show.
pub const NO_MIRROR: &str = "there is no mirror in this database yet";

/// Connections that endpoints share at most, so that a slow statement for one of them does not delay
/// all others.
const MOST_FOR_DELIVERIES: usize = 4;

/// The name of this process among all that work on a database. The random part tells containers
/// apart that share a host name and in which each process has id 1.
static HOLDER: LazyLock<String> = LazyLock::new(|| {
    let host = gethostname::gethostname();
    let (host, pid) = (host.to_string_lossy(), std::process::id());
    format!("{host}:{pid}:{:04x}", fastrand::u16(..))
});

/// Builds the client of the Clerk instance.
pub fn build_client(loaded: &Loaded) -> Result<clerk::Client, Failure> {
    let settings = &loaded.settings.clerk;
    clerk::Client::new(&clerk::ClientSettings {
        api_url: settings.api_url.clone(),
        secret_key: settings.secret_key.clone(),
        rate_limit: Some(settings.rate_limit).filter(|&limit| limit > 0),
        request_budget: settings.request_budget,
        timeout: settings.timeout.0,
        excluded: loaded.settings.mirror.excluded(),
    })
    .map_err(|error| Failure::new(Cause::NeedsPerson, error.to_string()))
}

/// Builds the mirror with all the connections that the settings allow. It connects when it is used.
pub fn build_mirror(loaded: &Loaded) -> Result<Mirror, Failure> {
    build_mirror_with(loaded, loaded.settings.database.max_connections, "clerk2pg")
}

fn build_mirror_with(
    loaded: &Loaded,
    max_connections: usize,
    application_name: &'static str,
) -> Result<Mirror, Failure> {
    Ok(Mirror::new(
        &MirrorSettings {
            url: loaded.settings.database.url.clone(),
            variables: loaded.variables.clone(),
            max_connections,
            application_name,
            tables: loaded.settings.tables.clone(),
        },
        &USERS,
    )?)
}

/// Builds the mirror for a command that reads it.
///
/// # Errors
/// There is no mirror in the database.
pub async fn build_existing_mirror(loaded: &Loaded) -> Result<Mirror, Failure> {
    let mirror = build_mirror(loaded)?;
    if mirror.schema().exists().await? {
        return Ok(mirror);
    }
    Err(Failure::new(Cause::NeedsPerson, NO_MIRROR).hint("start clerk2pg, or run `clerk2pg --once`, first"))
}

/// Builds what runs syncs. `patience` is how long it waits for another clerk2pg's lease; `None`
/// waits forever.
pub fn build_syncer(
    loaded: &Loaded,
    progress: &Progress,
    watch: &Watch,
    patience: Option<Duration>,
) -> Result<Syncer, Failure> {
    let settings = &loaded.settings;
    let mut syncer = Syncer {
        clerk: build_client(loaded)?.counting(watch.requests()),
        mirror: build_mirror(loaded)?,
        resource: &USERS,
        others: Vec::new(),
        options: Options {
            concurrency: settings.clerk.concurrency,
            delete_mode: settings.deletes.mode,
            mirrors_organizations: settings.mirror.others().any(|other| other.name == ORGANIZATIONS.name),
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
    };
    syncer.others = settings.mirror.others().map(|resource| syncer.of(resource)).collect();
    Ok(syncer)
}

/// Builds what the daemon runs with until the configuration is reloaded.
pub fn build_daemon(loaded: &Loaded, progress: &Progress, watch: &Watch) -> Result<DaemonSetup, Failure> {
    let syncer = build_syncer(loaded, progress, watch, None)?;
    let endpoints = loaded.require_endpoints()?.to_vec();
    // Deliveries must not wait for a sync, and must not delay one.
    let connections = endpoints.len().clamp(1, MOST_FOR_DELIVERIES);
    let deliveries = build_mirror_with(loaded, connections, "clerk2pg delivery")?.deliveries();
    Ok(DaemonSetup {
        delivery: Delivery::new(
            endpoints,
            deliveries,
            syncer.mirror.outbox().committed(),
            (&HOLDER, loaded.settings.lease.ttl.0),
            std::iter::once(&USERS)
                .chain(loaded.settings.mirror.others())
                .map(|resource| resource.name)
                .collect(),
            loaded.settings.events.initial,
            watch.clone(),
        )?,
        syncer,
        // Its name differs from that of the syncs' connections, by which `status` finds out when
        // the daemon last used the database.
        control: build_mirror_with(loaded, 1, "clerk2pg control")?,
        full: loaded.settings.schedule.full.clone(),
        incremental: loaded.settings.schedule.incremental.clone(),
    })
}

/// Returns what the daemon's HTTP server shows.
pub fn build_sources(DaemonSetup { syncer, control, .. }: &DaemonSetup) -> Sources {
    Sources {
        watch: syncer.watch.clone(),
        clerk: syncer.clerk.clone(),
        mirror: control.clone(),
        progress: syncer.progress.clone(),
        holder: syncer.options.holder.clone(),
    }
}

/// Builds what `check` tries. A side that the configuration lacks is a finding, not an error.
pub fn build_check(loaded: &Loaded) -> CheckInput {
    let settings = &loaded.settings;
    let client = || Ok(build_client(loaded)?.asking_once());
    CheckInput {
        file: loaded.file.clone(),
        exposed: loaded.exposed(),
        sends_key_in_clear: settings.clerk.sends_key_in_clear(),
        clerk: loaded.require_key().map_err(Failure::from).and_then(|()| client()),
        resources: settings.mirror.others().collect(),
        is_live_key: settings.clerk.secret_key.expose().starts_with("sk_live_"),
        mirror: loaded
            .require_database()
            .map_err(Failure::from)
            .and_then(|()| build_mirror_with(loaded, 2, "clerk2pg check")),
        migrate: settings.database.migrate,
        full: settings.schedule.full.clone(),
        incremental: settings.schedule.incremental.clone(),
        listen: settings.http.address().unwrap_or_default(),
        endpoints: loaded.require_endpoints().map(<[_]>::to_vec).map_err(Failure::from),
    }
}
