//! Requests that change organizations.
//!
//! Parameters and their rules are documented. Guessed: that the slug is made of the name if none is
//! given, and with a number after it if it is taken; that deleting answers with the slug.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::errors::{no_creator, no_organization};
use super::memberships;
use super::render::ADMIN;
use super::resource::SLUG;
use crate::clock::now;
use crate::errors::Failure;
use crate::ids::id;
use crate::kind::Kind;
use crate::metadata::merge;
use crate::parameters::{Parameter, ParameterType, Parameters};
use crate::state::State;
use crate::store::edit::{Touch, edit_object};
use crate::store::entry::Entry;
use crate::stores::Stores;

/// The members of a new organization at most, those invited included, if it is not said (observed).
const DEFAULT_LIMIT: i64 = 5;
/// Characters of a name (documented).
const MAX_NAME: usize = 256;

const CREATE: [Parameter; 8] = [
    ("name", ParameterType::Text),
    ("created_by", ParameterType::Text),
    ("private_metadata", ParameterType::ObjectOrNull),
    ("public_metadata", ParameterType::ObjectOrNull),
    ("slug", ParameterType::Text),
    ("max_allowed_memberships", ParameterType::Integer),
    ("created_at", ParameterType::Time),
    ("role_set_key", ParameterType::Text),
];

const UPDATE: [Parameter; 6] = [
    ("name", ParameterType::Text),
    ("slug", ParameterType::Text),
    ("max_allowed_memberships", ParameterType::Integer),
    ("admin_delete_enabled", ParameterType::Flag),
    ("created_at", ParameterType::Time),
    ("role_set_key", ParameterType::Text),
];

const METADATA: [Parameter; 2] = [
    ("public_metadata", ParameterType::Object),
    ("private_metadata", ParameterType::Object),
];

/// Creates an organization, and returns its id. The creator becomes its first member.
pub(crate) fn create(state: &State, body: &[u8]) -> Result<String, Failure> {
    let parameters = Parameters::read(body, &CREATE)?;
    let name = parameters.required("name")?;
    check_name(name)?;
    let limit = parameters.integer("max_allowed_memberships", 0..=i64::MAX)?;
    let mut stores = state.write();
    let creator = parameters.text("created_by");
    if let Some(creator) = creator.filter(|creator| stores.of(Kind::Users).get(creator).is_none()) {
        return Err(no_creator(creator));
    }
    let slug = match parameters.text("slug").filter(|slug| !slug.is_empty()) {
        Some(slug) => {
            check_slug(&stores, slug, "")?;
            slug.to_owned()
        }
        None => free_slug(&stores, name),
    };
    let now = now();
    let id = id("org_", now, &mut *state.organization_rng());
    let mut document = json!({
        "id": id, "object": "organization", "name": name, "slug": slug, "image_url": format!("https://img.clerk.com/{id}"),
        "has_image": false, "max_allowed_memberships": limit.unwrap_or(DEFAULT_LIMIT), "admin_delete_enabled": true,
        "public_metadata": parameters.object("public_metadata"), "private_metadata": parameters.object("private_metadata"),
        "created_at": parameters.time("created_at").unwrap_or(now), "updated_at": now,
    });
    for (key, value) in [
        ("created_by", creator),
        ("role_set_key", parameters.text("role_set_key")),
    ] {
        if let Some(value) = value {
            document[key] = value.into();
        }
    }
    stores
        .of_mut(Kind::Organizations)
        .put(Entry::new(&id, &document, None), now);
    if let Some(creator) = creator {
        memberships::put(state, &mut stores, &id, creator, ADMIN, Default::default());
    }
    Ok(id)
}

fn check_name(name: &str) -> Result<(), Failure> {
    if name.chars().count() > MAX_NAME {
        let why = format!("name must have at most {MAX_NAME} characters.");
        return Err(Failure::invalid("name", why));
    }
    Ok(())
}

