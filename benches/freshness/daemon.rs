//! The program under measurement.

use std::{
    fs,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clerk_sim::Sim;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// How long it may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// The unit of times in /proc, which Linux shows in hundredths of a second on all common architectures.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where the kernel's counters stand.
pub struct Usage {
    /// Of user and system together, in seconds.
    pub cpu: f64,
    pub resident_kb: u64,
    /// The most since the start.
    pub peak_kb: u64,
}

/// clerk2pg with nothing of this process's environment; what it has to say on stderr is seen.
pub fn command(sim: &Sim, database: &str) -> Command {
    // It ends with the benchmark, even when that is killed outright.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_clerk2pg")])
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("DATABASE_URL", database)
        .env("CLERK_SECRET_KEY", sim.secret_key())
        .env("CLERK_API_URL", sim.url())
        .env("RUST_LOG", "warn")
        // Another one may run on this machine.
        .env("CLERK2PG_HTTP__LISTEN", "")
        // Not where a config.toml may lie.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}

pub struct Daemon {
    child: Child,
    pid: u32,
}

impl Daemon {
    pub fn start(mut command: Command) -> Result<Self> {
        let child = command.spawn().context("the daemon does not start")?;
        let pid = child.id().context("the daemon has ended at once")?;
        Ok(Self { child, pid })
    }

    /// Fails where it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the daemon has ended by itself ({status}); what it had to say is above"),
        }
    }

    /// Sleeps, and fails where the daemon does not live to see the end of it.
    pub async fn sleep(&mut self, duration: Duration) -> Result<()> {
        tokio::select! {
            status = self.child.wait() => bail!("the daemon has ended by itself ({}); what it had to say is above", status?),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }

    pub fn usage(&self) -> Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let memory = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse().ok())
        };
        Ok(Usage {
            cpu: cpu_ticks(&stat).context("/proc/PID/stat cannot be read")? as f64 / TICKS_PER_SECOND,
            resident_kb: memory("VmRSS").context("/proc/PID/status has no VmRSS")?,
            peak_kb: memory("VmHWM").context("/proc/PID/status has no VmHWM")?,
        })
    }

    pub async fn stop(mut self) -> Result<()> {
        self.check()?;
        let pid = Pid::from_raw(i32::try_from(self.pid)?).context("no process has the id 0")?;
        kill_process(pid, Signal::TERM)?;
        let status: ExitStatus = tokio::time::timeout(STOPS_WITHIN, self.child.wait())
            .await
            .context("the daemon does not stop at SIGTERM")??;
        if !status.success() {
            bail!("the daemon stopped with {status}");
        }
        Ok(())
    }
}

/// User and system time, the 14th and 15th field; the second, the name, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}
