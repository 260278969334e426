//! Where Clerk has objects that are found by their organization.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Bool, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{MirrorError, rows::Rows, tables::rejected_objects};
use crate::resource::{Confirm, Place, Resource, decode};

#[derive(QueryableByName)]
struct PlaceRow {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Nullable<Text>)]
    organization_id: Option<String>,
    #[diesel(sql_type = Bool)]
    has_organization: bool,
    #[diesel(sql_type = Nullable<Text>)]
    user_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    witness: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    witness_user: Option<String>,
}

/// The organization and the user that a rejected document names.
type Named = (Option<String>, Option<String>);

impl Rows {
    /// Returns where Clerk has objects, as far as their rows or their rejected documents say it. Of
    /// other ids, nothing else is known.
    pub async fn places(&self, ids: &[String]) -> Result<Vec<Place>, MirrorError> {
        let Resource {
            name, table, confirm, ..
        } = self.0.resource;
        let (user_id, witness) = match confirm {
            Confirm::ById { .. } => return Ok(ids.iter().map(|id| Place::of(id)).collect()),
            Confirm::InOrganization { .. } => ("NULL::text", "SELECT NULL::text AS id, NULL::text AS user_id".to_owned()),
            // Those who are asked about themselves, or are missing, prove nothing.
            Confirm::Member => (
                "coalesce(t.user_id, i.user_id)",
                format!(
                    "SELECT w.id, w.user_id FROM {table} AS w
                     WHERE w.organization_id = g.organization_id AND w.deleted_at IS NULL AND w.user_id IS NOT NULL
                       AND NOT EXISTS (SELECT FROM given AS x WHERE x.id = w.id)
                       AND NOT EXISTS (SELECT FROM clerk.missing AS m WHERE m.resource = '{name}' AND m.object_id = w.id)
                     ORDER BY w.created_at DESC LIMIT 1"
                ),
            ),
        };
        // One witness for each organization, however many of its members are asked about.
        let sql = format!(
            "WITH given AS MATERIALIZED (
                 SELECT i.id, coalesce(t.organization_id, i.organization_id) AS organization_id, {user_id} AS user_id
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) AS i(id, organization_id, user_id)
                 LEFT JOIN {table} AS t ON t.id = i.id),
             witnesses AS MATERIALIZED (
                 SELECT g.organization_id, w.id, w.user_id
                 FROM (SELECT DISTINCT organization_id FROM given) AS g, LATERAL ({witness}) AS w)
             SELECT g.id, g.organization_id, o.id IS NOT NULL AS has_organization, g.user_id, w.id AS witness, w.user_id AS witness_user
             FROM given AS g
             LEFT JOIN clerk.organizations AS o ON o.id = g.organization_id AND o.deleted_at IS NULL
                 -- One whose row the application keeps is known to be gone.
                 AND NOT EXISTS (SELECT FROM clerk.rejected AS k WHERE k.resource = 'organizations' AND k.object_id = o.id
                                   AND k.document IS NULL AND k.sqlstate IS DISTINCT FROM '55P03')
             LEFT JOIN witnesses AS w ON w.organization_id = g.organization_id"
        );
        let mut named = self.named_by_rejected(ids).await?;
        let (organizations, users): (Vec<_>, Vec<_>) =
            ids.iter().map(|id| named.remove(id).unwrap_or_default()).unzip();
        let rows: Vec<PlaceRow> = sql_query(sql)
            .bind::<Array<Text>, _>(ids)
            .bind::<Array<Nullable<Text>>, _>(organizations)
            .bind::<Array<Nullable<Text>>, _>(users)
            .load(&mut self.0.connection().await?)
            .await?;
        let place = |row: PlaceRow| Place {
            id: row.id,
            organization_id: row.organization_id,
            has_organization: row.has_organization,
            user_id: row.user_id,
            witness: row.witness.zip(row.witness_user),
        };
        Ok(rows.into_iter().map(place).collect())
    }

    async fn named_by_rejected(&self, ids: &[String]) -> Result<HashMap<String, Named>, MirrorError> {
        let resource = self.0.resource;
        let documents: Vec<(String, Option<String>)> = rejected_objects::table
            .filter(rejected_objects::resource.eq(resource.name))
            .filter(rejected_objects::object_id.eq_any(ids))
            .filter(rejected_objects::document.is_not_null())
            .select((rejected_objects::object_id, rejected_objects::document))
            .load(&mut self.0.connection().await?)
            .await?;
        let named = documents.into_iter().filter_map(|(id, document)| {
            let document = document?;
            let record = decode(resource, &document).ok()?;
            let text = |name| record.text(name).map(str::to_owned);
            Some((id, (text("organization_id"), text("user_id"))))
        });
        Ok(named.collect())
    }
}
