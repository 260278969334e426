//! The loop, and its state.

use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::{
    delivery::Deliverer,
    election::{Election, Role},
    interrupt::run_interruptibly,
    notifications::mark_notified,
    outage::Outage,
    report::completed,
    service::{self, ServiceStatus},
    signals::{Signal, Signals},
    task::{run_task, task_name},
    throttle::Throttle,
    waiting::{EarliestTimes, wait_until_due},
};
use crate::{
    deliver::Delivery,
    failure::{Cause, Failure},
    mirror::{self, Freshness, Mirror, SyncKind},
    schedule::{
        Scheduler,
        due::{Allowed, NotificationLimits, Task},
    },
    sync::{Carryover, SyncOutcome, Syncer},
};

/// Pause before a sync that another clerk2pg prevented is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Longest time between two log lines about freshness. Each full sync logs it as well.
const FRESHNESS_PERIOD: Duration = Duration::from_secs(600);

/// What a daemon runs with. A reload of the configuration replaces it as a whole.
pub struct DaemonSetup {
    /// Runs syncs.
    pub syncer: Syncer,
    /// The same database over a separate connection, for the election and the HTTP server: neither
    /// may wait for a sync.
    pub control: Mirror,
    /// Delivers events to endpoints, over a separate connection, too.
    pub delivery: Delivery,
    /// When full syncs are due, as a cron expression; empty for only one at start.
    pub full: String,
    /// When incremental syncs are due, as a cron expression; empty for never.
    pub incremental: String,
}

/// Builds a [`DaemonSetup`] from the current configuration.
pub type Reload<'a> = &'a mut dyn FnMut() -> Result<DaemonSetup, Failure>;

/// Runs syncs until SIGTERM or SIGINT.
///
/// # Errors
/// The first sync failed for a reason that a person has to remove: a refused key, the database of
/// another instance, a foreign schema.
pub async fn run(setup: DaemonSetup, reload: Reload<'_>) -> Result<(), Failure> {
    let watch = setup.syncer.watch.clone();
    // Boxed: its type is nested too deeply for another layer around it.
    let work = Box::pin(run_loop(setup, reload));
    watch
        .with_heartbeat(service::watchdog_period(), service::alive, work)
        .await
}

async fn run_loop(setup: DaemonSetup, reload: Reload<'_>) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut daemon = Daemon::start(setup).await?;
    service::started();
    loop {
        let is_leader = daemon.is_leader();
        let earliest = daemon.earliest_times();
        let signal = tokio::select! {
            biased;
            signal = signals.next() => Some(signal),
            role = role_changed(&mut daemon.election) => {
                daemon.on_role_change(&role);
                continue;
            }
            () = wait_until_due(&daemon.setup.syncer, earliest), if is_leader => None,
        };
        let signal = match signal {
            Some(signal) => Some(signal),
            None => daemon.run_next_task(&mut signals).await?,
        };
        match signal {
            None => {}
            Some(Signal::Sync) => {
                daemon.setup.syncer.due.incremental();
                daemon.outage.try_now();
            }
            Some(Signal::Stop(name)) => {
                info!(signal = name, "stopping");
                service::stopping();
                daemon.scheduler.stop().await;
                daemon.deliverer.stop().await;
                if let Some(election) = daemon.election {
                    election.leave().await;
                }
                return Ok(());
            }
            Some(Signal::Reload) => match reload_setup(reload) {
                Ok(setup) => {
                    daemon.scheduler.stop().await;
                    daemon.deliverer.stop().await;
                    let outage = daemon.outage;
                    daemon = Daemon::start(setup).await?;
                    daemon.succeeded_once = true;
                    daemon.outage = outage;
                    daemon.outage.try_now();
                    info!("configuration reloaded");
                }
                Err(failure) => {
                    error!(error = %failure, hint = failure.hint, "the new configuration cannot be used; the old one stays");
                }
            },
        }
    }
}

fn reload_setup(reload: &mut dyn FnMut() -> Result<DaemonSetup, Failure>) -> Result<DaemonSetup, Failure> {
    service::reloading();
    let setup = reload();
    service::ready();
    setup
}

/// The state of the loop.
struct Daemon {
    setup: DaemonSetup,
    scheduler: Scheduler,
    carryover: Carryover,
    /// `None` until Clerk and Postgres have accepted this daemon for the first time.
    election: Option<Election>,
    deliverer: Deliverer,
    outage: Outage,
    status: ServiceStatus,
    throttle: Throttle,
    /// No sync runs before this time, because another clerk2pg was syncing.
    pause_until: Option<Instant>,
    succeeded_once: bool,
    freshness_logged_at: Instant,
    /// The task that listens to notifications; it ends when this is dropped.
    _notifications: JoinSet<()>,
}

