//! wrk sends the requests that the daemon has sent: how fast they can be sent at all.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use crate::{
    endpoint::scratch,
    receiver::{Received, Receiver, time_of},
};

/// Connections, each with one request at a time.
const CONNECTIONS: usize = 8;

/// Time limit for all requests.
const TIMEOUT: Duration = Duration::from_secs(120);

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/delivery/wrk.lua");

/// Whether wrk is installed.
pub fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("wrk").is_file())
}

/// Sends requests to a receiver until as many were answered. Returns how long that took, from the
/// receiver's first request to its last answer.
pub async fn send(requests: &[Received], receiver: Receiver) -> Result<Duration> {
    let file = scratch()?.join("requests");
    write(requests, &file).context("cannot write the requests")?;
    let mut wrk = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "wrk", "--threads=1"])
        .arg(format!("--connections={CONNECTIONS}"))
        // It ends earlier.
        .arg(format!("--duration={}s", 2 * TIMEOUT.as_secs()))
        .args(["--script", SCRIPT])
        .arg(format!("http://{}/", receiver.address()))
        .arg("--")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start wrk")?;
    let started = Instant::now();
    while receiver.count() < requests.len() {
        if let Some(status) = wrk.try_wait()? {
            bail!("wrk ended with {status}; its output is above");
        }
        ensure!(started.elapsed() < TIMEOUT, "wrk did not end in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wrk.kill().await?;
    time_of(&receiver.stop().await, requests.len()).context("wrk sent nothing")
}

fn write(requests: &[Received], path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for request in requests {
        let bytes = text(request);
        writeln!(file, "{}", bytes.len())?;
        file.write_all(&bytes)?;
    }
    file.flush()
}

/// The request as it was sent.
fn text(request: &Received) -> Vec<u8> {
    let mut bytes = format!("POST {} HTTP/1.1\r\n", request.path).into_bytes();
    for (name, value) in &request.headers {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&request.body);
    bytes
}
