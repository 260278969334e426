//! `clerk.rejected_users`: what could not be stored, and why.

use std::collections::HashSet;

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{Error, Mirror, Rejected, schema::rejected_users};

/// Most bytes of a rejected document that are kept.
const KEPT: usize = 64 << 10;

impl Mirror {
    /// Who is listed as rejected.
    pub async fn rejected(&self) -> Result<HashSet<String>, Error> {
        let ids: Vec<String> = rejected_users::table
            .select(rejected_users::user_id)
            .load(&mut self.connection().await?)
            .await?;
        Ok(ids.into_iter().collect())
    }

    /// Whose rows the application held back although they are gone from Clerk: the rejections without a document.
    pub async fn kept_rows(&self) -> Result<HashSet<String>, Error> {
        let ids: Vec<String> = rejected_users::table
            .select(rejected_users::user_id)
            .filter(rejected_users::document.is_null())
            .load(&mut self.connection().await?)
            .await?;
        Ok(ids.into_iter().collect())
    }
}

/// Lists users as rejected.
pub(super) async fn reject(conn: &mut AsyncPgConnection, rejected: &[Rejected]) -> QueryResult<()> {
    for user in rejected {
        let document = user.document.as_deref().map(kept);
        diesel::insert_into(rejected_users::table)
            .values((
                rejected_users::user_id.eq(&user.user_id),
                rejected_users::reason.eq(&user.reason),
                rejected_users::document.eq(document),
            ))
            .on_conflict(rejected_users::user_id)
            .do_update()
            .set((
                rejected_users::reason.eq(&user.reason),
                rejected_users::document.eq(document),
                rejected_users::last_seen_at.eq(diesel::dsl::now),
            ))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// The beginning of a document, cut between characters.
fn kept(document: &str) -> &str {
    &document[..document.floor_char_boundary(KEPT)]
}

/// Takes `healed` off the list, those aside that are rejected again.
pub(super) async fn heal(conn: &mut AsyncPgConnection, healed: &[String], rejected: &[Rejected]) -> QueryResult<()> {
    let healed: Vec<&String> = healed
        .iter()
        .filter(|id| !rejected.iter().any(|user| user.user_id == **id))
        .collect();
    if !healed.is_empty() {
        diesel::delete(rejected_users::table.filter(rejected_users::user_id.eq_any(healed)))
            .execute(conn)
            .await?;
    }
    Ok(())
}
