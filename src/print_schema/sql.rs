//! CREATE TABLE statements, for tools that read them.

use std::fmt::Write;

use super::{Column, ColumnKind, Table};

pub(super) fn print(tables: &[Table]) -> String {
    let mut out = String::from(
        "-- The tables and views of the schema clerk, for tools that read SQL. clerk2pg itself makes them: never run\n\
         -- this in the database that it uses. Views are printed as tables.\n\
         CREATE SCHEMA clerk;\n",
    );
    for table in tables {
        let columns: Vec<String> = table.columns.iter().map(column_of).collect();
        let _ = write!(
            out,
            "\nCREATE TABLE clerk.{} (\n    {}\n);\n",
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