impl Daemon {
    /// Starts the schedule and the notifications, and marks a full sync as due.
    async fn start(setup: DaemonSetup) -> Result<Self, Failure> {
        let due = &setup.syncer.due;
        let clerk = &setup.syncer.clerk;
        // An incremental sync takes two requests, and more if it finds something.
        let part = clerk.requests_per_second() / 4.0;
        due.limit(NotificationLimits {
            ids_at_once: clerk.max_for_notifications(),
            gap: Duration::from_secs_f64((2.0 / part).clamp(0.1, 10.0)),
        });
        let scheduler = Scheduler::start(&setup.full, &setup.incremental, due)
            .await
            .map_err(|error| Failure::new(Cause::Other, format!("the scheduler does not start: {error}")))?;
        setup.syncer.watch.set_schedule(&setup.full, &setup.incremental);
        let mut notifications = JoinSet::new();
        notifications.spawn(mark_notified(setup.syncer.mirror.clone(), due.clone()));
        due.full();
        Ok(Self {
            deliverer: Deliverer::new(setup.delivery.clone(), &setup.syncer.stop),
            setup,
            scheduler,
            carryover: Carryover::default(),
            election: None,
            outage: Outage::default(),
            status: ServiceStatus::default(),
            throttle: Throttle::default(),
            pause_until: None,
            succeeded_once: false,
            freshness_logged_at: Instant::now(),
            _notifications: notifications,
        })
    }

    /// Whether this daemon syncs: it leads, or the election has not started.
    fn is_leader(&self) -> bool {
        self.election.as_ref().is_none_or(Election::is_leader)
    }

    /// Adapts to a new role. A new leader starts over, because the previous leader has changed the
    /// mirror since.
    fn on_role_change(&mut self, role: &Role) {
        let due = &self.setup.syncer.due;
        match role {
            Role::Leader => {
                self.status.leading();
                self.carryover = Carryover::default();
                due.absorb();
                due.forget_users();
                due.full();
            }
            Role::Standby(leader) => self.status.standing_by(&leader_text(leader)),
        }
    }

    /// Returns when each kind of sync may run. Due tasks wait out the backoff; otherwise a tight
    /// schedule would defeat it.
    fn earliest_times(&self) -> EarliestTimes {
        let earliest = |kind| self.pause_until.max(self.outage.waits_until(kind));
        // A full sync replaces the others until the instance is known.
        let earliest_or_full = |kind| match self.carryover.knows_instance() {
            true => earliest(kind),
            false => earliest(SyncKind::Full),
        };
        EarliestTimes {
            full: earliest(SyncKind::Full),
            incremental: earliest_or_full(SyncKind::Incremental),
            on_demand: earliest_or_full(SyncKind::OnDemand),
        }
    }

    /// Takes the most urgent task that is due and may run.
    fn next_task(&self) -> Option<Task> {
        let syncer = &self.setup.syncer;
        if !self.carryover.knows_instance() {
            // Only a full sync can run until the instance is known.
            syncer.due.absorb();
            return Some(Task::Full);
        }
        let may = |kind| self.outage.waits_until(kind).is_none();
        let task = syncer.due.take(&Allowed {
            full: may(SyncKind::Full),
            incremental: may(SyncKind::Incremental),
            users: match may(SyncKind::OnDemand) {
                true => syncer.clerk.free_for_notifications(),
                false => 0,
            },
        });
        task.filter(|task| *task != Task::ScheduledIncremental || self.throttle.allows(Instant::now()))
    }

    /// Runs the next task, if there is one. Returns a signal that came meanwhile.
    ///
    /// # Errors
    /// The first sync failed for a reason that a person has to remove.
    async fn run_next_task(&mut self, signals: &mut Signals) -> Result<Option<Signal>, Failure> {
        self.pause_until = None;
        let Some(task) = self.next_task() else { return Ok(None) };
        let syncer = &self.setup.syncer;
        syncer.watch.started(task.kind());
        let limited = syncer.clerk.rate_limited();
        let clients = (syncer, &self.setup.control);
        let sync = run_task(
            clients,
            &task,
            &mut self.carryover,
            &mut self.election,
            &mut self.deliverer,
        );
        let (result, signal) = run_interruptibly(syncer, signals, sync).await;
        self.throttle
            .record(syncer.clerk.rate_limited() > limited, Instant::now());
        match result {
            Ok(outcome) => self.on_success(&task, outcome).await,
            Err(failure) if failure.cause == Cause::Stopped => {}
            Err(failure) if failure.cause == Cause::NeedsPerson && !self.succeeded_once => return Err(failure),
            Err(failure) => self.on_failure(task, &failure).await,
        }
        Ok(signal)
    }

