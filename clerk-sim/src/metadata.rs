//! Metadata: how it is merged, and how it is generated as applications keep it, mostly little,
//! sometimes much.

use std::str::FromStr;

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde_json::{Map, Number, Value, json};

use crate::users::samples::{PLANS, ROLES, WORDS};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn pick(list: &[&'static str], rng: &mut impl Rng) -> &'static str {
    list.choose(rng).copied().unwrap_or_default()
}

fn note(words: usize, rng: &mut impl Rng) -> String {
    let words: Vec<_> = (0..words).map(|_| pick(WORDS, rng)).collect();
    words.join(" ")
}

/// Merges deeply; null removes at any level (documented).
pub(crate) fn merge(old: &mut Value, new: &Value) {
    let Value::Object(new) = new else {
        *old = new.clone();
        return;
    };
    if !old.is_object() {
        *old = json!({});
    }
    let Some(old) = old.as_object_mut() else { return };
    for (key, value) in new {
        if value.is_null() {
            old.remove(key);
        } else {
            merge(old.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Metadata that frontends can read.
pub(crate) fn public(rng: &mut impl Rng) -> Map<String, Value> {
    match rng.random_range(0..100) {
        0..35 => Map::new(),
        35..70 => object(json!({"role": pick(ROLES, rng), "plan": pick(PLANS, rng)})),
        70..88 => object(json!({
            "role": pick(ROLES, rng),
            "onboarding": {"done": rng.random_bool(0.8), "step": rng.random_range(1..9), "skipped": ["tour", null]},
            "teams": [{"id": rng.random_range(1..9999), "role": pick(ROLES, rng)}, {"id": rng.random_range(1..9999), "role": pick(ROLES, rng)}],
        })),
        88..97 => big(rng),
        _ => precise(rng),
    }
}

/// Metadata that only the backend can read.
pub(crate) fn private(rng: &mut impl Rng) -> Map<String, Value> {
    match rng.random_range(0..100) {
        0..55 => Map::new(),
        55..85 => object(
            json!({"stripe_customer_id": format!("cus_{:014x}", rng.random::<u64>() >> 8), "seats": rng.random_range(1..50)}),
        ),
        _ => object(
            json!({"crm": {"score": rng.random_range(0..1000), "notes": note(12, rng)}, "flags": [], "risk": -0.5}),
        ),
    }
}

/// Metadata that the user's browser can write.
pub(crate) fn unsafe_(rng: &mut impl Rng) -> Map<String, Value> {
    match rng.random_range(0..100) {
        0..70 => Map::new(),
        _ => object(
            json!({"theme": if rng.random_bool(0.5) { "dark" } else { "light" }, "": "empty key", "ünïcode": "✓ \u{1}\u{7f}"}),
        ),
    }
}

fn big(rng: &mut impl Rng) -> Map<String, Value> {
    let entries = rng.random_range(4..14);
    let history: Vec<_> = (0..entries)
        .map(|_| json!({"at": 1_700_000_000_000_i64 + rng.random_range(0..50_000_000_000_i64), "note": note(5, rng), "by": {"id": rng.random_range(1..999), "tags": [pick(WORDS, rng)]}}))
        .collect();
    object(json!({"history": history, "deep": {"a": {"b": {"c": {"d": [[[[rng.random_range(0..9)]]]]}}}}}))
}

/// Numbers that a double cannot hold. A client that reads them as doubles writes other numbers
/// back.
fn precise(rng: &mut impl Rng) -> Map<String, Value> {
    let number = |text: String| Number::from_str(&text).map_or(Value::Null, Value::Number);
    let balance = format!(
        "{}.{:018}",
        rng.random::<u64>(),
        rng.random_range(0..1_000_000_000_000_000_000_u64)
    );
    let sequence = (1_u64 << 53) + 1 + 2 * rng.random_range(0..1_000_000);
    object(json!({"ledger": {"balance": number(balance), "sequence": sequence, "tiny": number("1.5e-320".to_owned())}}))
}
