//! The schedule. A job only marks a pass as due: ticks that come while a pass runs are one tick.

use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::due::Due;

/// A running schedule. Dropping it without [`Self::stop`] leaves its task behind.
pub struct Schedule(JobScheduler);

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
        let scheduler = JobScheduler::new().await?;
        for (cron, mark) in [(full, Due::full as fn(&Due)), (incremental, Due::tick)] {
            if cron.is_empty() {
                continue;
            }
            let due = due.clone();
            let job = Job::new_async(cron, move |_, _| {
                mark(&due);
                Box::pin(async {})
            })?;
            scheduler.add(job).await?;
        }
        scheduler.start().await?;
        Ok(Self(scheduler))
    }

    /// Ends the schedule.
    pub async fn stop(mut self) {
        // It fails only where the scheduler is gone already.
        let _ = self.0.shutdown().await;
    }
}
