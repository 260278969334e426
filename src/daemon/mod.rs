//! The daemon: one loop that runs one sync at a time, on schedule, until it is told to stop.

mod election;
mod notifications;
mod outage;
mod pace;
mod regular;
mod schedule;
mod service;
mod signals;
mod task;

use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    failure::{Cause, Failure},
    mirror::{Freshness, Mirror, SyncKind},
    sync::due::{Allowed, Limits, Task},
    sync::{Carryover, Outcome, Report, SyncOutcome, Syncer},
    watch::Done,
};
use election::{Election, Place};
use notifications::hear;
use outage::Outage;
use pace::Pace;
use schedule::Schedule;
pub use schedule::is_schedule;
use signals::{Signals, Told};
use task::{given_up, guarded, name, sync};

/// How long a sync may take to stop: the batch under way is committed, or given up.
const GRACE: Duration = Duration::from_millis(4_500);

/// How long another clerk2pg is left to its work before it is looked at again.
const REST: Duration = Duration::from_millis(500);

/// Not for now.
const FAR: Duration = Duration::from_secs(86_400);

/// How often the freshness is told where no full sync tells it.
const TELL_FRESHNESS: Duration = Duration::from_secs(600);

/// What a daemon runs by: replaced as a whole when the configuration is reloaded.
pub struct Setup {
    /// The sync, connected to both sides.
    pub syncer: Syncer,
    /// The same database over a connection of its own, for what must not wait for a sync.
    pub aside: Mirror,
    /// When full syncs are due; empty for never, but for the first.
    pub full: String,
    /// When incremental syncs are due; empty for never.
    pub incremental: String,
}

/// Makes a [`Setup`] out of the configuration as it is now.
pub type Reload<'a> = &'a mut dyn FnMut() -> Result<Setup, Failure>;

/// Runs one sync, and stops it at SIGTERM and SIGINT.
///
/// # Errors
/// The sync failed or was stopped.
pub async fn once<T>(stop: &CancellationToken, sync: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut signals = Signals::new()?;
    tokio::pin!(sync);
    loop {
        tokio::select! {
            biased;
            result = &mut sync => return result,
            told = signals.next() => match told {
                Told::Stop(name) => {
                    info!(signal = name, "stopping");
                    stop.cancel();
                    return tokio::time::timeout(GRACE, sync).await.unwrap_or_else(|_| Err(given_up()));
                }
                // There is nothing to reload or to ask for in a single sync.
                Told::Reload | Told::Sync => {}
            },
        }
    }
}

/// Runs syncs until SIGTERM or SIGINT.
///
/// # Errors
/// The first sync met something that a person has to change: a refused key, another instance's database, a strange schema.
pub async fn run(setup: Setup, reload: Reload<'_>) -> Result<(), Failure> {
    let watch = setup.syncer.watch.clone();
    // Boxed, as its type is nested too deep for another layer around it.
    let work = Box::pin(work(setup, reload));
    watch.beating(service::pulse(), service::alive, work).await
}

async fn work(setup: Setup, reload: Reload<'_>) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut at_work = AtWork::start(setup).await?;
    service::started();
    loop {
        let leads = at_work.leads();
        let gates = at_work.gates();
        let told = tokio::select! {
            biased;
            told = signals.next() => Some(told),
            place = moves(&mut at_work.election) => {
                at_work.take_place(&place);
                continue;
            }
            () = is_due(&at_work.setup.syncer, gates), if leads => None,
        };
        let told = match told {
            Some(told) => Some(told),
            None => at_work.turn(&mut signals).await?,
        };
        match told {
            None => {}
            Some(Told::Sync) => {
                at_work.setup.syncer.due.incremental();
                at_work.outage.try_now();
            }
            Some(Told::Stop(name)) => {
                info!(signal = name, "stopping");
                service::stopping();
                at_work.schedule.stop().await;
                if let Some(election) = at_work.election {
                    election.leave().await;
                }
                return Ok(());
            }
            Some(Told::Reload) => match read_again(reload) {
                Ok(setup) => {
                    at_work.schedule.stop().await;
                    let outage = at_work.outage;
                    at_work = AtWork::start(setup).await?;
                    at_work.succeeded_once = true;
                    at_work.outage = outage;
                    at_work.outage.try_now();
                    info!("configuration reloaded");
                }
                Err(failure) => {
                    error!(error = %failure, hint = failure.hint, "the new configuration cannot be used; the old one stays");
                }
            },
        }
    }
}

fn read_again(reload: &mut dyn FnMut() -> Result<Setup, Failure>) -> Result<Setup, Failure> {
    service::reloading();
    let setup = reload();
    service::ready();
    setup
}

