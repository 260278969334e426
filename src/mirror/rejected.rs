//! `clerk.rejected_users`: what could not be stored, and why.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{Error, Mirror, Rejected, encoding, read::timestamp, schema::rejected_users, session::Session};
use crate::user::Digest;

impl Mirror {
    /// Whether anybody is listed as rejected.
    pub async fn rejects(&self) -> Result<bool, Error> {
        let any = rejected_users::table.select(rejected_users::user_id);
        Ok(diesel::select(diesel::dsl::exists(any))
            .get_result(&mut self.connection().await?)
            .await?)
    }

    /// Who of these is listed as rejected, with the digest of which document.
    pub async fn rejected(&self, ids: &[String]) -> Result<HashMap<String, Option<Digest>>, Error> {
        let rows: Vec<(String, Option<Vec<u8>>)> = rejected_users::table
            .select((rejected_users::user_id, rejected_users::digest))
            .filter(rejected_users::user_id.eq_any(ids))
            .load(&mut self.connection().await?)
            .await?;
        let of_row = |digest: Vec<u8>| Some(Digest(digest.try_into().ok()?));
        let listed = rows.into_iter().map(|(id, digest)| (id, digest.and_then(of_row)));
        Ok(listed.collect())
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
pub(super) async fn reject(conn: &mut Session, rejected: &[Rejected]) -> QueryResult<()> {
    for user in rejected {
        let document = user.document.as_deref().map(|document| encoding::json(conn, document));
        let user_id = encoding::message(conn, &user.user_id);
        let reason = encoding::message(conn, &user.reason);
        let digest = user.digest.map(|digest| digest.0.to_vec());
        let created_at = user.created_at.map(timestamp);
        diesel::insert_into(rejected_users::table)
            .values((
                rejected_users::user_id.eq(&user_id),
                rejected_users::reason.eq(&reason),
                rejected_users::document.eq(&document),
                rejected_users::digest.eq(&digest),
                rejected_users::created_at.eq(created_at),
            ))
            .on_conflict(rejected_users::user_id)
            .do_update()
            .set((
                rejected_users::reason.eq(&reason),
                rejected_users::document.eq(&document),
                rejected_users::digest.eq(&digest),
                rejected_users::created_at.eq(created_at),
                rejected_users::last_seen_at.eq(diesel::dsl::now),
            ))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Takes `healed` off the list, those aside that are rejected again.
pub(super) async fn heal(conn: &mut Session, healed: &[String], rejected: &[Rejected]) -> QueryResult<()> {
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
