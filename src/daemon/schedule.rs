//! The schedule. A job only says that a pass is due, on a channel of one place: ticks that come while a pass runs are one tick.

use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// A running schedule of full syncs. Dropping it without [`Self::stop`] leaves its task behind.
pub struct Schedule(Option<JobScheduler>);

/// Whether a text is a schedule: six fields, seconds first.
pub fn is_schedule(cron: &str) -> bool {
    Job::new(cron, |_, _| {}).is_ok()
}

impl Schedule {
    /// Says on `due` when a full sync is due. An empty `cron` never does.
    ///
    /// # Errors
    /// The schedule cannot be read, or the scheduler does not start.
    pub async fn start(cron: &str, due: mpsc::Sender<()>) -> Result<Self, JobSchedulerError> {
        if cron.is_empty() {
            return Ok(Self(None));
        }
        let scheduler = JobScheduler::new().await?;
        let job = Job::new_async(cron, move |_, _| {
            // A full place means that a pass is due already.
            let _ = due.try_send(());
            Box::pin(async {})
        })?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        Ok(Self(Some(scheduler)))
    }

    /// Ends the schedule.
    pub async fn stop(self) {
        if let Some(mut scheduler) = self.0 {
            // It fails only where the scheduler is gone already.
            let _ = scheduler.shutdown().await;
        }
    }
}
