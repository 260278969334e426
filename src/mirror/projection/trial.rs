//! Tries the statements of a mapping without executing them.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    expression::MappedExpression,
    mapping::TableMapping,
    problems::{Problem, problems},
    shape::{TableName, TableShape},
    statements::{Projection, RESTORE_PATH, RESTRICT_PATH, Scope},
};
use crate::mirror::{
    MirrorError,
    locks::{LockBudget, LockStrength, USUAL_WAIT, is_lock, wait_at_most},
    quote::literal,
    session::{Fault, Session},
    sqlstate::{UNDEFINED_FUNCTION, UNDEFINED_OBJECT, UNDEFINED_TABLE},
    write_failure::WriteFailure,
};

/// A mapping that was joined with its table.
pub(super) struct Trial {
    /// What is wrong with it.
    pub(super) problems: Vec<Problem>,
    /// The mapping with its statements; `None` if a problem is fatal.
    pub(super) projection: Option<Projection>,
}

impl Trial {
    fn failed(problems: Vec<Problem>) -> Self {
        Self {
            problems,
            projection: None,
        }
    }

    /// Returns the projection, or why the table cannot be kept in sync.
    pub(super) fn usable(self) -> Result<Projection, String> {
        let Self { problems, projection } = self;
        let fatal = problems.iter().filter(|problem| problem.is_fatal);
        let fatal: Vec<&str> = fatal.map(|problem| problem.message.as_str()).collect();
        projection.ok_or_else(|| fatal.join("; "))
    }
}

/// Joins a mapping with its table.
///
/// # Errors
/// Something failed that the mapping does not explain.
pub(super) async fn join(conn: &mut Session, mapping: &TableMapping) -> Result<Trial, MirrorError> {
    // Types outside of `pg_catalog` are returned with their schema.
    conn.batch_execute(RESTRICT_PATH).await?;
    let shape = TableShape::load(conn, mapping).await?;
    conn.batch_execute(RESTORE_PATH).await?;
    let Some(shape) = shape else {
        let tables = TableName::all(conn).await?;
        return Ok(Trial::failed(vec![Problem::no_table(mapping, &tables)]));
    };
    let problems = problems(mapping, &shape);
    if problems.iter().any(|problem| problem.is_fatal) {
        return Ok(Trial::failed(problems));
    }
    Ok(Trial {
        problems,
        projection: Some(Projection::new(mapping, &shape)),
    })
}

/// Joins a mapping with its table, and lets PostgreSQL plan its statements.
///
/// # Errors
/// Something failed that the mapping does not explain.
pub(super) async fn try_mapping(conn: &mut Session, mapping: &TableMapping) -> Result<Trial, MirrorError> {
    let mut trial = join(conn, mapping).await?;
    let Some(projection) = &trial.projection else {
        return Ok(trial);
    };
    let planned = conn.transaction(async |conn| projection.plan_statements(conn).await);
    let fault = refusal(planned.await)?;
    wait_at_most(conn, USUAL_WAIT).await?;
    if let Some(fault) = fault {
        let refused = projection.refused_expressions(conn, fault).await?;
        trial.problems.extend(refused);
        trial.projection = None;
    }
    Ok(trial)
}

/// Returns why the server refused something, if it did. A table that the application has locked is no
/// reason: what is to be written into it is rejected, and tried again by the next sync.
pub(super) fn refusal<T>(tried: Result<T, WriteFailure>) -> Result<Option<Fault>, MirrorError> {
    match tried {
        Ok(_) => Ok(None),
        Err(WriteFailure::TooLong(fault)) if is_lock(&fault) => Ok(None),
        Err(WriteFailure::OneRow(fault) | WriteFailure::TooLong(fault)) => Ok(Some(fault)),
        Err(WriteFailure::Whole(error)) => Err(error),
    }
}

