//! Fields that the mirror does not store: which they are, and the erasure of what is stored of them.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Lease, MirrorError,
    pool::ConnectionPool,
    session::Session,
    tables::{resource_state, sync_state},
    transaction,
};
use crate::resource::{Exclusions, RESOURCES, Resource};

/// Rows or events per transaction.
const PAGE: i64 = 5_000;

/// A digest that no document has.
const NO_DIGEST: &str = "pg_catalog.decode('00000000000000000000000000000000'::text, 'hex'::text)";

/// A change of the fields that are not stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExclusionChange {
    /// Fields that are no longer stored.
    pub erased: Vec<String>,
    /// Fields that are stored again.
    pub returned: Vec<String>,
    /// Rows that had such a field.
    pub rows: u64,
    /// Events that had one.
    pub events: u64,
}

/// Fields that the mirror does not store.
#[derive(Debug, Clone)]
pub struct ExcludedFields(pub(super) ConnectionPool);

impl ExcludedFields {
    /// Makes these the fields that are not stored. Erases them in all tables, and makes the walks of
    /// all resources start over. Returns what has changed; `None` if these are the fields already.
    ///
    /// Rows that had such a field count as changed at Clerk, so that the next full sync stores what is
    /// derived from the other fields, and all of them if a field is to be stored again.
    pub async fn set(&self, lease: &Lease, excluded: &Exclusions) -> Result<Option<ExclusionChange>, MirrorError> {
        let before: Vec<String> = sync_state::table
            .select(sync_state::excluded)
            .first(&mut self.0.connection().await?)
            .await?;
        if before == excluded.names() {
            return Ok(None);
        }
        let added = excluded.names().iter().filter(|name| !before.contains(name));
        let returned = before.iter().filter(|name| !excluded.names().contains(name));
        let mut change = ExclusionChange {
            erased: added.cloned().collect(),
            returned: returned.cloned().collect(),
            ..ExclusionChange::default()
        };
        if !change.erased.is_empty() {
            // If this process ends before the last transaction, what is erased already is missing.
            let both: Vec<String> = before.iter().chain(&change.erased).cloned().collect();
            self.record(lease, &both).await?;
            let erased = Exclusions::new(&change.erased);
            for resource in RESOURCES {
                change.rows += self.erase_rows(lease, resource, &erased).await?;
                change.events += self.erase_in_events(lease, resource, &erased).await?;
                self.erase_rejected_documents(lease, resource).await?;
            }
        }
        self.record(lease, excluded.names()).await?;
        Ok(Some(change))
    }

    async fn record(&self, lease: &Lease, names: &[String]) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            diesel::update(sync_state::table)
                .set(sync_state::excluded.eq(names))
                .execute(conn)
                .await?;
            diesel::update(resource_state::table)
                .set(resource_state::checkpoint.eq(None::<serde_json::Value>))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn erase_rows(&self, lease: &Lease, resource: &Resource, erased: &Exclusions) -> Result<u64, MirrorError> {
        let (sets, conditions) = assignments(resource, erased);
        if sets.is_empty() {
            return Ok(0);
        }
        let table = resource.table;
        let page = format!(
            "SELECT pg_catalog.max(id) AS last FROM (SELECT id FROM {table} WHERE id > $1 ORDER BY id LIMIT $2) AS page"
        );
        let erase = format!(
            "UPDATE {table} SET {sets}, digest = {NO_DIGEST},
                 absent = ARRAY(SELECT DISTINCT name FROM pg_catalog.unnest(coalesce(absent, '{{}}'::text[]) || $3) AS name ORDER BY name),
                 unexpected = nullif(ARRAY(SELECT name FROM pg_catalog.unnest(unexpected) AS name WHERE name <> ALL ($3)), '{{}}'::text[]),
                 extra = nullif(extra - $3, '{{}}'::jsonb)
             WHERE id > $1 AND id <= $2 AND ({conditions} OR pg_catalog.jsonb_exists_any(extra, $3))",
            sets = sets.join(", "),
            conditions = conditions.join(" OR "),
        );
        let own: Vec<&str> = own_fields(resource, erased).collect();
        let (mut rows, mut after) = (0, String::new());
        let mut conn = self.0.connection().await?;
        loop {
            let (last, erased) = conn
                .transaction(async |conn| {
                    transaction::begin_for(conn, lease, Some(resource), false).await?;
                    let LastId { last } = sql_query(&page)
                        .bind::<Text, _>(&after)
                        .bind::<BigInt, _>(PAGE)
                        .get_result(conn)
                        .await?;
                    let Some(last) = last else {
                        return Ok::<_, MirrorError>((None, 0));
                    };
                    let count = sql_query(&erase)
                        .bind::<Text, _>(&after)
                        .bind::<Text, _>(&last)
                        .bind::<Array<Text>, _>(&own)
                        .bind::<Array<Text>, _>(erased.in_excerpts())
                        .execute(conn)
                        .await?;
                    Ok((Some(last), count as u64))
                })
                .await?;
            rows += erased;
            match last {
                Some(last) => after = last,
                None => return Ok(rows),
            }
        }
    }

