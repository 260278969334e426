//! Prints the tables of the schema `clerk` that applications read, as types for their tools:
//! `print-schema`.

mod drizzle;
mod kysely;
mod prisma;
mod sql;

use crate::resource::{FieldKind, RESOURCES, Resource};

/// The language of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaFormat {
    /// CREATE TABLE statements.
    Sql,
    /// Models of Prisma.
    Prisma,
    /// Tables of Drizzle.
    Drizzle,
    /// Interfaces of Kysely.
    Kysely,
}

/// A table or view.
struct Table {
    /// Its name in the schema `clerk`.
    name: &'static str,
    /// The name of one row, in words: `["clerk", "user"]`.
    row: Vec<&'static str>,
    is_view: bool,
    columns: Vec<Column>,
}

/// A column.
struct Column {
    name: &'static str,
    kind: ColumnKind,
    is_nullable: bool,
    /// Whether it is the primary key. Views have a unique column instead.
    is_key: bool,
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColumnKind {
    Text,
    Bool,
    Int,
    Time,
    Json,
    Texts,
    Bytes,
}

/// Returns the tables that applications read, in a language.
pub fn print_schema(format: SchemaFormat) -> String {
    let tables = tables();
    match format {
        SchemaFormat::Sql => sql::print(&tables),
        SchemaFormat::Prisma => prisma::print(&tables),
        SchemaFormat::Drizzle => drizzle::print(&tables),
        SchemaFormat::Kysely => kysely::print(&tables),
    }
}

fn tables() -> Vec<Table> {
    let of_resources = RESOURCES.iter().map(|resource| Table {
        name: resource.table.trim_start_matches("clerk."),
        row: row_of(resource),
        is_view: false,
        columns: columns_of(resource),
    });
    of_resources.chain([members(), events(), user_events()]).collect()
}

/// The name of a row: the resource's name in the singular, as other tables may have the name too.
fn row_of(resource: &'static Resource) -> Vec<&'static str> {
    let words = resource.name.trim_end_matches('s').split('_');
    ["clerk"].into_iter().chain(words).collect()
}

/// The columns of a resource's table, in the order of the migrations.
fn columns_of(resource: &'static Resource) -> Vec<Column> {
    let fields = resource.fields.iter().map(|field| (field.name, kind_of(field.kind)));
    let derived = resource
        .derived
        .columns
        .iter()
        .map(|column| (column.name, kind_of(column.kind)));
    let own = [
        ("extra", ColumnKind::Json),
        ("absent", ColumnKind::Texts),
        ("unexpected", ColumnKind::Texts),
    ];
    let mut columns: Vec<Column> = fields
        .chain(own)
        .chain(derived)
        .map(|(name, kind)| nullable(name, kind))
        .collect();
    columns.extend([
        required("digest", ColumnKind::Bytes),
        required("first_seen_at", ColumnKind::Time),
        required("changed_at", ColumnKind::Time),
        nullable("deleted_at", ColumnKind::Time),
    ]);
    for column in &mut columns {
        column.is_key = column.name == "id";
        column.is_nullable &= !matches!(column.name, "id" | "created_at");
    }
    columns
}

/// The view of who belongs to which organization.
fn members() -> Table {
    use ColumnKind::{Json, Text, Time};
    Table {
        name: "members",
        row: vec!["clerk", "member"],
        is_view: true,
        columns: vec![
            key("membership_id", Text),
            required("organization_id", Text),
            nullable("organization_name", Text),
            nullable("organization_slug", Text),
            required("user_id", Text),
            nullable("primary_email", Text),
            nullable("full_name", Text),
            nullable("role", Text),
            nullable("role_name", Text),
            nullable("permissions", Json),
            required("created_at", Time),
            nullable("display_name", Text),
        ],
    }
}

fn events() -> Table {
    use ColumnKind::{Int, Text};
    let columns = [
        key("id", Int),
        required("resource", Text),
        required("type", Text),
        required("object_id", Text),
    ];
    Table {
        name: "events",
        row: vec!["clerk", "event"],
        is_view: false,
        columns: columns.into_iter().chain(of_events()).collect(),
    }
}

/// The view of the events of users.
fn user_events() -> Table {
    use ColumnKind::{Int, Text};
    let columns = [key("id", Int), required("type", Text), required("user_id", Text)];
    Table {
        name: "user_events",
        row: vec!["clerk", "user", "event"],
        is_view: true,
        columns: columns.into_iter().chain(of_events()).collect(),
    }
}

/// What both have.
fn of_events() -> [Column; 4] {
    [
        required("occurred_at", ColumnKind::Time),
        required("changed", ColumnKind::Texts),
        required("payload", ColumnKind::Json),
        required("recorded_at", ColumnKind::Time),
    ]
}

fn kind_of(kind: FieldKind) -> ColumnKind {
    match kind {
        FieldKind::Text => ColumnKind::Text,
        FieldKind::Bool => ColumnKind::Bool,
        FieldKind::Int => ColumnKind::Int,
        FieldKind::Time => ColumnKind::Time,
        FieldKind::Json => ColumnKind::Json,
    }
}

fn nullable(name: &'static str, kind: ColumnKind) -> Column {
    Column {
        name,
        kind,
        is_nullable: true,
        is_key: false,
    }
}

fn required(name: &'static str, kind: ColumnKind) -> Column {
    Column {
        is_nullable: false,
        ..nullable(name, kind)
    }
}

fn key(name: &'static str, kind: ColumnKind) -> Column {
    Column {
        is_key: true,
        ..required(name, kind)
    }
}

/// Returns words as one, in camel case: `createdAt`.
fn camel(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let pascal = pascal(words);
    let mut letters = pascal.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_ascii_lowercase().to_string() + letters.as_str()
    })
}

/// Returns words as one, each with a capital: `ClerkUser`.
fn pascal(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_ascii_uppercase().to_string() + letters.as_str()
        })
    };
    words.into_iter().map(|word| capital(word.as_ref())).collect()
}
