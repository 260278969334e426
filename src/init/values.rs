//! Guesses what belongs in a column, by its name and type.

use super::key::plain;
use crate::mirror::{ColumnFacts, Source, quote::literal};

/// The address of a user. It says who a row is about, so it is kept in sync in any table.
pub(super) const EMAIL: &str = "u.primary_email";

/// What a column gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// It is kept in sync in a table without rows. In another one, the values that are there may be the
    /// application's own, so that only new rows get it.
    Own(String),
    /// The same, but somebody may decide it in the application, so that not even new rows get it.
    Decided(String),
    /// It is written when the row is inserted.
    Insert(String),
    /// As `Insert`, but somebody has to look at it, for this reason.
    Guess(String, String),
    /// It is written when another column changes.
    Touch(String),
    /// It says since when the object is gone.
    Deleted,
    /// Objects without this value have no row, as the column must not be NULL.
    Required(String),
    /// The database or the application fills it in.
    LeftAlone,
    /// It must not be NULL, and nothing says what belongs there.
    Open,
}

/// Returns what a column gets that is not the key.
pub(super) fn value(column: &ColumnFacts, source: Source) -> Value {
    let name = plain(&column.name);
    let found = match source {
        _ if column.is_generated => return Value::LeftAlone,
        _ if column.category == "D" => time(column, &name),
        Source::Users => of_user(column, &name),
        Source::Organizations => of_organization(column, &name),
        Source::OrganizationMemberships => of_membership(column, &name),
    };
    found.unwrap_or_else(|| own(column, &name))
}

fn time(column: &ColumnFacts, name: &str) -> Option<Value> {
    let at = |moment: &str| match &*column.base {
        "timestamp" => format!("{moment} AT TIME ZONE 'UTC'"),
        _ => moment.to_owned(),
    };
    Some(match name {
        "updatedat" | "updated" | "modifiedat" | "updatedon" => Value::Touch(at("now()")),
        "createdat" | "created" | "createdon" | "joinedat" if !column.has_default => Value::Insert(at("u.created_at")),
        "deletedat" | "deletedon" if !column.is_not_null => Value::Deleted,
        "lastsigninat" | "lastsignin" | "lastloginat" | "lastlogin" if !column.is_not_null => {
            Value::Own(at("u.last_sign_in_at"))
        }
        "lastactiveat" | "lastseenat" if !column.is_not_null => Value::Own(at("u.last_active_at")),
        _ if column.has_default || !column.is_not_null => Value::LeftAlone,
        _ => return None,
    })
}

fn of_user(column: &ColumnFacts, name: &str) -> Option<Value> {
    let is_text = column.category == "S" && column.labels.is_empty();
    let or_empty = |expression: &str| text(column, expression, "''");
    Some(match name {
        "email" | "emailaddress" | "primaryemail" | "mail" if is_text => required(column, EMAIL),
        "phone" | "phonenumber" | "primaryphone" | "mobile" if is_text => required(column, "u.primary_phone"),
        "emailverified" | "isemailverified" if column.category == "B" => flag(column, "u.primary_email_verified"),
        "banned" | "isbanned" if column.category == "B" => flag(column, "u.banned"),
        "username" | "handle" | "login" if is_text => text(column, "u.username", "u.id"),
        "firstname" | "givenname" | "forename" if is_text => or_empty("u.first_name"),
        "lastname" | "familyname" | "surname" if is_text => or_empty("u.last_name"),
        "name" | "fullname" | "displayname" if is_text => text(
            column,
            if name == "fullname" {
                "u.full_name"
            } else {
                "u.display_name"
            },
            "''",
        ),
        "image" | "imageurl" | "avatar" | "avatarurl" | "profileimage" | "profileimageurl" | "picture" | "photo"
        | "photourl" | "profilepicture"
            if is_text =>
        {
            picture(column)
        }
        "locale" if is_text && !column.is_not_null => Value::Own("u.locale".to_owned()),
        "metadata" | "publicmetadata" => json(column, "u.public_metadata")?,
        "privatemetadata" => json(column, "u.private_metadata")?,
        "unsafemetadata" => json(column, "u.unsafe_metadata")?,
        _ => return None,
    })
}

