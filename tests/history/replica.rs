//! One of several replicas of the program, with its own network connection to Postgres.

use std::{fs, path::PathBuf};

use rustix::process::Signal;

use crate::{
    clerk::now,
    clock::Clock,
    support::{
        fixture::Fixture,
        process::Process,
        proxy::{Proxy, upstream},
    },
};

pub struct Replica {
    name: String,
    pub postgres: Proxy,
    /// Its wall clock.
    pub clock: Clock,
    /// The settings of this history.
    settings: Vec<(&'static str, String)>,
    /// The configuration file, which has the endpoints.
    config: PathBuf,
    process: Option<Process>,
    pub is_stopped: bool,
    /// All processes of this replica.
    pub lives: Vec<Life>,
}

/// A process from just before its start to just after its end, in Unix milliseconds.
pub struct Life {
    pub pid: u32,
    /// The application name of its connections.
    pub name: String,
    pub from: i64,
    pub until: Option<i64>,
}

impl Replica {
    pub fn start(fixture: &Fixture, name: String, settings: Vec<(&'static str, String)>, config: PathBuf) -> Self {
        let mut this = Self {
            name,
            postgres: Proxy::open(upstream(&fixture.db.url)),
            clock: Clock::new(),
            settings,
            config,
            process: None,
            is_stopped: false,
            lives: Vec::new(),
        };
        this.restart(fixture);
        this
    }

    fn restart(&mut self, fixture: &Fixture) {
        let separator = if fixture.db.url.contains('?') { '&' } else { '?' };
        let url = self.postgres.url(&fixture.db.url);
        let name = format!("{}-{}", self.name, self.lives.len());
        let mut command = fixture.command(&["--config", self.config.to_str().unwrap()]);
        command
            .env("DATABASE_URL", format!("{url}{separator}application_name={name}"))
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .envs(self.clock.environment());
        let from = now();
        let process = Process::spawn(command);
        self.lives.push(Life {
            pid: process.pid(),
            name,
            from,
            until: None,
        });
        self.process = Some(process);
    }

    /// Kills the process and starts another one.
    pub async fn is_killed(&mut self, fixture: &Fixture) {
        if let Some(process) = self.process.take() {
            assert!(!process.log().contains("panicked"), "{}", process.log());
            process.kill().await;
            self.has_ended();
        }
        self.is_stopped = false;
        self.restart(fixture);
    }

    /// Stops the process and starts another one. A suspended process is resumed first.
    pub async fn is_restarted(&mut self, fixture: &Fixture) {
        self.goes_on();
        self.ends().await;
        self.restart(fixture);
    }

    pub fn stands_still(&mut self) {
        self.signal(Signal::STOP);
        self.is_stopped = true;
    }

    pub fn goes_on(&mut self) {
        if std::mem::take(&mut self.is_stopped) {
            self.signal(Signal::CONT);
        }
    }

    fn has_ended(&mut self) {
        if let Some(life) = self.lives.last_mut() {
            life.until = Some(now());
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Starts the process again if it has ended by itself, as a service manager does: a daemon
    /// whose first sync is refused ends. Returns whether it had ended.
    pub async fn comes_back(&mut self, fixture: &Fixture) -> bool {
        let has_ended = self.process.as_mut().is_some_and(Process::has_ended);
        if has_ended && let Some(process) = self.process.take() {
            let ran = process.wait_for_exit().await;
            assert_eq!(ran.code, Some(1), "{ran:#?}");
            assert!(ran.stderr.contains("refused the secret key"), "{ran:#?}");
            self.has_ended();
            self.restart(fixture);
        }
        has_ended
    }

    /// Stops the process with SIGTERM and asserts that it ends in time.
    pub async fn ends(&mut self) {
        if let Some(process) = self.process.take() {
            let ran = process.stop(Signal::TERM).await;
            self.has_ended();
            // Before its first log line, a signal ends it as any program.
            let listens = ran.stderr.lines().count() > 1;
            assert!(matches!(ran.code, Some(0 | 1)) || !listens, "{ran:#?}");
            assert!(!ran.stderr.contains("panicked"), "{ran:#?}");
        }
    }

    /// Sends a signal that would end a program without a handler for it.
    pub fn is_told(&self, signal: Signal) {
        // After its first line it has handlers.
        if self.log().lines().count() > 1 {
            self.signal(signal);
        }
    }

    /// Returns the peak memory in kB since the last call; `None` if the process has just ended.
    #[allow(dead_code, reason = "the soak asks")]
    pub fn peak_memory(&self) -> Option<u64> {
        let pid = self.process.as_ref().map(Process::pid)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        // Resets the peak. Source: proc_pid_clear_refs(5).
        fs::write(format!("/proc/{pid}/clear_refs"), "5").ok()?;
        peak.trim().trim_end_matches(" kB").parse().ok()
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }
}
