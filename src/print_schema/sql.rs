//! CREATE TABLE statements, for tools that read them.

use std::fmt::Write;

use super::{Column, ColumnKind, Table};
use crate::mirror::schema;

pub(super) fn print(tables: &[Table]) -> String {
    let schema = schema();
    let mut out = format!(
        "-- The tables and views of the schema {schema}, for tools that read SQL. clerk2pg itself makes them: never\n\
         -- run this in the database that it uses. Views are printed as tables.\n\
         CREATE SCHEMA {schema};\n",
    );
    for table in tables {
        let columns: Vec<String> = table.columns.iter().map(column_of).collect();
        let _ = write!(
            out,
            "\nCREATE TABLE {schema}.{} (\n    {}\n);\n",
            table.name,
            columns.join(",\n    ")
        );
    }
    out
}

fn column_of(column: &Column) -> String {
    let kind = match column.kind {
        ColumnKind::Text => "text",
        ColumnKind::Bool => "boolean",
        ColumnKind::Int => "bigint",
        ColumnKind::Time => "timestamptz",
        ColumnKind::Json => "jsonb",
        ColumnKind::Texts => "text[]",
        ColumnKind::Bytes => "bytea",
    };
    let constraint = match (column.is_key, column.is_nullable) {
        (true, _) => " PRIMARY KEY",
        (false, false) => " NOT NULL",
        (false, true) => "",
    };
    format!("{} {kind}{constraint}", column.name)
}
