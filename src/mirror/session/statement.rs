//! What goes to the server: a statement and its values, as Diesel writes them.

use bytes::BytesMut;
use diesel::{
    QueryResult,
    pg::{Pg, PgMetadataLookup, PgQueryBuilder, PgTypeMetadata},
    query_builder::{QueryBuilder, QueryFragment, bind_collector::RawBytesBindCollector},
    result::Error as Diesel,
};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::fault::BoxError;

/// A statement in the form that is sent.
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) values: Vec<(Encoded, Type)>,
}

impl Statement {
    pub(super) fn new(query: &impl QueryFragment<Pg>) -> QueryResult<Self> {
        let mut builder = PgQueryBuilder::default();
        query.to_sql(&mut builder, &Pg)?;
        let mut binds = RawBytesBindCollector::<Pg>::new();
        query.collect_binds(&mut binds, &mut BuiltIn, &Pg)?;
        Self::of(builder, binds)
    }

    fn of(sql: PgQueryBuilder, binds: RawBytesBindCollector<Pg>) -> QueryResult<Self> {
        let kinds = binds.metadata.iter().map(kind_of);
        let values = binds.binds.into_iter().map(Encoded).zip(kinds);
        let values = values.map(|(value, kind)| Ok((value, kind?)));
        Ok(Self {
            sql: sql.finish(),
            values: values.collect::<QueryResult<_>>()?,
        })
    }
}

fn kind_of(metadata: &PgTypeMetadata) -> QueryResult<Type> {
    let oid = metadata
        .oid()
        .map_err(|error| Diesel::SerializationError(Box::new(error)))?;
    Type::from_oid(oid).ok_or_else(|| Diesel::SerializationError(format!("type {oid} is not built in").into()))
}

/// Diesel knows the numbers of PostgreSQL's built-in types. clerk2pg uses no others.
struct BuiltIn;

impl PgMetadataLookup for BuiltIn {
    fn lookup_type(&mut self, _: &str, _: Option<&str>) -> PgTypeMetadata {
        PgTypeMetadata::new(0, 0)
    }
}

/// A value in the form that Diesel writes.
#[derive(Debug)]
pub(super) struct Encoded(Option<Vec<u8>>);

impl ToSql for Encoded {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        Ok(match &self.0 {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
