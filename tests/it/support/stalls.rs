//! How slow the machine is while a test runs, for bounds on times that the program needs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::support::database::connect;

/// Pause between two measurements.
const PAUSE: Duration = Duration::from_millis(50);

/// Measures again and again how much longer than its pause a pause and a small transaction take.
pub struct Stalls {
    longest_ms: Arc<AtomicU64>,
    measuring: JoinHandle<()>,
}

impl Stalls {
    /// Measures in a database until it is dropped.
    pub async fn measure(url: &str) -> Self {
        let client = connect(url).await;
        client
            .batch_execute("CREATE TABLE public.pulse (beat bigint NOT NULL); INSERT INTO public.pulse VALUES (0)")
            .await
            .unwrap();
        let longest_ms = Arc::<AtomicU64>::default();
        let longest = longest_ms.clone();
        let measuring = tokio::spawn(async move {
            loop {
                let started = Instant::now();
                tokio::time::sleep(PAUSE).await;
                // The database is dropped at the end of the test.
                if client
                    .batch_execute("UPDATE public.pulse SET beat = beat + 1")
                    .await
                    .is_err()
                {
                    return;
                }
                let stall = started.elapsed().saturating_sub(PAUSE);
                longest.fetch_max(u64::try_from(stall.as_millis()).unwrap(), Ordering::Relaxed);
            }
        });
        Self { longest_ms, measuring }
    }

    /// Returns the longest stall so far.
    pub fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.measuring.abort();
    }
}
