//! The expressions of a mapping, one by one.

/// An expression of a mapping, and the objects that it is evaluated for.
#[derive(Debug, Clone)]
pub(super) struct MappedExpression {
    /// Where it is, for people: `"email" in [tables.set]`.
    pub(super) place: String,
    /// Whether it is the condition, and not the value of a column.
    pub(super) is_condition: bool,
    /// The expression over `u`, cast to the column's type.
    pub(super) value: String,
    /// The objects `u`, as `FROM` and `WHERE` of a statement.
    pub(super) from: String,
    /// Whether the column must not be `NULL`.
    pub(super) is_not_null: bool,
    /// The column's type if it has a maximum length.
    pub(super) length: Option<String>,
}

impl MappedExpression {
    /// Returns the values for all objects.
    pub(super) fn values(&self) -> String {
        format!("SELECT {} FROM {}", self.value, self.from)
    }

    /// Counts the objects of the last expression, or all rows of `source` if there is none, and for each expression the values that are not
    /// `NULL`, and those that are too long for the column. Every value is computed, and each once.
    pub(super) fn count(expressions: &[Self], source: &str) -> String {
        let all = format!("{source} AS u");
        let from = expressions.last().map_or(&all, |last| &last.from);
        let values: Vec<String> = expressions
            .iter()
            .enumerate()
            .map(|(at, expression)| format!("{} AS e{at}", expression.value))
            .collect();
        let counts = expressions.iter().enumerate().map(|(at, expression)| {
            let long = match &expression.length {
                Some(length) => format!("pg_catalog.count(*) FILTER (WHERE CAST(e.e{at} AS {length}) <> e.e{at})"),
                None => "0".to_owned(),
            };
            format!(", pg_catalog.count(e.e{at}), {long}")
        });
        format!(
            "SELECT ARRAY[pg_catalog.count(*){}]::bigint[] AS counts FROM (SELECT {} FROM {from} OFFSET 0) AS e",
            counts.collect::<String>(),
            values.join(", "),
        )
    }

    /// Computes the values for the objects whose ids are after `$1` and up to `$2`.
    pub(super) fn count_in_range(&self) -> String {
        format!(
            "SELECT pg_catalog.count(e.e0) FROM (SELECT {} AS e0 FROM {} AND u.id > $1 AND u.id <= $2 OFFSET 0) AS e",
            self.value, self.from
        )
    }
}