/// The loop's state.
struct AtWork {
    setup: Setup,
    schedule: Schedule,
    carryover: Carryover,
    /// None before the first time that Clerk and Postgres have let this one in.
    election: Option<Election>,
    outage: Outage,
    status: service::Status,
    pace: Pace,
    /// Until when another clerk2pg is left to its work.
    rest: Option<Instant>,
    succeeded_once: bool,
    told_freshness: Instant,
    /// Listening ends with it.
    _hearing: JoinSet<()>,
}

impl AtWork {
    /// Begins with a full sync.
    async fn start(setup: Setup) -> Result<Self, Failure> {
        let due = &setup.syncer.due;
        let clerk = &setup.syncer.clerk;
        // An incremental sync takes two requests, more where it finds something.
        let part = clerk.requests_per_second() / 4.0;
        due.limit(Limits {
            ids_at_once: clerk.most_for_notifications(),
            gap: Duration::from_secs_f64((2.0 / part).clamp(0.1, 10.0)),
        });
        let schedule = Schedule::start(&setup.full, &setup.incremental, due)
            .await
            .map_err(|error| Failure::new(Cause::Other, format!("the schedule does not start: {error}")))?;
        setup.syncer.watch.expects(&setup.full, &setup.incremental);
        let mut hearing = JoinSet::new();
        hearing.spawn(hear(setup.syncer.mirror.clone(), due.clone()));
        due.full();
        Ok(Self {
            setup,
            schedule,
            carryover: Carryover::default(),
            election: None,
            outage: Outage::default(),
            status: service::Status::default(),
            pace: Pace::default(),
            rest: None,
            succeeded_once: false,
            told_freshness: Instant::now(),
            _hearing: hearing,
        })
    }

    /// Whether it is for this one to sync.
    fn leads(&self) -> bool {
        self.election.as_ref().is_none_or(Election::leads)
    }

    /// Leads or stands by from now on. What a new leader knew of the mirror is another one's work by now: it begins as at a start.
    fn take_place(&mut self, place: &Place) {
        let due = &self.setup.syncer.due;
        match place {
            Place::Leads => {
                self.status.leading();
                self.carryover = Carryover::default();
                due.absorb();
                due.forget_users();
                due.full();
            }
            Place::Follows(leader) => self.status.standing_by(&leads(leader)),
        }
    }

    /// From when on each kind of sync may be done. Meanwhile a mark stays where it is; otherwise a
    /// tight schedule would defeat all backoff.
    fn gates(&self) -> Gates {
        let gate = |kind| self.rest.max(self.outage.waits_until(kind));
        // Before the instance is known a full sync is done in place of the others.
        let gate_in_place = |kind| match self.carryover.knows_instance() {
            true => gate(kind),
            false => gate(SyncKind::Full),
        };
        Gates {
            full: gate(SyncKind::Full),
            incremental: gate_in_place(SyncKind::Incremental),
            on_demand: gate_in_place(SyncKind::OnDemand),
        }
    }

    /// Does the most urgent of what is due.
    async fn turn(&mut self, signals: &mut Signals) -> Result<Option<Told>, Failure> {
        self.rest = None;
        let syncer = &self.setup.syncer;
        let may = |kind| self.outage.waits_until(kind).is_none();
        // Before the instance is known nothing else can be done.
        let task = if self.carryover.knows_instance() {
            syncer.due.take(&Allowed {
                full: may(SyncKind::Full),
                incremental: may(SyncKind::Incremental),
                users: match may(SyncKind::OnDemand) {
                    true => syncer.clerk.free_for_notifications(),
                    false => 0,
                },
            })
        } else {
            syncer.due.absorb();
            Some(Task::Full)
        };
        let Some(task) = task else { return Ok(None) };
        if task == Task::Tick && !self.pace.allows(Instant::now()) {
            return Ok(None);
        }
        syncer.watch.begins(task.kind());
        let limited = syncer.clerk.rate_limited();
        let sync = sync(&self.setup, &task, &mut self.carryover, &mut self.election);
        let (result, told) = guarded(syncer, signals, sync).await;
        self.pace.note(syncer.clerk.rate_limited() > limited, Instant::now());
        match result {
            Ok(followed) => {
                if let Task::Full = task {
                    self.succeeded_once = true;
                }
                if let Task::Users(ids) = &task {
                    syncer.due.users_done(ids);
                }
                if self.outage.end(task.kind()) {
                    self.status.recovered();
                }
                if let Some(election) = &self.election {
                    election.fails_since(None);
                }
                self.follow_up(&task, followed).await;
            }
            Err(failure) if failure.cause == Cause::Stopped => {}
            Err(failure) if failure.cause == Cause::NeedsPerson && !self.succeeded_once => return Err(failure),
            Err(failure) => {
                self.status.failing(&failure);
                syncer.watch.failed(task.kind(), &failure.message);
                if failure.cause == Cause::Busy {
                    // Somebody else keeps the mirror in sync.
                    syncer.watch.stands_by("another clerk2pg");
                }
                self.outage.note(task.kind(), &failure);
                if failure.cause == Cause::Other && matches!(syncer.mirror.schema().exists().await, Ok(false)) {
                    // What was remembered of the mirror no longer holds. The next attempt starts over, which creates the schema.
                    warn!("the schema \"clerk\" is not there any more; beginning anew");
                    (self.carryover, self.election) = (Carryover::default(), None);
                }
                if let Some(election) = &self.election {
                    election.fails_since(self.outage.since());
                }
                syncer.due.failed(task, !failure.is_of_all());
            }
        }
        Ok(told)
    }

