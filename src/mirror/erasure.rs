//! Erases what is stored of fields that are no longer to be stored.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Batch, Lease, MirrorError, Run, Write, apply,
    pool::ConnectionPool,
    tables::{resource_state, sync_state},
    transaction,
};
use crate::resource::{Digest, Exclusions, RESOURCES, Record, Resource, USERS, decode_stored};

/// Rows or events per transaction.
const PAGE: i64 = 500;

/// A digest that no document has: the next sync that reads the object stores it again.
const NO_DIGEST: Digest = Digest([0; 16]);

/// A change of the fields that are not stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExclusionChange {
    /// Fields that are no longer stored, and have to be erased.
    pub erased: Vec<String>,
    /// Fields that are stored again.
    pub returned: Vec<String>,
}

/// What an erasure did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Rows that had such a field.
    pub rows: u64,
    /// Events that had one.
    pub events: u64,
    /// Rows and events that Postgres refused to change. The next full sync tries again.
    pub left: u64,
}

/// The fields that are not stored, and the erasure of what is stored of them.
#[derive(Debug, Clone)]
pub struct Erasure(pub(super) ConnectionPool);

impl Erasure {
    /// Makes these the fields that are not stored, and makes full syncs of all resources due, which
    /// start over. Returns what has changed. What an earlier erasure has left is tried again by a full
    /// sync of users only: each attempt reads the tables of all resources.
    pub async fn begin(&self, lease: &Lease, excluded: &Exclusions) -> Result<ExclusionChange, MirrorError> {
        let mut conn = self.0.connection().await?;
        let (before, left): (Vec<String>, Vec<String>) = sync_state::table
            .select((sync_state::excluded, sync_state::erasing))
            .first(&mut conn)
            .await?;
        let (names, known) = (excluded.names(), Exclusions::new(&[&before[..], &left].concat()));
        let is_due = |name: &&String| !before.contains(name) || left.contains(name);
        let mut change = ExclusionChange {
            erased: names.iter().filter(is_due).cloned().collect(),
            returned: known
                .names()
                .iter()
                .filter(|name| !excluded.has(name))
                .cloned()
                .collect(),
        };
        if before == names && left == change.erased {
            if self.0.resource.name != USERS.name {
                change.erased.clear();
            }
            return Ok(change);
        }
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            diesel::update(sync_state::table)
                .set((sync_state::excluded.eq(names), sync_state::erasing.eq(&change.erased)))
                .execute(conn)
                .await?;
            diesel::update(resource_state::table)
                .set((
                    resource_state::checkpoint.eq(None::<serde_json::Value>),
                    resource_state::rereads.eq(true),
                ))
                .execute(conn)
                .await?;
            Ok(change)
        })
        .await
    }

    /// Erases these fields in all rows, events and rejected documents, also of resources that are no
    /// longer mirrored. Rows are written like those of other batches, but stay marked as deleted.
    pub async fn erase(&self, run: &Run, fields: &Exclusions) -> Result<Erased, MirrorError> {
        let mut erased = Erased::default();
        for resource in RESOURCES.into_iter().filter(|resource| fields.concern(resource)) {
            self.erase_rows(run, resource, fields, &mut erased).await?;
            self.erase_rejected(run.lease(), resource).await?;
        }
        self.erase_events(run.lease(), fields, &mut erased).await?;
        if erased.left == 0 {
            let mut conn = self.0.connection().await?;
            conn.transaction(async |conn| {
                transaction::begin(conn, run.lease()).await?;
                diesel::update(sync_state::table)
                    .set(sync_state::erasing.eq(Vec::<String>::new()))
                    .execute(conn)
                    .await?;
                Ok::<_, MirrorError>(())
            })
            .await?;
        }
        Ok(erased)
    }

    async fn erase_rows(
        &self,
        run: &Run,
        resource: &'static Resource,
        fields: &Exclusions,
        erased: &mut Erased,
    ) -> Result<(), MirrorError> {
        let (pool, run) = (self.0.of(resource), run.erasing(resource));
        let mut after = String::new();
        loop {
            let page = documents_after(&pool, &after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.id);
            let cut = page.iter().filter_map(|row| fields.remainder(resource, &row.document));
            let cut: Vec<String> = cut.collect();
            let records = cut.iter().map(|document| decode_stored(resource, document));
            let records: Vec<Option<Record<'_>>> = records.map(Result::ok).collect();
            let erase = records.iter().zip(&cut).filter_map(|(record, document)| {
                Some(Write {
                    record: record.as_ref()?,
                    changed: Vec::new(),
                    returns: false,
                    digest: NO_DIGEST,
                    document,
                })
            });
            let batch = Batch {
                erase: erase.collect(),
                ..Batch::default()
            };
            if batch.is_empty() {
                continue;
            }
            let mut conn = pool.connection().await?;
            // Boxed, so that the futures of callers do not contain its state.
            let committed = Box::pin(apply::apply(&mut conn, &run, &pool.upserts, &batch)).await?;
            let left = committed.rejected.len();
            erased.rows += (batch.erase.len() - left) as u64;
            erased.left += left as u64;
        }
    }

    /// Erases the fields in events, a page at a time, or event by event if a trigger or constraint of
    /// the application refuses one.
    async fn erase_events(&self, lease: &Lease, fields: &Exclusions, erased: &mut Erased) -> Result<(), MirrorError> {
        let mut after = 0;
        loop {
            let page = self.events_after(after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            let changed: Vec<(i64, String)> = page.iter().filter_map(|event| event.without(fields)).collect();
            match self.write_events(lease, &changed).await {
                Ok(()) => erased.events += changed.len() as u64,
                Err(MirrorError::Database(_)) => {
                    for event in &changed {
                        match self.write_events(lease, std::slice::from_ref(event)).await {
                            Ok(()) => erased.events += 1,
                            Err(MirrorError::Database(_)) => erased.left += 1,
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn events_after(&self, after: i64) -> Result<Vec<StoredEvent>, MirrorError> {
        Ok(sql_query(
            "SELECT id, resource, (payload -> 'data'::text)::text AS data FROM clerk.events
             WHERE id > $1 AND pg_catalog.jsonb_typeof(payload -> 'data'::text) = 'object'::text ORDER BY id LIMIT $2",
        )
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(PAGE)
        .load(&mut self.0.connection().await?)
        .await?)
    }

    async fn write_events(&self, lease: &Lease, events: &[(i64, String)]) -> Result<(), MirrorError> {
        if events.is_empty() {
            return Ok(());
        }
        let (ids, data): (Vec<i64>, Vec<&String>) = events.iter().map(|(id, data)| (*id, data)).unzip();
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            sql_query(
                "UPDATE clerk.events AS e SET payload = pg_catalog.jsonb_set(e.payload, '{data}'::text[], t.data::jsonb)
                 FROM unnest($1, $2) AS t(id, data) WHERE e.id = t.id",
            )
            .bind::<Array<BigInt>, _>(ids)
            .bind::<Array<Text>, _>(data)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Erases whole documents, because they may be cut off. The next full sync stores them again.
    async fn erase_rejected(&self, lease: &Lease, resource: &Resource) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            sql_query("UPDATE clerk.rejected SET document = 'null' WHERE resource = $1 AND document IS NOT NULL")
                .bind::<Text, _>(resource.name)
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }
}

#[derive(QueryableByName)]
struct StoredRow {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    document: String,
}

#[derive(QueryableByName)]
struct StoredEvent {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    resource: String,
    #[diesel(sql_type = Text)]
    data: String,
}

impl StoredEvent {
    /// Returns its id, and its document without the fields; `None` if it has none of them.
    fn without(&self, fields: &Exclusions) -> Option<(i64, String)> {
        let resource = RESOURCES.iter().find(|resource| resource.name == self.resource)?;
        Some((self.id, fields.remainder(resource, &self.data)?))
    }
}

/// Returns the documents after an id, also those of rows that are marked as deleted.
async fn documents_after(pool: &ConnectionPool, after: &str) -> Result<Vec<StoredRow>, MirrorError> {
    let Resource { table, document, .. } = pool.resource;
    let sql = format!(
        "SELECT u.id, {document}(u)::text AS document FROM {table} AS u WHERE u.id > $1 ORDER BY u.id LIMIT $2"
    );
    Ok(sql_query(sql)
        .bind::<Text, _>(after)
        .bind::<BigInt, _>(PAGE)
        .load(&mut pool.connection().await?)
        .await?)
}
