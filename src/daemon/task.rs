//! What is due, and doing it.

use crate::{
    due::Task,
    failure::{Cause, Failure},
    pass::{Followed, Memory, Pass},
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
    Setup { pass, aside, .. }: &Setup,
    task: &Task,
    memory: &mut Memory,
    election: &mut Option<Election>,
) -> Result<Followed, Failure> {
    let election = match election {
        Some(election) => election,
        None => {
            // Before it may have to stand by: a key that is no good must not be found out only when it has to take over.
            pass.enter().await?;
            let (holder, ttl) = (pass.options.holder.clone(), pass.options.lease_ttl);
            let candidate = Candidate::new(aside.clone(), holder, ttl, pass.watch.clone());
            election.insert(Election::begin(candidate).await?)
        }
    };
    match task {
        _ if !election.leads() => Ok(Followed::StandingBy),
        Task::Full => pass.full_sync(memory).await.map(Followed::Done),
        Task::Incremental | Task::Tick => pass.incremental(memory).await,
        Task::Users(ids) => pass.on_demand(ids, memory).await,
    }
}

/// Runs a pass while listening to signals; a signal that came meanwhile is handed back.
pub(super) async fn guarded(
    pass: &Pass,
    signals: &mut Signals,
    sync: impl Future<Output = Result<Followed, Failure>>,
) -> (Result<Followed, Failure>, Option<Told>) {
    tokio::pin!(sync);
    let mut reload = None;
    loop {
        tokio::select! {
            biased;
            result = &mut sync => return (result, reload),
            told = signals.next() => match told {
                Told::Sync => pass.due.incremental(),
                Told::Reload => reload = Some(Told::Reload),
                Told::Stop(name) => {
                    service::stopping();
                    pass.stop.cancel();
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
        "stopped in the middle of a batch, which was not committed; the next pass does it again",
    )
}
