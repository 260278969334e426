//! Which Clerk instance answers, and whether it is the one that the database mirrors.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{Carryover, Syncer, stopped};
use crate::{
    clerk,
    failure::{Cause, Failure},
    reconcile::walk::Walk,
};

/// How old Clerk's answer about its instance may be when users are written.
const MAX_AGE: Duration = Duration::from_secs(60);

/// How old it may be when rows are deleted.
const MAX_AGE_OF_DELETIONS: Duration = Duration::from_secs(1);

/// How long a server that does not know `/v1/instance` is given before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// How many of the mirror's users Clerk is asked for where it does not say which instance it is.
const KNOWN: usize = 20;

/// What Clerk said of its instance a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// It is the one that the database mirrors.
    Confirmed,
    /// The answer could not be used, for this reason.
    Unclear(String),
}

/// Clerk's answer to the question which instance it is; none where it has no such endpoint.
pub(super) struct Told {
    asked: Instant,
    answer: Result<Option<clerk::Instance>, clerk::Error>,
}

impl Told {
    /// Whether Clerk is to be asked once more before anybody is deleted: the answer is old, or failed.
    pub(super) fn is_weak(&self) -> bool {
        let has_failed = matches!(&self.answer, Err(error) if !matches!(error, clerk::Error::KeyRefused(_)));
        has_failed || self.asked.elapsed() > MAX_AGE_OF_DELETIONS
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

/// Whether a database may mirror an instance: the one that it mirrors already, or any if there is none.
pub(crate) fn same_instance(pinned: Option<&str>, instance: &str) -> Result<(), Failure> {
    match pinned {
        Some(pinned) if pinned != instance => Err(Failure::new(
            Cause::NeedsPerson,
            format!("this database mirrors the Clerk instance {pinned}, but the key is of {instance}"),
        )
        .hint(format!(
            "use that instance's key, or another database for this one; to mirror this instance here from now on, \
             run `clerk2pg repin {instance}`"
        ))),
        _ => Ok(()),
    }
}

impl Syncer {
    /// Asks which instance the key belongs to. Where the server has no such endpoint, its address stands for the identity.
    async fn ask_instance(&self) -> Result<Result<clerk::Instance, clerk::Error>, Failure> {
        match self.or_stop_raw(self.clerk.instance()).await? {
            Ok(Some(instance)) => return Ok(Ok(instance)),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
        // A wrong address answers 404 to everything, and must not be taken for an emulator.
        if let Err(error) = self.or_stop_raw(self.clerk.list(&Walk::new().query(), 1)).await? {
            return Ok(Err(error));
        }
        Ok(Ok(self.clerk.address_as_instance()))
    }

    /// The instance to mirror, where `pinned` is the one that the database mirrors already. A server that does not say which
    /// one it is is taken for the pinned instance if it knows users of the mirror.
    ///
    /// # Errors
    /// The key belongs to another instance, or is refused, or nothing is known of its instance.
    pub(super) async fn identify(&self, pinned: Option<&str>) -> Result<clerk::Instance, Failure> {
        let mut told = self.ask_instance().await?;
        // One 404 may be an accident.
        let is_doubtful = |instance: &clerk::Instance| pinned != Some(&instance.id) && self.is_address(instance);
        if told.as_ref().is_ok_and(is_doubtful) {
            self.pause(PAUSE).await?;
            told = self.ask_instance().await?;
        }
        let error = match told {
            Ok(instance) if is_doubtful(&instance) && pinned.is_some() => {
                if self.knows_mirrored_users().await? {
                    return Ok(self.without_answer(pinned, "GET /v1/instance gave 404"));
                }
                same_instance(pinned, &instance.id)?;
                return Ok(instance);
            }
            Ok(instance) => {
                same_instance(pinned, &instance.id)?;
                if self.is_address(&instance) {
                    warn!("this server does not say which instance it is; its address is taken for it");
                }
                return Ok(instance);
            }
            Err(error @ (clerk::Error::KeyRefused(_) | clerk::Error::RateLimited { .. })) => return Err(error.into()),
            Err(error) => error,
        };
        match pinned {
            Some(_) if self.knows_mirrored_users().await? => Ok(self.without_answer(pinned, &error.to_string())),
            _ => Err(error.into()),
        }
    }

    /// The pinned instance, taken for the one that answers.
    fn without_answer(&self, pinned: Option<&str>, why: &str) -> clerk::Instance {
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
    pub(super) async fn identify_again(&self, first: &clerk::Instance) -> Result<(), Failure> {
        if self.is_address(first) {
            self.pause(PAUSE).await?;
        }
        let second = self.ask_instance().await?.map_err(Failure::from)?;
        if second.id == first.id {
            return Ok(());
        }
        let message = format!(
            "Clerk said twice which instance this is, and not the same: {}, then {}",
            first.id, second.id
        );
        Err(Failure::new(Cause::ClerkAway, message).hint("nothing is written until both answers are the same"))
    }

    fn is_address(&self, instance: &clerk::Instance) -> bool {
        instance.id == self.clerk.address_as_instance().id
    }

    /// Whether the server knows one of the newest users of the mirror. Ids are unique among all instances.
    async fn knows_mirrored_users(&self) -> Result<bool, Failure> {
        let ids = self.mirror.rows().newest_ids_except(&[], KNOWN).await?;
        if ids.is_empty() {
            return Ok(false);
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let page = self.or_stop(self.clerk.named(&ids)).await?;
        let mut shown = page.users().iter().filter_map(|raw| raw.id.as_deref());
        Ok(shown.any(|id| ids.contains(&id)))
    }

    /// Asks once which instance answers.
    pub(super) async fn ask_identity(&self) -> Result<Told, Failure> {
        Ok(Told {
            asked: Instant::now(),
            answer: self.or_stop_raw(self.clerk.clone().asking_once().instance()).await?,
        })
    }

    /// Whether the instance that answered is the mirrored one.
    ///
    /// # Errors
    /// It is another one, or the key is refused.
    pub(super) fn identity(&self, told: Told, carryover: &mut Carryover) -> Result<Identity, Failure> {
        let Some(known) = carryover.instance.clone() else {
            return Ok(Identity::Unclear("no full sync was done yet".to_owned()));
        };
        carryover.asked_instance = Some(told.asked);
        let told = match told.answer {
            Ok(Some(told)) => told,
            Ok(None) if self.is_address(&known) => known.clone(),
            Ok(None) => return Ok(Identity::Unclear("GET /v1/instance gave 404".to_owned())),
            Err(error @ clerk::Error::KeyRefused(_)) => return Err(error.into()),
            Err(error) => return Ok(Identity::Unclear(error.to_string())),
        };
        if let Err(failure) = same_instance(Some(&known.id), &told.id) {
            // Nothing else is done until a full sync has found the mirrored instance again.
            carryover.instance = None;
            return Err(failure);
        }
        Ok(Identity::Confirmed)
    }

    /// Asks which instance answers before users are written, once a minute at most. Users are written even if Clerk does not
    /// say it, because that deletes none.
    ///
    /// # Errors
    /// As [`Self::identity`].
    pub(super) async fn expect_instance(&self, carryover: &mut Carryover) -> Result<(), Failure> {
        if carryover.asked_instance.is_some_and(|at| at.elapsed() < MAX_AGE) {
            return Ok(());
        }
        let told = self.ask_identity().await?;
        self.identity(told, carryover).map(drop)
    }

    /// Makes the database mirror the key's instance from now on, if it is `instance`. Every row is held until the new
    /// instance shows its user.
    ///
    /// # Errors
    /// The key belongs to another instance than `instance`, or the change could not be made.
    pub async fn repin(&self, instance: Option<&str>) -> Result<Repinned, Failure> {
        let told = self.ask_instance().await?.map_err(Failure::from)?;
        self.identify_again(&told).await?;
        let pinned = self.mirror.instance().id().await?;
        if pinned.as_deref() == Some(&told.id) {
            return Ok(Repinned {
                before: pinned,
                after: told.id,
                held: 0,
            });
        }
        if instance != Some(&told.id) {
            let pinned = pinned.as_deref().unwrap_or("no Clerk instance");
            let message = match instance {
                Some(instance) => format!("the key is of the Clerk instance {}, not of {instance}", told.id),
                None => format!("this database mirrors {pinned}, and the key is of {}", told.id),
            };
            return Err(Failure::new(Cause::NeedsPerson, message).hint(format!(
                "to mirror this instance here from now on, run `clerk2pg repin {}`; rows of users that it does not know \
                 are then held, as deletions to approve",
                told.id
            )));
        }
        let lease = self.acquire_lease().await?;
        let held = self
            .mirror
            .instance()
            .repin(&lease, &told.id, &told.environment_type)
            .await;
        self.mirror.leases().release(&lease).await?;
        Ok(Repinned {
            before: pinned,
            after: told.id,
            held: held?,
        })
    }

    /// Waits, but not when the sync shall stop.
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = self.stop.cancelled() => Err(stopped()),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
