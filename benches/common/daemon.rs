//! Starts, measures and stops the daemon.

use std::{
    fs,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clerk_sim::Sim;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// Time limit for stopping.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Times in /proc are in hundredths of a second on all common architectures.
const TICKS_PER_SECOND: f64 = 100.0;

/// The kernel's counters of a process.
pub struct Usage {
    /// User and system time together, in seconds.
    pub cpu: f64,
    pub resident_kb: u64,
    /// The highest value since the start.
    pub peak_kb: u64,
}

impl Usage {
    /// The counters of a process now.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let memory = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse().ok())
        };
        Ok(Self {
            cpu: cpu_ticks(&stat).context("cannot read /proc/PID/stat")? as f64 / TICKS_PER_SECOND,
            resident_kb: memory("VmRSS").context("/proc/PID/status has no VmRSS")?,
            peak_kb: memory("VmHWM").context("/proc/PID/status has no VmHWM")?,
        })
    }
}

/// A command of clerk2pg without the environment of this process. Its stderr is shown.
pub fn command(sim: &Sim, database: &str) -> Command {
    // It ends with the benchmark, even if that is killed.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_clerk2pg")])
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("DATABASE_URL", database)
        .env("CLERK_SECRET_KEY", sim.secret_key())
        .env("CLERK_API_URL", sim.url())
        .env("RUST_LOG", "warn")
        // Another clerk2pg may use the default port.
        .env("CLERK2PG_HTTP__LISTEN", "")
        // A folder without a config.toml.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    pid: u32,
}

impl Daemon {
    pub fn start(mut command: Command) -> Result<Self> {
        let child = command.spawn().context("cannot start the daemon")?;
        let pid = child.id().context("the daemon ended at once")?;
        Ok(Self { child, pid })
    }

    /// Fails if the daemon has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the daemon ended by itself ({status}); its output is above"),
        }
    }

    /// Sleeps, where time itself is measured, or must pass before a count is complete. Fails if the
    /// daemon ends meanwhile.
    pub async fn sleep(&mut self, duration: Duration) -> Result<()> {
        tokio::select! {
            status = self.child.wait() => bail!("the daemon ended by itself ({}); its output is above", status?),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }

    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub async fn stop(mut self) -> Result<()> {
        self.check()?;
        let pid = Pid::from_raw(i32::try_from(self.pid)?).context("no process has the id 0")?;
        kill_process(pid, Signal::TERM)?;
        let status: ExitStatus = tokio::time::timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .context("the daemon did not stop on SIGTERM")??;
        if !status.success() {
            bail!("the daemon stopped with {status}");
        }
        Ok(())
    }
}

/// User and system time, the 14th and 15th field. The second, the name, may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}