/// Refuses a slug that is malformed, or that another organization than `except` has.
fn check_slug(stores: &Stores, slug: &str, except: &str) -> Result<(), Failure> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !slug.bytes().all(is_allowed) {
        let why = "slug can contain only lowercase alphanumeric characters and the dash \"-\".";
        return Err(Failure::malformed("slug", why));
    }
    if stores.of(Kind::Organizations).is_taken(&SLUG, slug, except) {
        return Err(Failure::taken("slug"));
    }
    Ok(())
}

/// A slug for a name that no organization has.
fn free_slug(stores: &Stores, name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let base = if words.is_empty() {
        "organization".to_owned()
    } else {
        words.join("-").to_lowercase()
    };
    let numbered = (1..).map(|n| format!("{base}-{n}"));
    let is_free = |slug: &String| !stores.of(Kind::Organizations).is_taken(&SLUG, slug, "");
    let mut slugs = std::iter::once(base.clone()).chain(numbered);
    slugs.find(is_free).expect("there are more numbers than organizations")
}

/// Updates an organization.
pub(crate) fn update(state: &State, id: &str, body: &[u8], version: Option<&str>) -> Result<(), Failure> {
    // From 2026-05-12 on this endpoint refuses metadata (documented). That it replaced them before
    // is a guess.
    let mut accepted = UPDATE.to_vec();
    if matches!(version, Some("2025-04-10" | "2025-11-10")) {
        accepted.extend(METADATA);
    }
    let parameters = Parameters::read(body, &accepted)?;
    parameters.integer("max_allowed_memberships", 0..=i64::MAX)?;
    if let Some(name) = parameters.text("name") {
        check_name(name)?;
    }
    let mut stores = state.write();
    if let Some(slug) = parameters.text("slug") {
        check_slug(&stores, slug, id)?;
    }
    edit_object(
        stores.of_mut(Kind::Organizations),
        id,
        Touch::UpdatedAt,
        no_organization,
        |organization| {
            for (name, _) in UPDATE.iter().chain(&METADATA).filter(|(name, _)| *name != "created_at") {
                // Null changes nothing (a guess), except that it removes the role set.
                let value = parameters
                    .get(name)
                    .filter(|value| !value.is_null() || *name == "role_set_key");
                if let Some(value) = value {
                    organization.insert((*name).to_owned(), value.clone());
                }
            }
            if let Some(time) = parameters.time("created_at") {
                organization.insert("created_at".to_owned(), time.into());
            }
        },
    )
}

/// Merges metadata into that of an organization.
pub(crate) fn merge_metadata(state: &State, id: &str, body: &[u8]) -> Result<(), Failure> {
    write_metadata(state, id, body, merge)
}

/// Replaces the metadata of an organization.
pub(crate) fn replace_metadata(state: &State, id: &str, body: &[u8]) -> Result<(), Failure> {
    write_metadata(state, id, body, |old, new| *old = new.clone())
}

fn write_metadata(state: &State, id: &str, body: &[u8], write: fn(&mut Value, &Value)) -> Result<(), Failure> {
    let parameters = Parameters::read(body, &METADATA)?;
    let mut stores = state.write();
    let organizations = stores.of_mut(Kind::Organizations);
    edit_object(organizations, id, Touch::UpdatedAt, no_organization, |organization| {
        set_metadata(organization, &parameters, write);
    })
}

/// Writes the metadata that a request has.
pub(super) fn set_metadata(object: &mut Map<String, Value>, parameters: &Parameters, write: fn(&mut Value, &Value)) {
    for (name, _) in METADATA {
        if let Some(new) = parameters.get(name) {
            write(object.entry(name).or_insert(Value::Null), new);
        }
    }
}

/// Deletes an organization with its memberships and invitations, and returns it.
pub(crate) fn delete(state: &State, id: &str) -> Result<Arc<Entry>, Failure> {
    let mut stores = state.write();
    stores
        .remove(Kind::Organizations, id, now())
        .ok_or_else(no_organization)
}
