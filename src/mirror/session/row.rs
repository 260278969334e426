//! What comes from the server: rows, as Diesel reads them.

use std::{num::NonZeroU32, ops::Range};

use diesel::{
    pg::{Pg, PgValue},
    row::{Field, PartialRow, RowIndex, RowSealed},
};
use tokio_postgres::types::{FromSql, Type};

use super::fault::BoxError;

/// A row of an answer.
pub(in crate::mirror) struct AnswerRow {
    row: tokio_postgres::Row,
    /// The types of the columns.
    oids: Vec<NonZeroU32>,
}

impl AnswerRow {
    pub(super) fn new(row: tokio_postgres::Row) -> Self {
        // No type has the number 0.
        let oid = |column: &tokio_postgres::Column| NonZeroU32::new(column.type_().oid()).unwrap_or(NonZeroU32::MIN);
        let oids = row.columns().iter().map(oid).collect();
        Self { row, oids }
    }
}

impl RowSealed for AnswerRow {}

impl<'a> diesel::row::Row<'a, Pg> for AnswerRow {
    type Field<'f>
        = Column<'f>
    where
        'a: 'f,
        Self: 'f;
    type InnerPartialRow = Self;

    fn field_count(&self) -> usize {
        self.row.len()
    }

    fn get<'b, I>(&'b self, index: I) -> Option<Self::Field<'b>>
    where
        'a: 'b,
        Self: RowIndex<I>,
    {
        let at = self.idx(index)?;
        Some(Column { row: self, at })
    }

    fn partial_row(&self, range: Range<usize>) -> PartialRow<'_, Self> {
        PartialRow::new(self, range)
    }
}

impl RowIndex<usize> for AnswerRow {
    fn idx(&self, index: usize) -> Option<usize> {
        (index < self.row.len()).then_some(index)
    }
}

impl<'a> RowIndex<&'a str> for AnswerRow {
    fn idx(&self, name: &'a str) -> Option<usize> {
        self.row.columns().iter().position(|column| column.name() == name)
    }
}

/// A column of a row.
pub(in crate::mirror) struct Column<'a> {
    row: &'a AnswerRow,
    at: usize,
}

impl<'a> Field<'a, Pg> for Column<'a> {
    fn field_name(&self) -> Option<&str> {
        Some(self.row.row.columns()[self.at].name())
    }

    fn value(&self) -> Option<PgValue<'_>> {
        let Received(bytes) = self.row.row.get::<_, Option<Received<'_>>>(self.at)?;
        Some(PgValue::new(bytes, &self.row.oids[self.at]))
    }
}

/// A value in the form that Diesel reads.
struct Received<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Received<'a> {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Self, BoxError> {
        Ok(Self(bytes))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
