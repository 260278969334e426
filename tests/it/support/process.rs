//! The program while it runs: what it logs, and how a test stops it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::support::{
    fixture::Fixture,
    program::ProgramOutput,
    wait::{PATIENCE, eventually},
};

/// How long the program may take to end after a signal.
pub const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// No scheduled full syncs.
pub const NEVER: (&str, &str) = ("CLERK2PG_SCHEDULE__FULL", "");

/// An incremental sync every second.
pub const EVERY_SECOND: (&str, &str) = ("CLERK2PG_SCHEDULE__INCREMENTAL", "* * * * * *");

/// A process whose output is read while it runs.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    stderr: JoinHandle<()>,
    stdout: JoinHandle<Vec<u8>>,
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        Self::new(command.spawn().unwrap())
    }

    pub fn new(mut child: Child) -> Self {
        let log = Arc::<Mutex<Vec<u8>>>::default();
        let mut stdout = child.stdout.take().unwrap();
        Self {
            stderr: tokio::spawn(copy(child.stderr.take().unwrap(), log.clone())),
            stdout: tokio::spawn(async move {
                let mut bytes = Vec::new();
                stdout.read_to_end(&mut bytes).await.unwrap();
                bytes
            }),
            child,
            log,
        }
    }

    /// Returns everything on stderr so far.
    pub fn log(&self) -> String {
        // The last line may end within a character.
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    /// Counts the lines on stderr so far that contain a text.
    pub fn count_in_log(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits until a line on stderr contains a text.
    pub async fn wait_for_log(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), async || self.count_in_log(text) > 0).await;
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process is gone already")
    }

    /// Whether the process has ended by itself.
    #[allow(dead_code, reason = "the histories use it")]
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn signal(&self, sent: Signal) {
        signal(&self.child, sent);
    }

    /// Sends a signal that ends the process, and asserts that it ends within [`STOPS_WITHIN`].
    pub async fn stop(self, sent: Signal) -> ProgramOutput {
        let signaled = Instant::now();
        self.signal(sent);
        let ran = self.wait_for_exit().await;
        let took = signaled.elapsed();
        assert!(took <= STOPS_WITHIN, "{took:?} from {sent:?} to the end: {ran:#?}");
        ran
    }

    /// Waits for the end. A process that runs longer than `limit` is stopped.
    pub async fn wait_for_exit_within(mut self, limit: Duration) -> ProgramOutput {
        if tokio::time::timeout(limit, self.child.wait()).await.is_err() {
            self.signal(Signal::TERM);
        }
        self.wait_for_exit().await
    }

    /// Kills the process.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub async fn wait_for_exit(mut self) -> ProgramOutput {
        let ending = async {
            let status = self.child.wait().await.unwrap();
            (&mut self.stderr).await.unwrap();
            ProgramOutput {
                code: status.code(),
                stdout: String::from_utf8((&mut self.stdout).await.unwrap()).unwrap(),
                stderr: String::from_utf8(self.log.lock().unwrap().clone()).unwrap(),
            }
        };
        let ran = tokio::time::timeout(PATIENCE, ending).await;
        ran.expect("the program does not end")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the program said:\n{}", self.log());
        }
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, to: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        to.lock().unwrap().extend_from_slice(&buffer[..length]);
    }
}

/// Sends a signal to a child.
pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = child.id().expect("the process is gone already");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

impl Fixture {
    /// Starts a daemon with a full sync every second and no incremental syncs.
    pub fn daemon(&self, environment: &[(&str, &str)]) -> Child {
        self.command(&[])
            .env("CLERK2PG_SCHEDULE__FULL", "* * * * * *")
            .env("CLERK2PG_SCHEDULE__INCREMENTAL", "")
            .env("CLERK2PG_CLERK__TIMEOUT", "2s")
            .envs(environment.iter().copied())
            .spawn()
            .unwrap()
    }

    /// Starts such a daemon and reads its log while it runs.
    pub fn start_daemon(&self, environment: &[(&str, &str)]) -> Process {
        Process::new(self.daemon(environment))
    }

    /// Starts a daemon with an incremental sync every second, and waits until its first full sync
    /// is over.
    pub async fn start_incremental(&self, environment: &[(&str, &str)]) -> Process {
        let walked = "kind = 'full' AND ended_at IS NOT NULL AND outcome <> 'failed'";
        let before = self.runs(walked).await;
        let daemon = self.start_daemon(&[&[NEVER, EVERY_SECOND], environment].concat());
        eventually("the first full sync", async || self.runs(walked).await > before).await;
        self.age_rows().await;
        daemon
    }

    /// Starts a full sync and does not wait for it.
    pub fn start_full_sync(&self, environment: &[(&str, &str)]) -> Process {
        let mut command = self.command(&["--once", "--format", "json"]);
        command.envs(environment.iter().copied());
        Process::spawn(command)
    }

    /// Does something while these daemons are suspended and all of their requests are answered.
    pub async fn while_frozen(&self, daemons: &[&Process], happens: impl FnOnce()) {
        daemons.iter().for_each(|daemon| daemon.signal(Signal::STOP));
        self.wait_until_answered().await;
        happens();
        daemons.iter().for_each(|daemon| daemon.signal(Signal::CONT));
    }
}
