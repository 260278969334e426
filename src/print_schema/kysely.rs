//! Interfaces of Kysely.

use std::fmt::Write;

use super::{Column, ColumnKind, Table, pascal};
use crate::mirror::schema;

pub(super) fn print(tables: &[Table]) -> String {
    let schema = schema();
    let mut out = format!(
        "// The schema {schema}, which clerk2pg keeps in sync: read it, and let clerk2pg write it.\n\
         // new Kysely<AppDatabase & ClerkDatabase>(…).selectFrom(\"{schema}.users\")\n",
    );
    for table in tables {
        let _ = write!(out, "\nexport interface {} {{\n", pascal(&table.row));
        for column in &table.columns {
            let _ = writeln!(out, "  {}: {};", column.name, type_of(column));
        }
        out.push_str("}\n");
    }
    out.push_str("\nexport interface ClerkDatabase {\n");
    for table in tables {
        let _ = writeln!(out, "  \"{schema}.{}\": {};", table.name, pascal(&table.row));
    }
    out.push_str("}\n");
    out
}

/// Returns what node-postgres returns for a column, if no parser of it is replaced.
fn type_of(column: &Column) -> String {
    let kind = match column.kind {
        // Its parser keeps bigint as text.
        ColumnKind::Text | ColumnKind::Int => "string",
        ColumnKind::Bool => "boolean",
        ColumnKind::Time => "Date",
        ColumnKind::Json => "unknown",
        ColumnKind::Texts => "string[]",
        ColumnKind::Bytes => "Buffer",
    };
    match column.is_nullable && column.kind != ColumnKind::Json {
        true => format!("{kind} | null"),
        false => kind.to_owned(),
    }
}
