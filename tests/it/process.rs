//! The program while it runs: what it says, and how it is told to end.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clerk_sim::Request;
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::harness::{PATIENCE, Ran, World, comparable, eventually, signal};

/// How long a program may take to end once it is told to.
pub const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// A schedule that is never due while a test runs.
pub const NEVER: (&str, &str) = ("CLERK2PG_SCHEDULE__FULL", "");

/// A look for changes every second.
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

    /// Everything on stderr so far.
    pub fn log(&self) -> String {
        // What is still being written may end within a character.
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    /// How many lines on stderr so far hold a text.
    pub fn said(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits until a line on stderr holds a text.
    pub async fn says(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), async || self.said(text) > 0).await;
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process is gone already")
    }

    /// Whether it has come to its end by itself.
    #[allow(dead_code, reason = "the histories use it")]
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn signal(&self, sent: Signal) {
        signal(&self.child, sent);
    }

    /// Sends a signal that ends the process, and holds it to the time it has for that.
    pub async fn stop(self, sent: Signal) -> Ran {
        let told = Instant::now();
        self.signal(sent);
        let ran = self.ended().await;
        let took = told.elapsed();
        assert!(took <= STOPS_WITHIN, "{took:?} from {sent:?} to the end: {ran:#?}");
        ran
    }

    /// Waits for the end; who waits for something for longer than this is told to stop.
    pub async fn ended_within(mut self, limit: Duration) -> Ran {
        if tokio::time::timeout(limit, self.child.wait()).await.is_err() {
            self.signal(Signal::TERM);
        }
        self.ended().await
    }

    /// Ends the process without a chance to tidy up.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub async fn ended(mut self) -> Ran {
        let ending = async {
            let status = self.child.wait().await.unwrap();
            (&mut self.stderr).await.unwrap();
            Ran {
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

impl World {
    /// A daemon whose log can be read while it runs.
    pub fn follow(&self, environment: &[(&str, &str)]) -> Process {
        Process::new(self.daemon(environment))
    }

    /// A daemon that looks for changes every second and has done its one full sync.
    pub async fn looking(&self, environment: &[(&str, &str)]) -> Process {
        let walked = "kind = 'full' AND ended_at IS NOT NULL AND outcome <> 'failed'";
        let before = self.runs(walked).await;
        let daemon = self.follow(&[&[NEVER, EVERY_SECOND], environment].concat());
        eventually("the first full sync", async || self.runs(walked).await > before).await;
        self.age_rows().await;
        daemon
    }

    /// The first requests of all looks so far that were answered.
    pub fn looks(&self) -> Vec<Request> {
        let mut log = self.sim.log();
        // Ten are what a full sync looks at for its watermark.
        log.retain(|request| {
            let is_first = request.path.contains("order_by=-updated_at") && request.path.ends_with("&offset=0");
            is_first && !request.path.contains("limit=10&") && request.status == 200
        });
        log
    }

    /// Waits for a look that begins after this moment and is done.
    pub async fn looked(&self) {
        let before = self.looks().len();
        // The first may be under way already, and the third begins when the second is done.
        eventually("three looks", async || self.looks().len() >= before + 3).await;
    }

    /// Waits until nothing that was asked for is under way.
    pub async fn all_is_answered(&self) {
        let mut answered = None;
        eventually("all is answered", async || {
            let (sent, log) = (self.sim.requests(), self.sim.log().len() as u64);
            sent == log && answered.replace(sent) == Some(sent)
        })
        .await;
    }

    /// Does something while these stand still, and nothing that they asked for is under way.
    pub async fn while_frozen(&self, daemons: &[&Process], happens: impl FnOnce()) {
        daemons.iter().for_each(|daemon| daemon.signal(Signal::STOP));
        self.all_is_answered().await;
        happens();
        daemons.iter().for_each(|daemon| daemon.signal(Signal::CONT));
    }

    /// A full sync under way.
    pub fn begin(&self, environment: &[(&str, &str)]) -> Process {
        let mut command = self.command(&["--once", "--format", "json"]);
        command.envs(environment.iter().copied());
        Process::spawn(command)
    }

    /// How many syncs a condition holds for; none where there is no schema yet.
    pub async fn runs(&self, condition: &str) -> i64 {
        let exists = "SELECT (to_regclass('clerk.sync_runs') IS NOT NULL)::int";
        match self.db.number(exists).await {
            0 => 0,
            _ => {
                self.db
                    .number(&format!("SELECT count(*) FROM clerk.sync_runs WHERE {condition}"))
                    .await
            }
        }
    }

    /// Waits until so many syncs have come to their end, failed ones aside.
    pub async fn syncs(&self, count: i64) {
        let condition = "ended_at IS NOT NULL AND outcome <> 'failed'";
        eventually(&format!("{count} syncs"), async || self.runs(condition).await >= count).await;
    }

    /// Waits for a sync that began after this moment, and holds the mirror against Clerk.
    pub async fn comes_in_step(&self) {
        let last = self.db.number("SELECT coalesce(max(id), 0) FROM clerk.sync_runs").await;
        let whole = format!("id > {last} AND outcome IN ('in_sync', 'changed')");
        eventually("a sync that began later", async || self.runs(&whole).await > 0).await;
        self.assert_in_step().await;
    }

    /// No two syncs were ever at work at once, and nobody holds the lease.
    pub async fn assert_one_at_a_time(&self) {
        let overlapping = "SELECT count(*) FROM clerk.sync_runs a JOIN clerk.sync_runs b
            ON a.id < b.id AND b.started_at < coalesce(a.ended_at, 'infinity') AND a.started_at < coalesce(b.ended_at, 'infinity')";
        assert_eq!(self.db.number(overlapping).await, 0, "syncs overlapped");
    }

    /// Waits until the mirror shows what Clerk has at this moment, whichever syncs bring it there, and they are over.
    pub async fn catches_up(&self) {
        let has_all = async || {
            let (mirror, ids) = (self.db.documents().await, self.sim.user_ids());
            let is_same = |id: &String| {
                let documents = mirror.get(id).cloned().zip(self.sim.document(id));
                documents.is_some_and(|(mirror, clerk)| comparable(mirror) == comparable(clerk))
            };
            mirror.len() == ids.len() && ids.iter().all(is_same) && self.runs("ended_at IS NULL").await == 0
        };
        eventually("the mirror catches up", has_all).await;
    }

    /// Who is named in the lease, run out or not.
    pub async fn lease_holder(&self) -> Option<String> {
        self.db
            .text("SELECT lease_holder FROM clerk.sync_state WHERE lease_holder IS NOT NULL")
            .await
    }

    pub async fn users(&self) -> i64 {
        self.db.number("SELECT count(*) FROM clerk.users").await
    }
}
