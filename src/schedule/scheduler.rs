//! Marks syncs as due by cron expressions. Several ticks that come while a sync runs count as one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    clock_guard::{ClockGuard, MarkedKinds},
    timetable::Timetable,
};
use crate::{clock::Clock, schedule::due::Due};

/// Shortest time between two comparisons of the clocks. Usually it is the shortest period of the
/// schedules.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Longest time between two comparisons of the clocks: a jump delays a sync by as much.
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// A running scheduler. Dropping it without [`Self::stop`] leaves its task running.
pub(crate) struct Scheduler {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The schedules, and where due syncs are marked.
#[derive(Clone)]
struct Jobs {
    full: String,
    incremental: String,
    due: Due,
    marked: Arc<MarkedFlags>,
    stop: CancellationToken,
}

/// Which kinds of sync have been marked since the last check.
#[derive(Default)]
struct MarkedFlags {
    full: AtomicBool,
    incremental: AtomicBool,
}

impl Scheduler {
    /// Starts to mark full and incremental syncs as due. An empty expression is never due.
    ///
    /// # Errors
    /// An expression is invalid, or the scheduler does not start.
    pub(crate) async fn start(full: &str, incremental: &str, due: &Due) -> Result<Self, JobSchedulerError> {
        Self::start_with(Clock::default(), full, incremental, due).await
    }

    async fn start_with(clock: Clock, full: &str, incremental: &str, due: &Due) -> Result<Self, JobSchedulerError> {
        let jobs = Jobs {
            full: full.to_owned(),
            incremental: incremental.to_owned(),
            due: due.clone(),
            marked: Arc::default(),
            stop: CancellationToken::new(),
        };
        let timetable = Timetable::new(full, incremental);
        let pause = timetable.shortest_period(clock.now().wall).unwrap_or(MAX_PAUSE);
        let pause = pause.clamp(MIN_PAUSE, MAX_PAUSE);
        let guard = ClockGuard::new(timetable, clock.now());
        let scheduler = jobs.start().await?;
        let stop = jobs.stop.clone();
        let task = tokio::spawn(supervise(jobs, scheduler, (guard, pause), clock));
        Ok(Self { stop, task })
    }

    /// Stops the scheduler. It marks nothing afterwards.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // It fails only if the task has panicked.
        let _ = self.task.await;
    }
}

impl Jobs {
    /// Starts a scheduler for these jobs. It uses the wall clock, and computes a job's next tick
    /// when the previous one has come.
    async fn start(&self) -> Result<JobScheduler, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        let full = |jobs: &Jobs| {
            jobs.marked.full.store(true, Ordering::Relaxed);
            jobs.due.full();
        };
        let incremental = |jobs: &Jobs| {
            jobs.marked.incremental.store(true, Ordering::Relaxed);
            jobs.due.scheduled_incremental();
        };
        for (cron, mark) in [
            (&self.full, full as fn(&Jobs)),
            (&self.incremental, incremental as fn(&Jobs)),
        ] {
            if cron.is_empty() {
                continue;
            }
            let jobs = self.clone();
            let job = Job::new_async(cron.as_str(), move |_, _| {
                // The scheduler may look at its jobs once more after its shutdown.
                if !jobs.stop.is_cancelled() {
                    mark(&jobs);
                }
                Box::pin(async {})
            })?;
            scheduler.add(job).await?;
        }
        scheduler.start().await?;
        Ok(scheduler)
    }
}

/// Compares the clocks, and restarts the scheduler when the wall clock has jumped.
async fn supervise(jobs: Jobs, mut scheduler: JobScheduler, (mut guard, pause): (ClockGuard, Duration), clock: Clock) {
    let mut is_stale = false;
    while jobs.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let marked = MarkedKinds {
            full: jobs.marked.full.swap(false, Ordering::Relaxed),
            incremental: jobs.marked.incremental.swap(false, Ordering::Relaxed),
        };
        let check = guard.check(clock.now(), marked);
        if check.full {
            jobs.due.full();
        }
        if check.incremental {
            jobs.due.scheduled_incremental();
        }
        if let Some(jump) = check.jump {
            info!(
                by_s = jump.num_seconds(),
                "this machine's clock has jumped; restarting the scheduler"
            );
        }
        is_stale |= check.jump.is_some();
        if is_stale {
            match jobs.start().await {
                Ok(new) => {
                    shut_down(std::mem::replace(&mut scheduler, new)).await;
                    is_stale = false;
                }
                // Until then the clock guard marks each sync when its deadline has passed.
                Err(error) => warn!(%error, "cannot restart the scheduler; trying again"),
            }
        }
    }
    shut_down(scheduler).await;
}

async fn shut_down(mut scheduler: JobScheduler) {
    if let Err(error) = scheduler.shutdown().await {
        debug!(%error, "the scheduler has ended already");
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{
        mirror::SyncKind,
        schedule::due::{Allowed, Task},
    };

    /// Waits until something is due, and takes it.
    async fn next(due: &Due) -> Task {
        let waiting = async {
            loop {
                match due.take(&Allowed::ALL) {
                    Some(task) => return task,
                    None => due.changed().await,
                }
            }
        };
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, waiting).await.expect("nothing is due")
    }

    /// Returns a schedule for once a day, at a time of day by the real clock.
    fn daily(after: TimeDelta) -> String {
        (Clock::default().now().wall + after)
            .format("%-S %-M %-H * * *")
            .to_string()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_clock_that_went_back_delays_no_sync() {
        let (clock, due) = (Clock::default(), Due::default());
        // The scheduler waits for an hour, as it does when the clock has gone back by an hour.
        clock.jump(TimeDelta::hours(1));
        let in_an_hour = daily(TimeDelta::hours(1) + TimeDelta::seconds(2));
        let scheduler = Scheduler::start_with(clock.clone(), &in_an_hour, "", &due)
            .await
            .unwrap();
        clock.jump(TimeDelta::hours(-1));
        assert_eq!(next(&due).await.kind(), SyncKind::Full);
        scheduler.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn syncs_missed_during_sleep_are_due_at_once_and_the_schedule_goes_on() {
        let (clock, due) = (Clock::default(), Due::default());
        let in_an_hour = daily(TimeDelta::hours(1));
        let scheduler = Scheduler::start_with(clock.clone(), &in_an_hour, "* * * * * *", &due)
            .await
            .unwrap();
        assert_eq!(next(&due).await, Task::ScheduledIncremental);
        clock.jump(TimeDelta::hours(2));
        while next(&due).await != Task::Full {}
        for _ in 0..3 {
            assert_eq!(next(&due).await, Task::ScheduledIncremental);
        }
        scheduler.stop().await;
        while due.take(&Allowed::ALL).is_some() {}
        tokio::time::sleep(3 * MIN_PAUSE).await;
        assert_eq!(due.take(&Allowed::ALL), None, "it marks syncs after it was stopped");
    }
}