    async fn follow_up(&mut self, task: &Task, followed: SyncOutcome) {
        let Syncer { due, watch, .. } = &self.setup.syncer;
        match followed {
            SyncOutcome::Done(report) => {
                self.status.done(name(task), &report, Utc::now());
                watch.done(task.kind(), &done(&report));
                tell(name(task), &report);
            }
            SyncOutcome::Idle => {
                self.status.idle();
                watch.idle(task.kind());
                debug!(sync = name(task), "nothing to do");
            }
            SyncOutcome::Blind => {
                watch.blind(task.kind());
                debug!(sync = name(task), "what changed cannot be seen");
            }
            SyncOutcome::Standby => {
                match self.election.as_ref().map(Election::place) {
                    Some(Place::Follows(leader)) => self.status.standing_by(&leads(&leader)),
                    _ => self.status.standing_by("another clerk2pg is syncing this database"),
                }
                watch.stood_by(task.kind());
                debug!(sync = name(task), "another clerk2pg is at work");
                // What somebody waits for is looked at once the other one is done; it may have seen to it by then. A leader sees to it anyway.
                if *task != Task::Tick && self.leads() {
                    due.put_back(task.clone());
                    self.rest = Some(Instant::now() + REST);
                }
            }
        }
        if let Some(why) = self.carryover.take_walk() {
            info!(why, "a full sync is due");
            due.full();
        }
        if *task == Task::Full || self.told_freshness.elapsed() >= TELL_FRESHNESS {
            self.told_freshness = Instant::now();
            self.tell_freshness().await;
        }
    }

    async fn tell_freshness(&self) {
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
            Err(error) => debug!(%error, "the freshness cannot be told"),
        }
    }
}

/// The earliest time for each kind of sync; `None` if it may run now.
#[derive(Clone, Copy)]
struct Gates {
    full: Option<Instant>,
    incremental: Option<Instant>,
    on_demand: Option<Instant>,
}

/// Waits until something is due that may be done.
async fn is_due(syncer: &Syncer, gates: Gates) {
    loop {
        let is_free = syncer.clerk.free_for_notifications() > 0;
        let on_demand = match is_free {
            true => gates.on_demand,
            false => Some(Instant::now() + FAR),
        };
        let next = syncer.due.next(gates.full, gates.incremental, on_demand);
        let over = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            () = syncer.due.changed() => {}
            () = syncer.clerk.is_free_for_notifications(), if !is_free && syncer.due.has_users() => {}
        }
    }
}

/// What those who watch are told of a sync.
fn done(report: &Report) -> Done {
    Done {
        outcome: report.outcome.name(),
        took: Duration::from_millis(report.duration_ms),
        incomplete: (report.outcome == Outcome::Incomplete).then(|| report.notes.join("; ")),
        holds: report.held > 0,
    }
}

async fn moves(election: &mut Option<Election>) -> Place {
    match election {
        Some(election) => election.moves().await,
        None => std::future::pending().await,
    }
}

fn leads(leader: &Option<String>) -> String {
    format!("{} leads", leader.as_deref().unwrap_or("another clerk2pg"))
}

fn tell(sync: &'static str, report: &Report) {
    let Report {
        outcome,
        created,
        updated,
        deleted,
        unchanged,
        held,
        rejected,
        requests,
        duration_ms,
        freshness_ms,
        ..
    } = report;
    let outcome_name = outcome.name();
    if *outcome == Outcome::Incomplete {
        let why = report.notes.join("; ");
        warn!(
            outcome = outcome_name,
            why, created, updated, deleted, unchanged, rejected, requests, duration_ms, "{sync}"
        );
    } else {
        info!(
            outcome = outcome_name,
            created, updated, deleted, unchanged, held, rejected, requests, duration_ms, freshness_ms, "{sync}"
        );
    }
}
