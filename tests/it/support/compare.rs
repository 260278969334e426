//! Brings documents into a form in which the mirror and Clerk can be compared.

use serde_json::Value;

/// Returns a document in the form in which it can be compared.
pub fn comparable(mut document: Value) -> Value {
    // This value counts down with every read.
    if document["lockout_expires_in_seconds"].is_number() {
        document["lockout_expires_in_seconds"] = Value::from(1);
    }
    normal(document)
}

/// Writes numbers as jsonb does.
pub fn normal(value: Value) -> Value {
    match value {
        Value::Number(number) if number.to_string().contains(['e', 'E']) => {
            // Only small exponents occur in the data.
            number
                .as_f64()
                .and_then(|number| serde_json::from_str(&format!("{number}")).ok())
                .unwrap()
        }
        Value::Array(list) => list.into_iter().map(normal).collect(),
        Value::Object(object) => object.into_iter().map(|(key, value)| (key, normal(value))).collect(),
        other => other,
    }
}
