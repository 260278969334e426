//! Which of several daemons leads. The others stand by: they ask Clerk nothing, and take over when the leader stops, vanishes, or fails for long.

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
    mirror::{Error, LeaderState, Leadership, Wait},
    watch::Watch,
};

/// How long leaving may take: a database that is away must not keep the daemon from ending.
const FAREWELL: Duration = Duration::from_secs(1);

/// This daemon's part in it.
pub(super) struct Election {
    candidate: Candidate,
    place: watch::Receiver<Place>,
    /// Ends with it.
    taking_part: JoinSet<()>,
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// This one leads.
    Leads,
    /// Another one does; none where it is not known yet which.
    Follows(Option<String>),
}

/// Who may lead.
#[derive(Clone)]
pub(super) struct Candidate {
    /// With a connection of its own: a sync at work must not keep its own leader from being seen.
    leadership: Leadership,
    holder: String,
    ttl: Duration,
    watch: Watch,
    /// Syncs have failed for so long that another one may have more luck.
    is_failing: Arc<AtomicBool>,
}

impl Candidate {
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
    /// Leads, or else stands by from now on.
    pub(super) async fn begin(candidate: Candidate) -> Result<Self, Failure> {
        let first = match candidate.leadership.lead(&candidate.holder, candidate.ttl).await? {
            true => Place::Leads,
            false => Place::Follows(None),
        };
        candidate.watch.leads(first == Place::Leads);
        let (tell, place) = watch::channel(first);
        let mut taking_part = JoinSet::new();
        taking_part.spawn(take_part(candidate.clone(), tell));
        Ok(Self {
            candidate,
            place,
            taking_part,
        })
    }

    pub(super) fn place(&self) -> Place {
        self.place.borrow().clone()
    }

    pub(super) fn leads(&self) -> bool {
        *self.place.borrow() == Place::Leads
    }

    /// Waits until this one begins to lead, or to follow another one.
    pub(super) async fn moves(&mut self) -> Place {
        if self.place.changed().await.is_err() {
            // The task ends with us alone.
            std::future::pending::<()>().await;
        }
        self.place.borrow_and_update().clone()
    }

    /// Syncs fail, since then; or do not.
    pub(super) fn fails_since(&self, since: Option<Instant>) {
        let is_failing = since.is_some_and(|since| since.elapsed() >= self.candidate.ttl);
        self.candidate.is_failing.store(is_failing, Ordering::Relaxed);
    }

    /// Leaves, so that others need not wait.
    pub(super) async fn leave(mut self) {
        self.taking_part.shutdown().await;
        let Candidate { leadership, holder, .. } = &self.candidate;
        match tokio::time::timeout(FAREWELL, leadership.resign(holder)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "others will notice by themselves"),
            Err(_) => debug!("others will notice by themselves"),
        }
    }
}

async fn take_part(candidate: Candidate, place: watch::Sender<Place>) {
    let mut failed = false;
    loop {
        let leads = *place.borrow() == Place::Leads;
        let result = match leads {
            true => candidate.keep_leading(&place).await,
            false => candidate.stand_by(&place).await,
        };
        let pause = match result {
            Ok(pause) => {
                failed = false;
                pause
            }
            Err(error) => {
                // The syncs of a leader say it themselves.
                if !leads {
                    candidate.watch.loses_sight(&error.to_string());
                    if !std::mem::replace(&mut failed, true) {
                        warn!(%error, "cannot see whether the leader is there; this one cannot take over meanwhile");
                    }
                }
                candidate.ttl / 6
            }
        };
        tokio::time::sleep(pause).await;
    }
}

impl Candidate {
    async fn keep_leading(&self, place: &watch::Sender<Place>) -> Result<Duration, Error> {
        // A loop that is stuck does not lead.
        if !self.watch.alive().is_good {
            return Ok(self.ttl / 3);
        }
        match self.leadership.keep(&self.holder, self.ttl).await? {
            // Whoever comes has the time of a lease before it counts on nobody being here.
            LeaderState::Alone => Ok(self.ttl / 2),
            LeaderState::Watched if self.is_failing.swap(false, Ordering::Relaxed) => {
                self.leadership.resign(&self.holder).await?;
                warn!("syncs keep failing here; another clerk2pg may lead");
                self.take(place, Place::Follows(None));
                // The others get their turn first.
                Ok(self.ttl)
            }
            LeaderState::Watched => Ok(self.ttl / 3),
            LeaderState::Lost => {
                self.take(place, Place::Follows(None));
                Ok(Duration::ZERO)
            }
        }
    }

    async fn stand_by(&self, place: &watch::Sender<Place>) -> Result<Duration, Error> {
        let Wait { leader, remaining } = self.leadership.stand_by(&self.holder, self.ttl).await?;
        if remaining.is_zero() && self.leadership.lead(&self.holder, self.ttl).await? {
            info!(before = leader, "this one leads now");
            self.take(place, Place::Leads);
            return Ok(self.ttl / 3);
        }
        if let Some(leader) = leader {
            self.watch.follows(&leader);
            let is_known = matches!(&*place.borrow(), Place::Follows(Some(known)) if *known == leader);
            if !is_known {
                info!(leader, "standing by");
                self.take(place, Place::Follows(Some(leader)));
            }
        }
        Ok(remaining.clamp(Duration::from_millis(20), self.ttl / 3))
    }

    fn take(&self, place: &watch::Sender<Place>, now: Place) {
        self.watch.leads(now == Place::Leads);
        place.send_replace(now);
    }
}
