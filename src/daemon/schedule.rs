//! The schedule. A job only marks a sync as due: ticks that come while one runs are one tick.

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

use super::regular::{Marked, Regular};
use crate::{clock::Clock, sync::due::Due, watch::Timetable};

/// The clocks are compared once in the shortest period of the schedules, but not more often than this.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// And not more seldom, as a jump delays a sync for that long.
const MOST_PAUSE: Duration = Duration::from_secs(3);

/// A running schedule. Dropping it without [`Self::stop`] leaves its task behind.
pub struct Schedule {
    stop: CancellationToken,
    kept: JoinHandle<()>,
}

/// What is needed to start a scheduler.
#[derive(Clone)]
struct Plan {
    full: String,
    incremental: String,
    due: Due,
    marked: Arc<Marks>,
}

#[derive(Default)]
struct Marks {
    full: AtomicBool,
    incremental: AtomicBool,
}

/// Whether a text is a schedule: six fields, seconds first.
pub fn is_schedule(cron: &str) -> bool {
    Job::new(cron, |_, _| {}).is_ok()
}

impl Schedule {
    /// Marks full and incremental syncs as due. An empty text never does.
    ///
    /// # Errors
    /// A schedule cannot be read, or the scheduler does not start.
    pub async fn start(full: &str, incremental: &str, due: &Due) -> Result<Self, JobSchedulerError> {
        Self::by(Clock::default(), full, incremental, due).await
    }

    async fn by(clock: Clock, full: &str, incremental: &str, due: &Due) -> Result<Self, JobSchedulerError> {
        let plan = Plan {
            full: full.to_owned(),
            incremental: incremental.to_owned(),
            due: due.clone(),
            marked: Arc::default(),
        };
        let timetable = Timetable::new(full, incremental);
        let pause = timetable.shortest_period(clock.now().wall).unwrap_or(MOST_PAUSE);
        let pause = pause.clamp(LEAST_PAUSE, MOST_PAUSE);
        let regular = Regular::new(timetable, clock.now());
        let scheduler = plan.scheduler().await?;
        let stop = CancellationToken::new();
        let kept = tokio::spawn(keep(plan, scheduler, (regular, pause), clock, stop.clone()));
        Ok(Self { stop, kept })
    }

    /// Ends the schedule.
    pub async fn stop(self) {
        self.stop.cancel();
        // It fails only if the task has panicked.
        let _ = self.kept.await;
    }
}

impl Plan {
    /// The scheduler goes by the wall clock, and computes the next tick of a job once the one before
    /// has come.
    async fn scheduler(&self) -> Result<JobScheduler, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        let full = |plan: &Plan| {
            plan.marked.full.store(true, Ordering::Relaxed);
            plan.due.full();
        };
        let incremental = |plan: &Plan| {
            plan.marked.incremental.store(true, Ordering::Relaxed);
            plan.due.tick();
        };
        for (cron, mark) in [
            (&self.full, full as fn(&Plan)),
            (&self.incremental, incremental as fn(&Plan)),
        ] {
            if cron.is_empty() {
                continue;
            }
            let plan = self.clone();
            let job = Job::new_async(cron.as_str(), move |_, _| {
                mark(&plan);
                Box::pin(async {})
            })?;
            scheduler.add(job).await?;
        }
        scheduler.start().await?;
        Ok(scheduler)
    }
}

/// Compares the clocks, and restarts the scheduler when the wall clock has jumped.
async fn keep(
    plan: Plan,
    mut scheduler: JobScheduler,
    (mut regular, pause): (Regular, Duration),
    clock: Clock,
    stop: CancellationToken,
) {
    let mut is_stale = false;
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let marked = Marked {
            full: plan.marked.full.swap(false, Ordering::Relaxed),
            incremental: plan.marked.incremental.swap(false, Ordering::Relaxed),
        };
        let found = regular.check(clock.now(), marked);
        if found.full {
            plan.due.full();
        }
        if found.incremental {
            plan.due.tick();
        }
        if let Some(jump) = found.jump {
            info!(
                by_s = jump.num_seconds(),
                "this machine's clock has jumped; the schedule begins anew"
            );
        }
        is_stale |= found.jump.is_some();
        if is_stale {
            match plan.scheduler().await {
                Ok(new) => {
                    end(std::mem::replace(&mut scheduler, new)).await;
                    is_stale = false;
                }
                // What it does not mark is marked when its period is over.
                Err(error) => warn!(%error, "the schedule could not begin anew; it is tried again"),
            }
        }
    }
    end(scheduler).await;
}

async fn end(mut scheduler: JobScheduler) {
    if let Err(error) = scheduler.shutdown().await {
        debug!(%error, "the scheduler is gone already");
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{
        mirror::SyncKind,
        sync::due::{Allowed, Task},
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

    /// A schedule for once a day, at a time of day by the real clock.
    fn daily(after: TimeDelta) -> String {
        (Clock::default().now().wall + after)
            .format("%-S %-M %-H * * *")
            .to_string()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_scheduler_that_waits_for_a_clock_that_went_back_is_not_waited_for() {
        let (clock, due) = (Clock::default(), Due::default());
        // The scheduler sees an hour to go, as it does when the clock has gone back by that.
        clock.jump(TimeDelta::hours(1));
        let in_an_hour = daily(TimeDelta::hours(1) + TimeDelta::seconds(2));
        let schedule = Schedule::by(clock.clone(), &in_an_hour, "", &due).await.unwrap();
        clock.jump(TimeDelta::hours(-1));
        assert_eq!(next(&due).await.kind(), SyncKind::Full);
        schedule.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_slept_through_is_due_at_once_and_the_schedule_goes_on() {
        let (clock, due) = (Clock::default(), Due::default());
        let in_an_hour = daily(TimeDelta::hours(1));
        let schedule = Schedule::by(clock.clone(), &in_an_hour, "* * * * * *", &due)
            .await
            .unwrap();
        assert_eq!(next(&due).await, Task::Tick);
        clock.jump(TimeDelta::hours(2));
        while next(&due).await != Task::Full {}
        for _ in 0..3 {
            assert_eq!(next(&due).await, Task::Tick);
        }
        schedule.stop().await;
        while due.take(&Allowed::ALL).is_some() {}
        tokio::time::sleep(3 * LEAST_PAUSE).await;
        assert_eq!(due.take(&Allowed::ALL), None, "it goes on when it is over");
    }
}