fn of_organization(column: &ColumnFacts, name: &str) -> Option<Value> {
    let is_text = column.category == "S" && column.labels.is_empty();
    Some(match name {
        "name" | "displayname" | "title" if is_text => text(column, "u.name", "''"),
        "slug" | "handle" if is_text => text(column, "u.slug", "u.id"),
        "image" | "imageurl" | "logo" | "logourl" | "avatar" | "avatarurl" if is_text => picture(column),
        "metadata" | "publicmetadata" => json(column, "u.public_metadata")?,
        "privatemetadata" => json(column, "u.private_metadata")?,
        _ => return None,
    })
}

fn of_membership(column: &ColumnFacts, name: &str) -> Option<Value> {
    if name != "role" {
        return None;
    }
    let labels = labels(column);
    let like = |word: &str| labels.iter().find(|label| plain(label).contains(word));
    Some(match (like("admin"), like("member").or(like("user"))) {
        (Some(admin), Some(member)) => Value::Own(format!(
            "CASE u.role WHEN 'org:admin' THEN {} ELSE {} END",
            literal(admin),
            literal(member)
        )),
        _ if column.category == "S" && labels.is_empty() => Value::Own("u.role".to_owned()),
        _ => return None,
    })
}

/// What a column gets that nothing of Clerk's belongs in.
fn own(column: &ColumnFacts, name: &str) -> Value {
    if column.has_default || !column.is_not_null {
        return Value::LeftAlone;
    }
    let labels = labels(column);
    let usual = ["member", "user", "customer", "basic", "free", "active"];
    let label = usual
        .iter()
        .find_map(|usual| labels.iter().find(|label| plain(label) == *usual));
    match label.or(labels.first()) {
        Some(label) => Value::Guess(literal(label), format!("a guess; one of {}", labels.join(", "))),
        None if name == "id" && column.base == "uuid" => Value::Insert("gen_random_uuid()".to_owned()),
        None if name == "id" && column.category == "S" => Value::Insert("clerk.cuid()".to_owned()),
        None => Value::Open,
    }
}

/// The values that its type or a CHECK constraint allows; empty if there are others.
fn labels(column: &ColumnFacts) -> Vec<String> {
    if !column.labels.is_empty() {
        return column.labels.clone();
    }
    let is_list = |check: &&String| check.contains("= ANY (") && !check.contains("NOT (");
    let list = column.checks.iter().find(is_list);
    // In 'it''s', each second quote belongs to the value.
    let values = list.map_or("", |list| list).replace("''", "\u{0}");
    let values = values.split('\'').skip(1).step_by(2);
    values.map(|value| value.replace('\u{0}', "'")).collect()
}

fn required(column: &ColumnFacts, expression: &str) -> Value {
    match column.is_not_null {
        true => Value::Required(expression.to_owned()),
        false => Value::Own(expression.to_owned()),
    }
}

/// A text, with other expressions for a column that must not be NULL, and cut to its length.
fn text(column: &ColumnFacts, expression: &str, others: &str) -> Value {
    let expression = match column.is_not_null {
        true => format!("coalesce({expression}, {others})"),
        false => expression.to_owned(),
    };
    Value::Own(match column.max_length {
        Some(length) => format!("left({expression}, {length})"),
        None => expression,
    })
}

fn flag(column: &ColumnFacts, expression: &str) -> Value {
    Value::Decided(match column.is_not_null {
        true => format!("coalesce({expression}, false)"),
        false => expression.to_owned(),
    })
}

fn picture(column: &ColumnFacts) -> Value {
    text(column, "u.image_url", "''")
}

fn json(column: &ColumnFacts, expression: &str) -> Option<Value> {
    let is_json = matches!(&*column.base, "json" | "jsonb");
    is_json.then(|| {
        Value::Own(match column.is_not_null {
            true => format!("coalesce({expression}, '{{}}')"),
            false => expression.to_owned(),
        })
    })
}
