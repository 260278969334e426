//! Finds out what is wrong with a mapping, and tries its expressions on all users, without writing.

use std::{slice, time::Duration};

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    app_tables::AppTables,
    expression::MappedExpression,
    mapping::TableMapping,
    problems::Problem,
    state::stored_state,
    statements::{Projection, RESTORE_PATH, RESTRICT_PATH},
    trial::{Trial, join, refusal, try_mapping},
};
use crate::{
    humanize,
    mirror::{
        MirrorError,
        convert::unsigned,
        session::{Fault, Session},
        sqlstate::QUERY_CANCELED,
        write_failure::WriteFailure,
    },
};

/// Time limit for trying the expressions on all users.
const TRIAL_LIMIT: Duration = Duration::from_secs(8);

/// What was found about a mapping and its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInspection {
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// The users that have a row, if its expressions were tried on them.
    pub tried_on: Option<u64>,
}

#[derive(QueryableByName)]
struct CountsRow {
    #[diesel(sql_type = Array<BigInt>)]
    counts: Vec<i64>,
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = Nullable<Text>)]
    id: Option<String>,
}

impl AppTables {
    /// All mappings, of all resources.
    pub fn mappings(&self) -> &[TableMapping] {
        &self.0.mappings
    }

    /// Finds out what is wrong with a mapping and its table, without writing. With `has_mirror`,
    /// its statements are tried, and each of its expressions on all users.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn inspect(&self, mapping: &TableMapping, has_mirror: bool) -> Result<TableInspection, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            let limit = TRIAL_LIMIT.as_millis();
            conn.batch_execute(&format!(
                "SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {limit}"
            ))
            .await?;
            let Trial {
                mut problems,
                projection,
            } = match has_mirror {
                true => try_mapping(conn, mapping).await?,
                false => join(conn, mapping).await?,
            };
            let mut tried_on = None;
            if let Some(projection) = projection.filter(|_| has_mirror) {
                let (users, found) = projection.try_expressions(conn).await?;
                tried_on = Some(users);
                problems.extend(found);
                problems.extend(other_mapping(conn, mapping).await?);
            }
            Ok(TableInspection { problems, tried_on })
        })
        .await
    }
}

/// Returns a problem if the table agrees with another mapping than this one: another clerk2pg may have
/// another configuration.
async fn other_mapping(conn: &mut Session, mapping: &TableMapping) -> QueryResult<Option<Problem>> {
    let stored = stored_state(conn, mapping).await?.and_then(|row| row.mapping);
    Ok(stored.filter(|digest| *digest != mapping.digest()).map(|_| {
        Problem::advice(
            "the table agrees with another mapping than the one in this configuration",
            "reload the clerk2pg that runs, or wait for its next full sync; if it has another configuration, use one for both",
        )
    }))
}

impl Projection {
    /// Tries each expression on all users of the mirror. Returns the number of users that have a
    /// row, and what was found.
    async fn try_expressions(&self, conn: &mut Session) -> Result<(u64, Vec<Problem>), MirrorError> {
        let expressions = self.expressions();
        let together = self.count_values(conn, &expressions).await?;
        match &together {
            Ok(counts) => return Ok(self.judge(&expressions, counts)),
            Err(fault) if fault.sqlstate() == Some(QUERY_CANCELED) => {
                let message = format!(
                    "its expressions were not tried on all users within {} s",
                    TRIAL_LIMIT.as_secs()
                );
                return Ok((0, vec![Problem::advice(message, "ignore this if the mirror is large")]));
            }
            Err(_) => {}
        }
        let (mut users, mut problems) = (0, Vec::new());
        for expression in &expressions {
            match self.count_values(conn, slice::from_ref(expression)).await? {
                Ok(counts) => {
                    let (rows, found) = self.judge(slice::from_ref(expression), &counts);
                    users = rows;
                    problems.extend(found);
                }
                // It writes, as `nextval` does, or is slow. Only a sync can try it.
                Err(fault) if fault.is_read_only() || fault.sqlstate() == Some(QUERY_CANCELED) => {}
                Err(fault) => {
                    let user = self.first_failing(conn, expression).await?;
                    problems.push(self.refused(expression, fault, user));
                    // The others are tried on the users that the condition selects.
                    if expression.is_condition {
                        break;
                    }
                }
            }
        }
        Ok((users, problems))
    }