impl Projection {
    /// Lets PostgreSQL plan each statement, so that an expression that cannot be used is found
    /// before it could fail for all rows. Nothing is executed, so no trigger of the application
    /// runs.
    async fn plan_statements(&self, conn: &mut Session) -> Result<(), WriteFailure> {
        let of_ids = [self.update(), Some(self.insert()), self.link(), self.remove()];
        let of_ids = of_ids.into_iter().flatten();
        let of_ids = of_ids.chain([
            self.plan(Scope::Ids),
            self.excluded(Scope::Ids),
            self.remaining(),
            self.locked(LockStrength::Update),
        ]);
        LockBudget::new().begin(conn).await?;
        conn.batch_execute(RESTRICT_PATH).await?;
        for sql in of_ids {
            sql_query(format!("EXPLAIN {sql}"))
                .bind::<Array<Text>, _>(Vec::<String>::new())
                .execute(conn)
                .await?;
        }
        for (sql, from, to) in [
            (self.plan(Scope::Range), "", ""),
            (self.excluded(Scope::Range), "", ""),
            (self.fill(false), "(0,0)", "(1,0)"),
            (self.fill(true), "(0,0)", "(1,0)"),
        ] {
            sql_query(format!("EXPLAIN {sql}"))
                .bind::<Text, _>(from)
                .bind::<Text, _>(to)
                .execute(conn)
                .await?;
        }
        sql_query(format!("EXPLAIN {}", self.plan(Scope::All)))
            .bind::<BigInt, _>(0)
            .execute(conn)
            .await?;
        self.plan_unknown(conn).await?;
        Ok(conn.batch_execute(RESTORE_PATH).await?)
    }

    /// Does the same with the statements of a dry run.
    pub(super) async fn plan_reading(&self, conn: &mut Session) -> Result<(), WriteFailure> {
        LockBudget::new().begin(conn).await?;
        conn.batch_execute(RESTRICT_PATH).await?;
        for sql in [self.plan(Scope::Records), self.excluded(Scope::Records)] {
            sql_query(format!("EXPLAIN {sql}"))
                .bind::<Text, _>("[]")
                .execute(conn)
                .await?;
        }
        self.plan_unknown(conn).await?;
        Ok(conn.batch_execute(RESTORE_PATH).await?)
    }

    async fn plan_unknown(&self, conn: &mut Session) -> QueryResult<()> {
        sql_query(format!("EXPLAIN {}", self.unknown()))
            .bind::<Text, _>("")
            .bind::<BigInt, _>(0)
            .execute(conn)
            .await?;
        Ok(())
    }

    /// Returns the expressions that PostgreSQL cannot plan, or that a statement was refused if each
    /// expression by itself can be planned.
    async fn refused_expressions(&self, conn: &mut Session, fault: Fault) -> Result<Vec<Problem>, MirrorError> {
        let mut problems = Vec::new();
        for expression in self.expressions() {
            let planned = conn.transaction(async |conn| {
                conn.batch_execute(RESTRICT_PATH).await?;
                conn.batch_execute(&format!("EXPLAIN {}", expression.values())).await?;
                conn.batch_execute(RESTORE_PATH).await?;
                Ok::<_, WriteFailure>(())
            });
            if let Some(fault) = refusal(planned.await)? {
                problems.push(self.refused(&expression, fault, None));
            }
        }
        if problems.is_empty() {
            let hint = "correct the mapping or the table";
            problems.push(Problem::fatal(MirrorError::from(fault).to_string(), hint));
        }
        Ok(problems)
    }

    /// The problem of an expression that PostgreSQL refuses, perhaps only for some users, of which one
    /// is given.
    pub(super) fn refused(&self, expression: &MappedExpression, fault: Fault, user: Option<String>) -> Problem {
        let is_unknown_name = matches!(
            fault.sqlstate(),
            Some(UNDEFINED_FUNCTION | UNDEFINED_OBJECT | UNDEFINED_TABLE)
        );
        let place = &expression.place;
        let objects = self.mapping.from.resource().title();
        let on = user.as_ref().map_or_else(String::new, |id| {
            format!(" on {id}, the first of the {objects} that it fails on")
        });
        let hint = match (is_unknown_name, user) {
            (true, _) => "write names outside of pg_catalog with their schema, also those of clerk".to_owned(),
            (false, Some(id)) => format!(
                "see it: SELECT * FROM {} WHERE id = {}; correct {place}",
                self.source,
                literal(&id)
            ),
            (false, None) => format!("correct {place}"),
        };
        Problem::fatal(format!("{place} fails{on}: {}", MirrorError::from(fault)), hint)
    }
}