    async fn erase_in_events(
        &self,
        lease: &Lease,
        resource: &Resource,
        erased: &Exclusions,
    ) -> Result<u64, MirrorError> {
        let erase = format!(
            "UPDATE clerk.events SET payload = pg_catalog.jsonb_set(payload, '{{data}}'::text[], {data})
             WHERE id > $1 AND id <= $2 AND resource = $5 AND pg_catalog.jsonb_typeof(payload -> 'data'::text) = 'object'::text
               AND payload -> 'data'::text <> {data}",
            data = data_without(resource, erased),
        );
        let (mut events, mut after) = (0, 0);
        let mut conn = self.0.connection().await?;
        loop {
            let (last, count) = conn
                .transaction(async |conn| {
                    transaction::begin(conn, lease).await?;
                    let last = last_event(conn, resource, after).await?;
                    let Some(last) = last else {
                        return Ok::<_, MirrorError>((None, 0));
                    };
                    let count = sql_query(&erase)
                        .bind::<BigInt, _>(after)
                        .bind::<BigInt, _>(last)
                        .bind::<Array<Text>, _>(erased.names())
                        .bind::<Array<Text>, _>(erased.in_excerpts())
                        .bind::<Text, _>(resource.name)
                        .execute(conn)
                        .await?;
                    Ok((Some(last), count as u64))
                })
                .await?;
            events += count;
            match last {
                Some(last) => after = last,
                None => return Ok(events),
            }
        }
    }

    /// Erases whole documents, because they may be cut off. The next full sync stores them again.
    async fn erase_rejected_documents(&self, lease: &Lease, resource: &Resource) -> Result<(), MirrorError> {
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
struct LastId {
    #[diesel(sql_type = Nullable<Text>)]
    last: Option<String>,
}

#[derive(QueryableByName)]
struct LastEvent {
    #[diesel(sql_type = Nullable<BigInt>)]
    last: Option<i64>,
}

/// Returns the id of the last event of the page after an id.
async fn last_event(conn: &mut Session, resource: &Resource, after: i64) -> QueryResult<Option<i64>> {
    let LastEvent { last } = sql_query(
        "SELECT pg_catalog.max(id) AS last FROM (
             SELECT id FROM clerk.events WHERE id > $1 AND resource = $2 ORDER BY id LIMIT $3) AS page",
    )
    .bind::<BigInt, _>(after)
    .bind::<Text, _>(resource.name)
    .bind::<BigInt, _>(PAGE)
    .get_result(conn)
    .await?;
    Ok(last)
}

/// Returns the fields of a resource that become empty.
fn own_fields<'e>(resource: &'e Resource, erased: &'e Exclusions) -> impl Iterator<Item = &'e str> {
    let is_kept = |name: &str| resource.link.is_some_and(|(excerpt, _)| excerpt == name);
    let fields = resource.fields.iter().map(|field| field.name);
    fields.filter(move |name| erased.has(name) && !is_kept(name))
}

/// Returns what an update of a resource's table sets, and the conditions under which a row has
/// something to erase. `$4` are the keys that are left out of excerpts.
fn assignments(resource: &Resource, erased: &Exclusions) -> (Vec<String>, Vec<String>) {
    let derived = resource.derived.columns.iter();
    let derived = derived.filter(|column| column.from.iter().any(|field| erased.has(field)));
    let emptied = own_fields(resource, erased).chain(derived.map(|column| column.name));
    let (mut sets, mut conditions): (Vec<_>, Vec<_>) = emptied
        .map(|name| (format!("{name} = NULL"), format!("{name} IS NOT NULL")))
        .unzip();
    for name in resource.excerpts {
        let is_stored = resource.fields.iter().any(|field| field.name == *name);
        if let Some(left) = excerpt_without(resource, name, name, erased).filter(|_| is_stored) {
            conditions.push(format!("{name} IS DISTINCT FROM {left}"));
            sets.push(format!("{name} = {left}"));
        }
    }
    (sets, conditions)
}

/// Returns what is left of an excerpt in an SQL expression; `None` if nothing is.
fn excerpt_without(resource: &Resource, key: &str, json: &str, erased: &Exclusions) -> Option<String> {
    let is_object = format!("pg_catalog.jsonb_typeof({json}) = 'object'::text");
    match resource.link.filter(|(linked, _)| *linked == key) {
        _ if !erased.has(key) => Some(format!("CASE WHEN {is_object} THEN {json} - $4 ELSE {json} END")),
        Some((_, part)) => Some(format!(
            "CASE WHEN {is_object} AND pg_catalog.jsonb_exists({json}, '{part}'::text)
                 THEN pg_catalog.jsonb_build_object('{part}', {json} -> '{part}'::text) END"
        )),
        None => None,
    }
}

/// Returns what is left of an event's document. `$3` are the fields that are left out.
fn data_without(resource: &Resource, erased: &Exclusions) -> String {
    let mut data = "(payload -> 'data'::text) - $3".to_owned();
    for key in resource.excerpts {
        let excerpt = format!("(payload #> '{{data,{key}}}'::text[])");
        if let Some(left) = excerpt_without(resource, key, &excerpt, erased) {
            data += &format!(
                " || CASE WHEN {excerpt} IS NULL THEN '{{}}'::jsonb ELSE pg_catalog.jsonb_build_object('{key}', {left}) END"
            );
        }
    }
    format!("({data})")
}
