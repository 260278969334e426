//! Models of Prisma.

use std::fmt::Write;

use super::{Column, ColumnKind, Table, camel, pascal};
use crate::mirror::schema;

pub(super) fn print(tables: &[Table]) -> String {
    let schema = schema();
    let mut out = format!(
        "// The schema {schema}, which clerk2pg keeps in sync: read it, and let clerk2pg write it. Add \"{schema}\" to\n\
         // `schemas` of the datasource; views need `previewFeatures = [\"views\"]` in the generator. `tables.external`\n\
         // in prisma.config.ts keeps Prisma's migrations away from these tables.\n",
    );
    for table in tables {
        let what = if table.is_view { "view" } else { "model" };
        let _ = write!(out, "\n{what} {} {{\n", pascal(&table.row));
        let rows: Vec<[String; 3]> = table.columns.iter().map(|column| field_of(table, column)).collect();
        let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or_default();
        let (names, kinds) = (width(0), width(1));
        for [name, kind, attributes] in &rows {
            let line = format!("  {name:names$} {kind:kinds$} {attributes}");
            let _ = writeln!(out, "{}", line.trim_end());
        }
        let _ = write!(out, "\n  @@map(\"{}\")\n  @@schema(\"{schema}\")\n}}\n", table.name);
    }
    out
}

/// Returns a column's name in camel case, its type, and its attributes.
fn field_of(table: &Table, column: &Column) -> [String; 3] {
    let (kind, native) = match column.kind {
        ColumnKind::Text => ("String", ""),
        ColumnKind::Bool => ("Boolean", ""),
        ColumnKind::Int => ("BigInt", ""),
        ColumnKind::Time => ("DateTime", "@db.Timestamptz(6)"),
        ColumnKind::Json => ("Json", ""),
        ColumnKind::Texts => ("String", ""),
        ColumnKind::Bytes => ("Bytes", ""),
    };
    // Prisma's lists are never NULL.
    let suffix = match (column.kind, column.is_nullable) {
        (ColumnKind::Texts, _) => "[]",
        (_, true) => "?",
        (_, false) => "",
    };
    let name = camel(column.name.split('_'));
    let id = match (column.is_key, table.is_view) {
        (false, _) => "",
        (true, true) => "@unique",
        (true, false) => "@id",
    };
    let map = if name == column.name {
        String::new()
    } else {
        format!("@map(\"{}\")", column.name)
    };
    let attributes: Vec<&str> = [id, &map, native]
        .into_iter()
        .filter(|attribute| !attribute.is_empty())
        .collect();
    let attributes = attributes.join(" ");
    [name, format!("{kind}{suffix}"), attributes]
}
