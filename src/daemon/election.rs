//! Decides which of several daemons leads. The others stand by: they send Clerk no requests, and
//! take over when the leader stops, vanishes, or fails for long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};
use tracing::{debug, info, warn};

use crate::{
    failure::Failure,
    mirror::{LeaderState, Leadership, MirrorError, Wait},
    watch::Watch,
};

/// How long leaving may take: an unavailable database must not keep the daemon from ending.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// This daemon's part in the election.
pub(super) struct Election {
    candidate: Candidate,
    role: watch::Receiver<Role>,
    /// The task that takes part; it ends when this is dropped.
    task: JoinSet<()>,
}

/// The role of this daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// This daemon leads.
    Leader,
    /// Another daemon leads; `None` if it is not yet known which.
    Standby(Option<String>),
}

/// What this daemon takes part with.
#[derive(Clone)]
pub(super) struct Candidate {
    /// Over a separate connection: a running sync must not keep its leader from showing that it is
    /// alive.
    leadership: Leadership,
    holder: String,
    ttl: Duration,
    watch: Watch,
    /// Whether syncs have failed for so long that another daemon should try.
    is_failing: Arc<AtomicBool>,
}

impl Candidate {
    /// Creates a candidate. A leader that is silent for longer than `ttl` loses its role.
    pub(super) fn new(leadership: Leadership, holder: String, ttl: Duration, watch: Watch) -> Self {
        Self {
            leadership,
            holder,
            ttl,
            watch,
            is_failing: Arc::default(),
        }
    }
}

impl Election {
    /// Takes the lead if it is free, else stands by. A task keeps taking part.
    pub(super) async fn start(candidate: Candidate) -> Result<Self, Failure> {
        let first = match candidate.leadership.lead(&candidate.holder, candidate.ttl).await? {
            true => Role::Leader,
            false => Role::Standby(None),
        };
        candidate.watch.set_leader(first == Role::Leader);
        let (sender, role) = watch::channel(first);
        let mut task = JoinSet::new();
        task.spawn(take_part(candidate.clone(), sender));
        Ok(Self { candidate, role, task })
    }

    /// Returns the current role.
    pub(super) fn role(&self) -> Role {
        self.role.borrow().clone()
    }

    /// Returns a receiver of the role.
    pub(super) fn roles(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Whether this daemon leads.
    pub(super) fn is_leader(&self) -> bool {
        *self.role.borrow() == Role::Leader
    }

    /// Waits until the role changes, and returns it.
    pub(super) async fn role_changed(&mut self) -> Role {
        if self.role.changed().await.is_err() {
            // The task ends only together with this election.
            std::future::pending::<()>().await;
        }
        self.role.borrow_and_update().clone()
    }

    /// Sets since when syncs fail; `None` if they succeed.
    pub(super) fn set_failing_since(&self, since: Option<Instant>) {
        let is_failing = since.is_some_and(|since| since.elapsed() >= self.candidate.ttl);
        self.candidate.is_failing.store(is_failing, Ordering::Relaxed);
    }

    /// Leaves, so that another daemon can take over at once.
    pub(super) async fn leave(mut self) {
        self.task.shutdown().await;
        let Candidate { leadership, holder, .. } = &self.candidate;
        match tokio::time::timeout(LEAVE_TIMEOUT, leadership.resign(holder)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "cannot leave the election; others take over when the lease ends"),
            Err(_) => debug!("cannot leave the election; others take over when the lease ends"),
        }
    }
}

/// Keeps leading or standing by, until the task is dropped.
async fn take_part(candidate: Candidate, role: watch::Sender<Role>) {
    let mut failed = false;
    loop {
        let is_leader = *role.borrow() == Role::Leader;
        let result = match is_leader {
            true => candidate.keep_leading(&role).await,
            false => candidate.stand_by(&role).await,
        };
        let pause = match result {
            Ok(pause) => {
                failed = false;
                pause
            }
            Err(error) => {
                // The syncs of a leader report the same error.
                if !is_leader {
                    candidate.watch.election_failed(&error.to_string());
                    if !std::mem::replace(&mut failed, true) {
                        warn!(%error, "cannot find out whether the leader is alive; this daemon cannot take over until it can");
                    }
                }
                candidate.ttl / 6
            }
        };
        tokio::time::sleep(pause).await;
    }
}

impl Candidate {
    /// Renews the lead. Returns the pause until the next renewal.
    async fn keep_leading(&self, role: &watch::Sender<Role>) -> Result<Duration, MirrorError> {
        // A loop that hangs must not lead.
        if !self.watch.alive().is_ok {
            return Ok(self.ttl / 3);
        }
        match self.leadership.keep(&self.holder, self.ttl).await? {
            // A new standby waits for the time of a lease before it takes over.
            LeaderState::Alone => Ok(self.ttl / 2),
            LeaderState::Watched if self.is_failing.swap(false, Ordering::Relaxed) => {
                self.leadership.resign(&self.holder).await?;
                warn!("syncs keep failing here; another clerk2pg may lead");
                self.set_role(role, Role::Standby(None));
                // The others go first.
                Ok(self.ttl)
            }
            LeaderState::Watched => Ok(self.ttl / 3),
            LeaderState::Lost => {
                self.set_role(role, Role::Standby(None));
                Ok(Duration::ZERO)
            }
        }
    }

    /// Shows that this daemon stands by, and takes over if the leader is gone. Returns the pause
    /// until the next time.
    async fn stand_by(&self, role: &watch::Sender<Role>) -> Result<Duration, MirrorError> {
        let Wait { leader, remaining } = self.leadership.stand_by(&self.holder, self.ttl).await?;
        if remaining.is_zero() && self.leadership.lead(&self.holder, self.ttl).await? {
            info!(before = leader, "this daemon leads now");
            self.set_role(role, Role::Leader);
            return Ok(self.ttl / 3);
        }
        if let Some(leader) = leader {
            self.watch.set_standby_of(&leader);
            let is_known = matches!(&*role.borrow(), Role::Standby(Some(known)) if *known == leader);
            if !is_known {
                info!(leader, "standing by");
                self.set_role(role, Role::Standby(Some(leader)));
            }
        }
        Ok(remaining.clamp(Duration::from_millis(20), self.ttl / 3))
    }

    fn set_role(&self, sender: &watch::Sender<Role>, role: Role) {
        self.watch.set_leader(role == Role::Leader);
        sender.send_replace(role);
    }
}
