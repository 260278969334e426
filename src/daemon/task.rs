//! The tasks of the loop: a sync of one kind each.

use super::{
    delivery::Deliverer,
    election::{Candidate, Election},
};
use crate::{
    failure::{Cause, Failure},
    mirror::Mirror,
    schedule::due::Task,
    sync::{Carryover, SyncOutcome, Syncer},
};

/// Returns the kind of sync, in words.
pub(super) fn task_name(task: &Task) -> &'static str {
    match task {
        Task::Full => "full sync",
        Task::Incremental | Task::ScheduledIncremental => "incremental sync",
        Task::Users(_) => "sync on demand",
    }
}

/// Runs a task, if this daemon leads. The first task starts the election, and events are delivered
/// from then on.
pub(super) async fn run_task(
    (syncer, control): (&Syncer, &Mirror),
    task: &Task,
    carryover: &mut Carryover,
    election: &mut Option<Election>,
    deliverer: &mut Deliverer,
) -> Result<SyncOutcome, Failure> {
    let election = match election {
        Some(election) => election,
        None => {
            // Before it may become a standby: a bad key must not be discovered only when this
            // daemon has to take over.
            syncer.preflight().await?;
            let (holder, ttl) = (syncer.options.holder.clone(), syncer.options.lease_ttl);
            let candidate = Candidate::new(control.leadership(), holder, ttl, syncer.watch.clone());
            let started = Election::start(candidate).await?;
            deliverer.follow(started.roles()).map_err(|error| {
                let message = format!("cannot start the thread that delivers events: {error}");
                Failure::new(Cause::Other, message)
            })?;
            election.insert(started)
        }
    };
    match task {
        _ if !election.is_leader() => Ok(SyncOutcome::Standby),
        Task::Full => {
            let report = syncer.full_sync(carryover).await?;
            Ok(SyncOutcome::Synced(Box::new(report)))
        }
        Task::Incremental | Task::ScheduledIncremental => syncer.incremental(carryover).await,
        Task::Users(ids) => syncer.on_demand(ids, carryover).await,
    }
}
