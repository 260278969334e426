//! Tables of Drizzle.

use std::fmt::Write;

use super::{Column, ColumnKind, Table, camel};
use crate::mirror::schema;

pub(super) fn print(tables: &[Table]) -> String {
    let mut out = format!(
        "// The schema {schema}, which clerk2pg keeps in sync: read it, and let clerk2pg write it. `schemaFilter` in\n\
         // drizzle.config.ts keeps drizzle-kit away from these tables.\n\
         import {{ bigint, boolean, customType, jsonb, pgSchema, text, timestamp }} from \"drizzle-orm/pg-core\";\n\n\
         const bytea = customType<{{ data: Buffer }}>({{ dataType: () => \"bytea\" }});\n\n\
         export const clerk = pgSchema(\"{schema}\");\n",
        schema = schema(),
    );
    for table in tables {
        let what = if table.is_view { "view" } else { "table" };
        let name = plural(table);
        let _ = write!(out, "\nexport const {name} = clerk.{what}(\"{}\", {{\n", table.name);
        for column in &table.columns {
            let _ = writeln!(
                out,
                "  {}: {},",
                camel(column.name.split('_')),
                column_of(table, column)
            );
        }
        let end = if table.is_view { "}).existing();" } else { "});" };
        let _ = writeln!(out, "{end}");
    }
    out
}

/// Returns the name of the table, beside tables of the application: `clerkUsers`.
fn plural(table: &Table) -> String {
    camel(["clerk"].into_iter().chain(table.name.split('_')))
}

fn column_of(table: &Table, column: &Column) -> String {
    let name = column.name;
    let mut text = match column.kind {
        ColumnKind::Text => format!("text(\"{name}\")"),
        ColumnKind::Bool => format!("boolean(\"{name}\")"),
        ColumnKind::Int => format!("bigint(\"{name}\", {{ mode: \"number\" }})"),
        ColumnKind::Time => format!("timestamp(\"{name}\", {{ withTimezone: true }})"),
        ColumnKind::Json => format!("jsonb(\"{name}\")"),
        ColumnKind::Texts => format!("text(\"{name}\").array()"),
        ColumnKind::Bytes => format!("bytea(\"{name}\")"),
    };
    match (column.is_key && !table.is_view, column.is_nullable) {
        (true, _) => text.push_str(".primaryKey()"),
        (false, false) => text.push_str(".notNull()"),
        (false, true) => {}
    }
    text
}
