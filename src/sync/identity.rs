//! Which Clerk instance answers, and whether it is the one that the database mirrors.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{AskError, Carryover, Syncer};
use crate::{
    clerk,
    failure::{Cause, Failure},
    reconcile::walk::Walk,
};

/// Greatest age of Clerk's answer about its instance when users are written.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Greatest age of that answer when rows are deleted.
const MAX_AGE_FOR_DELETIONS: Duration = Duration::from_secs(1);

/// The pause before a server that does not know `/v1/instance` is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Users of the mirror that Clerk is asked for if it does not say which instance it is.
const KNOWN_USERS: usize = 20;

/// Whether the instance that answers is the mirrored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InstanceCheck {
    /// It is.
    Confirmed,
    /// The answer cannot be used, for this reason.
    Unclear(String),
}

/// Clerk's answer about its instance; the instance is `None` if the server has no such endpoint.
pub(super) struct InstanceAnswer {
    asked: Instant,
    answer: Result<Option<clerk::Instance>, clerk::Error>,
}

impl InstanceAnswer {
    /// Whether Clerk is asked once more before rows are deleted: the answer is old, or failed.
    pub(super) fn needs_repetition(&self) -> bool {
        let has_failed = matches!(&self.answer, Err(error) if !matches!(error, clerk::Error::KeyRefused(_)));
        has_failed || self.asked.elapsed() > MAX_AGE_FOR_DELETIONS
    }
}

/// A change of the instance that a database mirrors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repinned {
    /// The instance before; `None` if there was none.
    pub before: Option<String>,
    /// The instance from now on.
    pub after: String,
    /// Rows whose deletion is held from now on, until the new instance shows their users.
    pub held: u64,
}

/// Checks that a database may mirror an instance: it mirrors this one already, or none yet.
///
/// # Errors
/// It mirrors another instance.
pub(crate) fn same_instance(pinned: Option<&str>, instance: &str) -> Result<(), Failure> {
    match pinned {
        Some(pinned) if pinned != instance => Err(Failure::new(
            Cause::NeedsPerson,
            format!("this database mirrors the Clerk instance {pinned}, but the key belongs to {instance}"),
        )
        .hint(format!(
            "use that instance's key, or another database for this one; to mirror this instance here from now on, \
             run `clerk2pg repin {instance}`"
        ))),
        _ => Ok(()),
    }
}

impl Syncer {
    /// Asks which instance the key belongs to. If the server has no such endpoint, its address
    /// stands for the instance.
    async fn ask_instance(&self) -> Result<clerk::Instance, AskError> {
        if let Some(instance) = self.ask(self.clerk.instance()).await? {
            return Ok(instance);
        }
        // A wrong address answers everything with 404, and must not be mistaken for an emulator.
        self.ask(self.clerk.list(self.resource, &Walk::new().query(), 1))
            .await?;
        Ok(self.clerk.address_as_instance())
    }

    /// The instance to mirror. `pinned` is the one that the database mirrors already. A server that
    /// does not name its instance is taken for the pinned one if it knows users of the mirror.
    ///
    /// # Errors
    /// The key belongs to another instance, or is refused, or nothing is known of its instance.
    pub(super) async fn identify(&self, pinned: Option<&str>) -> Result<clerk::Instance, Failure> {
        let mut answer = self.ask_instance().await;
        // A single 404 may be an accident.
        let is_doubtful = |instance: &clerk::Instance| pinned != Some(&instance.id) && self.is_address(instance);
        if answer.as_ref().is_ok_and(is_doubtful) {
            self.pause(PAUSE).await?;
            answer = self.ask_instance().await;
        }
        let error = match answer {
            Ok(instance) if is_doubtful(&instance) && pinned.is_some() => {
                if self.knows_mirrored_users().await? {
                    return Ok(self.assume_pinned(pinned, "GET /v1/instance gave 404"));
                }
                same_instance(pinned, &instance.id)?;
                return Ok(instance);
            }
            Ok(instance) => {
                same_instance(pinned, &instance.id)?;
                if self.is_address(&instance) {
                    warn!("this server does not say which instance it is; its address is used instead");
                }
                return Ok(instance);
            }
            Err(AskError::Clerk(error)) => error,
            Err(error @ AskError::Stopped) => return Err(error.into()),
        };
        if matches!(error, clerk::Error::KeyRefused(_) | clerk::Error::RateLimited { .. }) {
            return Err(error.into());
        }
        match pinned {
            Some(_) if self.knows_mirrored_users().await? => Ok(self.assume_pinned(pinned, &error.to_string())),
            _ => Err(error.into()),
        }
    }

    /// Takes the server for the pinned instance, with a warning.
    fn assume_pinned(&self, pinned: Option<&str>, why: &str) -> clerk::Instance {
        warn!(
            error = why,
            "Clerk does not say which instance this is; users are synced, but none is deleted until it does"
        );
        clerk::Instance {
            id: pinned.unwrap_or_default().to_owned(),
            environment_type: String::new(),
        }
    }

