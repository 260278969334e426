//! Watches a daemon: samples its memory, and reads its metrics as Prometheus does.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
};

use crate::daemon::Usage;

/// The interval between samples of the memory.
const SAMPLE: Duration = Duration::from_secs(1);

/// The interval between reads of the metrics. It is common.
const SCRAPE: Duration = Duration::from_secs(15);

/// What is watched until it is stopped or dropped.
pub struct Monitor {
    /// The highest sample so far is sent with each sample.
    highest_kb: watch::Receiver<u64>,
    task: JoinHandle<Result<()>>,
}

impl Monitor {
    /// Begins to watch a process whose metrics are at an address.
    pub fn start(pid: u32, address: SocketAddr) -> Self {
        let (sender, highest_kb) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SAMPLE);
            let mut scraped_at = None;
            loop {
                ticks.tick().await;
                let resident_kb = Usage::of(pid)?.resident_kb;
                sender.send_modify(|highest| *highest = resident_kb.max(*highest));
                if scraped_at.is_none_or(|at: Instant| at.elapsed() >= SCRAPE) {
                    scraped_at = Some(Instant::now());
                    scrape(address).await?;
                }
            }
        });
        Self { highest_kb, task }
    }

    /// Stops, and returns the most resident memory in MB.
    ///
    /// # Errors
    /// A sample or a read failed.
    pub async fn stop(mut self) -> Result<f64> {
        if self.task.is_finished() {
            (&mut self.task).await??;
        }
        let highest_kb = *self.highest_kb.borrow();
        Ok(highest_kb as f64 / 1024.0)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn scrape(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "the metrics cannot be read");
    Ok(())
}
