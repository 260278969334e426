//! Confirms that absent users are gone: Clerk is asked for each id alone, and for users that are
//! known to exist.

use super::{
    SyncContext,
    by_id::{ById, WITNESSES},
    identity::{InstanceAnswer, InstanceCheck},
};
use crate::failure::Failure;

/// What Clerk answered about each id alone.
pub(super) struct Confirmed {
    /// Ids that do not exist.
    pub(super) gone: Vec<String>,
    /// Clerk did not answer for all ids.
    pub(super) is_unclear: bool,
}

impl SyncContext<'_> {
    /// Confirms deletions by asking for each id alone, provided that users that are known to exist
    /// are found that way.
    pub(super) async fn confirm(&mut self, ids: &[String]) -> Result<Confirmed, Failure> {
        // If the list cannot be filtered, there are only the answers about single ids. They need
        // two witnesses.
        let least = if self.asks_one_by_one { 2 } else { 1 };
        // Side by side, as each costs a round trip.
        let (knows_users, answers) = tokio::join!(self.knows_users_by_id(least), self.syncer.each_by_id(ids));
        if !knows_users? {
            self.note("deletions could not be confirmed: users that are known to exist are not found by their id");
            return Ok(Confirmed {
                gone: Vec::new(),
                is_unclear: true,
            });
        }
        let (gone, unclear) = self.take_answers(answers?).await?;
        self.note_unclear(unclear, "deletion", "could not be confirmed");
        Ok(Confirmed {
            gone,
            is_unclear: unclear > 0,
        })
    }

    /// Whether at least `least` witnesses are found by their id. A server that finds no user by id
    /// confirms nothing. If there are no witnesses, a person has approved the deletions.
    async fn knows_users_by_id(&self, least: usize) -> Result<bool, Failure> {
        let mut witnesses: Vec<String> = Vec::new();
        for witness in self.witnesses.iter().rev() {
            if witnesses.len() < WITNESSES && !witnesses.contains(witness) {
                witnesses.push(witness.clone());
            }
        }
        let (first, others) = witnesses.split_at(least.min(witnesses.len()));
        let mut found = 0;
        for witnesses in [first, others] {
            let answers = self.syncer.each_by_id(witnesses).await?;
            found += answers
                .iter()
                .filter(|(_, answer)| matches!(answer, ById::Found(_)))
                .count();
            if found >= least {
                return Ok(true);
            }
        }
        Ok(self.witnesses.is_empty())
    }

    /// Whether the mirrored instance answers. The deletions wait while that is unclear.
    ///
    /// # Errors
    /// Another instance answers.
    pub(super) async fn is_mirrored_instance(&mut self, answer: InstanceAnswer) -> Result<bool, Failure> {
        let answer = match answer.needs_repetition() {
            true => self.syncer.ask_instance_once().await?,
            false => answer,
        };
        match self.syncer.check_instance(answer, self.carryover)? {
            InstanceCheck::Confirmed => Ok(true),
            InstanceCheck::Unclear(why) => {
                self.note(format!("deletions wait until Clerk says which instance this is: {why}"));
                Ok(false)
            }
        }
    }
}