    /// Checks before pinning that Clerk names the same instance a second time.
    ///
    /// # Errors
    /// It names another one, or does not answer.
    pub(super) async fn confirm_instance(&self, first: &clerk::Instance) -> Result<(), Failure> {
        if self.is_address(first) {
            self.pause(PAUSE).await?;
        }
        let second = self.ask_instance().await?;
        if second.id == first.id {
            return Ok(());
        }
        let message = format!(
            "Clerk gave two different answers about its instance: {}, then {}",
            first.id, second.id
        );
        Err(Failure::new(Cause::ClerkUnavailable, message)
            .hint("nothing is written until both answers are the same; try again later"))
    }

    /// Whether an instance stands for the server's address, because the server does not name one.
    fn is_address(&self, instance: &clerk::Instance) -> bool {
        instance.id == self.clerk.address_as_instance().id
    }

    /// Whether the server knows one of the newest users of the mirror. Ids are unique across all
    /// instances.
    async fn knows_mirrored_users(&self) -> Result<bool, Failure> {
        let ids = self.mirror.rows().newest_ids_except(&[], KNOWN_USERS).await?;
        if ids.is_empty() {
            return Ok(false);
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let page = self.ask(self.clerk.by_ids(self.resource, &ids)).await?;
        let mut shown = page.objects().iter().filter_map(|raw| raw.id.as_deref());
        Ok(shown.any(|id| ids.contains(&id)))
    }

    /// Asks once, without repetition, which instance answers.
    ///
    /// # Errors
    /// The sync is stopped.
    pub(super) async fn ask_instance_once(&self) -> Result<InstanceAnswer, AskError> {
        let asked = Instant::now();
        let answer = match self.ask(self.clerk.clone().asking_once().instance()).await {
            Ok(instance) => Ok(instance),
            Err(AskError::Clerk(error)) => Err(error),
            Err(AskError::Stopped) => return Err(AskError::Stopped),
        };
        Ok(InstanceAnswer { asked, answer })
    }

    /// Checks whether the instance that answered is the mirrored one.
    ///
    /// # Errors
    /// It is another one, or the key is refused.
    pub(super) fn check_instance(
        &self,
        answer: InstanceAnswer,
        carryover: &mut Carryover,
    ) -> Result<InstanceCheck, Failure> {
        let Some(known) = carryover.instance.clone() else {
            return Ok(InstanceCheck::Unclear("no full sync was done yet".to_owned()));
        };
        carryover.asked_instance = Some(answer.asked);
        let instance = match answer.answer {
            Ok(Some(instance)) => instance,
            Ok(None) if self.is_address(&known) => known.clone(),
            Ok(None) => return Ok(InstanceCheck::Unclear("GET /v1/instance gave 404".to_owned())),
            Err(error @ clerk::Error::KeyRefused(_)) => return Err(error.into()),
            Err(error) => return Ok(InstanceCheck::Unclear(error.to_string())),
        };
        if let Err(failure) = same_instance(Some(&known.id), &instance.id) {
            // No other sync runs until a full sync has found the mirrored instance again.
            carryover.instance = None;
            return Err(failure);
        }
        Ok(InstanceCheck::Confirmed)
    }

    /// Asks which instance answers before users are written, at most once a minute. If Clerk does
    /// not say it, users are written all the same, because that deletes none.
    ///
    /// # Errors
    /// As [`Self::check_instance`].
    pub(super) async fn check_instance_if_old(&self, carryover: &mut Carryover) -> Result<(), Failure> {
        if carryover.asked_instance.is_some_and(|at| at.elapsed() < MAX_AGE) {
            return Ok(());
        }
        let answer = self.ask_instance_once().await?;
        self.check_instance(answer, carryover).map(drop)
    }

    /// Makes the database mirror the key's instance from now on, if that is `instance`. Every row
    /// is held until the new instance shows its user.
    ///
    /// # Errors
    /// The key does not belong to `instance`, or the change could not be made.
    pub async fn repin(&self, instance: Option<&str>) -> Result<Repinned, Failure> {
        let asked = self.ask_instance().await?;
        self.confirm_instance(&asked).await?;
        let pinned = self.mirror.instance().id().await?;
        if pinned.as_deref() == Some(&asked.id) {
            return Ok(Repinned {
                before: pinned,
                after: asked.id,
                held: 0,
            });
        }
        if instance != Some(&asked.id) {
            let pinned = pinned.as_deref().unwrap_or("no Clerk instance");
            let message = match instance {
                Some(instance) => format!("the key belongs to the Clerk instance {}, not to {instance}", asked.id),
                None => format!("this database mirrors {pinned}, but the key belongs to {}", asked.id),
            };
            return Err(Failure::new(Cause::NeedsPerson, message).hint(format!(
                "to mirror this instance here from now on, run `clerk2pg repin {}`; rows of users that it does not know \
                 are then held as deletions to approve",
                asked.id
            )));
        }
        let lease = self.acquire_lease().await?;
        let instance = self.mirror.instance();
        let held = instance.repin(&lease, &asked.id, &asked.environment_type).await;
        self.mirror.leases().release(&lease).await?;
        Ok(Repinned {
            before: pinned,
            after: asked.id,
            held: held?,
        })
    }
}