    /// Evaluates expressions for all users that have a row. Returns the number of users, and for
    /// each expression how often it is not `NULL`, and how often it is too long for its column.
    async fn count_values(
        &self,
        conn: &mut Session,
        expressions: &[MappedExpression],
    ) -> Result<Result<Vec<i64>, Fault>, MirrorError> {
        let sql = MappedExpression::count(expressions, self.source);
        let counted = conn.transaction(async |conn| {
            conn.batch_execute(RESTRICT_PATH).await?;
            let row: CountsRow = sql_query(sql).get_result(conn).await?;
            conn.batch_execute(RESTORE_PATH).await?;
            QueryResult::Ok(row.counts)
        });
        match counted.await {
            Ok(counts) => Ok(Ok(counts)),
            Err(error) => match Fault::of(error)? {
                fault if fault.ends_connection() => Err(fault.into()),
                fault => Ok(Err(fault)),
            },
        }
    }

    /// Returns the first user that an expression fails on, found by halving.
    async fn first_failing(
        &self,
        conn: &mut Session,
        expression: &MappedExpression,
    ) -> Result<Option<String>, MirrorError> {
        let source = self.source;
        let last: IdRow = sql_query(format!("SELECT pg_catalog.max(u.id) AS id FROM {source} AS u"))
            .get_result(conn)
            .await?;
        let (mut after, mut through) = (String::new(), last.id);
        while let Some(end) = &through {
            let IdRow { id: middle } = sql_query(format!(
                "SELECT u.id FROM {source} AS u WHERE u.id OPERATOR(pg_catalog.>) $1 AND u.id OPERATOR(pg_catalog.<=) $2
                 ORDER BY u.id LIMIT 1 OFFSET (
                     SELECT (pg_catalog.count(*) OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog./) 2 FROM {source} AS o
                     WHERE o.id OPERATOR(pg_catalog.>) $1 AND o.id OPERATOR(pg_catalog.<=) $2)",
            ))
            .bind::<Text, _>(&after)
            .bind::<Text, _>(end)
            .get_result(conn)
            .await?;
            let Some(middle) = middle.filter(|middle| middle != end) else {
                break;
            };
            let tried = conn.transaction(async |conn| {
                conn.batch_execute(RESTRICT_PATH).await?;
                sql_query(expression.count_in_range())
                    .bind::<Text, _>(&after)
                    .bind::<Text, _>(&middle)
                    .execute(conn)
                    .await?;
                conn.batch_execute(RESTORE_PATH).await?;
                Ok::<_, WriteFailure>(())
            });
            match refusal(tried.await)? {
                Some(_) => through = Some(middle),
                None => after = middle,
            }
        }
        Ok(through)
    }

    /// Returns the number of users, and what their values say: those of expressions that were counted.
    fn judge(&self, expressions: &[MappedExpression], counts: &[i64]) -> (u64, Vec<Problem>) {
        let Some((&users, counts)) = counts.split_first() else {
            return (0, Vec::new());
        };
        let mut advice = Vec::new();
        for (expression, counts) in expressions.iter().zip(counts.chunks_exact(2)) {
            let (nulls, long) = (users - counts[0], counts[1]);
            let place = &expression.place;
            if expression.is_not_null && nulls > 0 {
                advice.push(Problem::advice(
                    format!(
                        "{place} is NULL for {}, and the column must not be NULL",
                        self.count_of(nulls)
                    ),
                    format!("give {place} a value in any case, for example coalesce(…, '')"),
                ));
            }
            if let Some(length) = expression.length.as_ref().filter(|_| long > 0) {
                advice.push(Problem::advice(
                    format!("{place} is too long for {length} for {}", self.count_of(long)),
                    format!("shorten {place}, for example left(…, 64)"),
                ));
            }
        }
        (unsigned(users), advice)
    }

    fn count_of(&self, objects: i64) -> String {
        humanize::objects(unsigned(objects), self.mapping.from.resource())
    }
}
