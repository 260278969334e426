//! What is due, and doing it.

use crate::{
    failure::{Cause, Failure},
    sync::due::Task,
    sync::{Carryover, SyncOutcome, Syncer},
};

use super::{
    GRACE, Setup,
    election::{Candidate, Election},
    service,
    signals::{Signals, Told},
};

/// For people.
pub(super) fn name(task: &Task) -> &'static str {
    match task {
        Task::Full => "full sync",
        Task::Incremental | Task::Tick => "incremental sync",
        Task::Users(_) => "sync on demand",
    }
}

/// Does it, if it is for this one to do. The first time, it learns whether it leads.
pub(super) async fn sync(
    Setup { syncer, aside, .. }: &Setup,
    task: &Task,
    carryover: &mut Carryover,
    election: &mut Option<Election>,
) -> Result<SyncOutcome, Failure> {
    let election = match election {
        Some(election) => election,
        None => {
            // Before it may have to stand by: a key that is no good must not be found out only when it has to take over.
            syncer.enter().await?;
            let (holder, ttl) = (syncer.options.holder.clone(), syncer.options.lease_ttl);
            let candidate = Candidate::new(aside.leadership(), holder, ttl, syncer.watch.clone());
            election.insert(Election::begin(candidate).await?)
        }
    };
    match task {
        _ if !election.leads() => Ok(SyncOutcome::Standby),
        Task::Full => syncer.full_sync(carryover).await.map(SyncOutcome::Done),
        Task::Incremental | Task::Tick => syncer.incremental(carryover).await,
        Task::Users(ids) => syncer.on_demand(ids, carryover).await,
    }
}

/// Runs a sync while listening to signals; a signal that came meanwhile is handed back.
pub(super) async fn guarded(
    syncer: &Syncer,
    signals: &mut Signals,
    sync: impl Future<Output = Result<SyncOutcome, Failure>>,
) -> (Result<SyncOutcome, Failure>, Option<Told>) {
    tokio::pin!(sync);
    let mut reload = None;
    loop {
        tokio::select! {
            biased;
            result = &mut sync => return (result, reload),
            told = signals.next() => match told {
                Told::Sync => syncer.due.incremental(),
                Told::Reload => reload = Some(Told::Reload),
                Told::Stop(name) => {
                    service::stopping();
                    syncer.stop.cancel();
                    let result = tokio::time::timeout(GRACE, sync).await.unwrap_or_else(|_| Err(given_up()));
                    return (result, Some(Told::Stop(name)));
                }
            },
        }
    }
}

pub(super) fn given_up() -> Failure {
    Failure::new(
        Cause::Stopped,
        "stopped in the middle of a batch, which was not committed; the next sync does it again",
    )
}