    /// Ends the failures that a successful task disproves, and reports its outcome.
    async fn on_success(&mut self, task: &Task, outcome: SyncOutcome) {
        if let Task::Full = task {
            self.succeeded_once = true;
        }
        if let Task::Users(ids) = task {
            self.setup.syncer.due.users_done(ids);
        }
        if self.outage.record_success(task.kind()) {
            self.status.recovered();
        }
        if let Some(election) = &self.election {
            election.set_failing_since(None);
        }
        self.on_outcome(task, outcome).await;
    }

    /// Reports a failed task, and marks it as due again.
    async fn on_failure(&mut self, task: Task, failure: &Failure) {
        let syncer = &self.setup.syncer;
        self.status.failing(failure);
        syncer.watch.failed(task.kind(), &failure.message);
        if failure.cause == Cause::Busy {
            // Another clerk2pg keeps the mirror in sync.
            syncer.watch.set_standing_by("another clerk2pg");
        }
        self.outage.record_failure(task.kind(), failure);
        if failure.cause == Cause::Other && matches!(syncer.mirror.schema().exists().await, Ok(false)) {
            // The carryover describes a mirror that no longer exists. The next attempt starts over,
            // which creates the schema.
            warn!(
                schema = mirror::schema(),
                "the mirror's schema no longer exists; starting over"
            );
            (self.carryover, self.election) = (Carryover::default(), None);
        }
        if let Some(election) = &self.election {
            election.set_failing_since(self.outage.since());
        }
        syncer.due.failed(task, !failure.stops_all_kinds());
    }

    /// Reports how a task ended, and marks what it asks for as due.
    async fn on_outcome(&mut self, task: &Task, outcome: SyncOutcome) {
        let Syncer { due, watch, .. } = &self.setup.syncer;
        match outcome {
            SyncOutcome::Synced(report) => {
                self.status.done(task_name(task), &report, Utc::now());
                watch.done(task.kind(), &completed(&report));
                report.log(task_name(task), None, false);
            }
            SyncOutcome::Nothing => {
                self.status.idle();
                watch.idle(task.kind());
                debug!(sync = task_name(task), "nothing to do");
            }
            SyncOutcome::NeedsFull => {
                watch.blind(task.kind());
                debug!(sync = task_name(task), "this server does not show recent changes");
            }
            SyncOutcome::Standby => {
                match self.election.as_ref().map(Election::role) {
                    Some(Role::Standby(leader)) => self.status.standing_by(&leader_text(&leader)),
                    _ => self.status.standing_by("another clerk2pg is syncing this database"),
                }
                watch.stood_by(task.kind());
                debug!(sync = task_name(task), "another clerk2pg is syncing");
                // A task that somebody waits for is tried again when the other one is done. Another
                // leader does it anyway.
                if *task != Task::ScheduledIncremental && self.is_leader() {
                    due.put_back(task.clone());
                    self.pause_until = Some(Instant::now() + RETRY_PAUSE);
                }
            }
        }
        if let Some(why) = self.carryover.take_full_sync_reason() {
            info!(why, "a full sync is due");
            due.full();
        }
        if *task == Task::Full || self.freshness_logged_at.elapsed() >= FRESHNESS_PERIOD {
            self.freshness_logged_at = Instant::now();
            self.log_freshness().await;
        }
    }

    /// Logs how old changes were when they were committed.
    async fn log_freshness(&self) {
        match self.setup.syncer.mirror.overview().freshness().await {
            Ok(Some(Freshness {
                p50_ms,
                p99_ms,
                changes,
            })) => {
                info!(
                    p50_ms,
                    p99_ms, changes, "age of changes when they were committed, in the last hour"
                );
            }
            Ok(None) => {}
            Err(error) => debug!(%error, "cannot read the freshness"),
        }
    }
}

/// Waits until the election, if it has started, gives this daemon another role.
async fn role_changed(election: &mut Option<Election>) -> Role {
    match election {
        Some(election) => election.role_changed().await,
        None => std::future::pending().await,
    }
}

fn leader_text(leader: &Option<String>) -> String {
    format!("{} leads", leader.as_deref().unwrap_or("another clerk2pg"))
}
