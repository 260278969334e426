//! What memberships and invitations show of users and organizations.

use std::sync::Arc;

use serde::Serialize;

use crate::store::entry::Entry;
use crate::store::properties::{Properties, Text};
use crate::users::resource::{PRIMARY_EMAIL_ADDRESS, PRIMARY_PHONE_NUMBER, PRIMARY_WEB3_WALLET};

/// What a user has to show. All of it is absent for a user that does not exist or is not JSON.
#[derive(Default)]
pub(super) struct Profile {
    first_name: Option<String>,
    last_name: Option<String>,
    profile_image_url: Option<String>,
    image_url: Option<String>,
    has_image: bool,
    identifier: Option<String>,
    username: Option<String>,
    banned: bool,
    deprovisioned: bool,
}

/// The user of a membership.
#[derive(Serialize)]
pub(super) struct PublicMemberData<'a> {
    user_id: &'a str,
    first_name: Option<&'a str>,
    last_name: Option<&'a str>,
    profile_image_url: &'a str,
    image_url: &'a str,
    has_image: bool,
    identifier: Option<&'a str>,
    username: Option<&'a str>,
    banned: bool,
    deprovisioned: bool,
}

/// The user who sent an invitation.
#[derive(Serialize)]
pub(super) struct PublicInviterData {
    user_id: String,
    first_name: Option<String>,
    last_name: Option<String>,
    image_url: String,
    has_image: bool,
    identifier: String,
}

/// The organization of an invitation.
#[derive(Serialize)]
pub(super) struct PublicOrganizationData {
    id: String,
    name: String,
    slug: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_url: Option<String>,
    has_image: bool,
}

/// The image of those who have none.
const DEFAULT_IMAGE: &str = "https://img.clerk.com/default";

impl Profile {
    pub(super) fn read(user: Option<&Arc<Entry>>) -> Self {
        let Some(user) = user else { return Self::default() };
        let Some(properties) = Properties::read(user.stored()) else {
            return Self::default();
        };
        let read = |text: Text| text.read(&user.id, &properties).into_iter().next();
        let username: Option<String> = properties.value("username");
        // The first that the user has (a guess).
        let identifier = read(PRIMARY_EMAIL_ADDRESS)
            .or_else(|| read(PRIMARY_PHONE_NUMBER))
            .or_else(|| username.clone())
            .or_else(|| read(PRIMARY_WEB3_WALLET));
        Self {
            first_name: properties.value("first_name"),
            last_name: properties.value("last_name"),
            profile_image_url: properties.value("profile_image_url"),
            image_url: properties.value("image_url"),
            has_image: properties.value("has_image").unwrap_or_default(),
            identifier,
            username,
            banned: properties.value("banned").unwrap_or_default(),
            deprovisioned: properties.value("deprovisioned").unwrap_or_default(),
        }
    }
}

pub(super) fn member<'a>(user_id: &'a str, profile: &'a Profile) -> PublicMemberData<'a> {
    let image_url = profile.image_url.as_deref().unwrap_or(DEFAULT_IMAGE);
    PublicMemberData {
        user_id,
        first_name: profile.first_name.as_deref(),
        last_name: profile.last_name.as_deref(),
        profile_image_url: profile.profile_image_url.as_deref().unwrap_or(image_url),
        image_url,
        has_image: profile.has_image,
        identifier: profile.identifier.as_deref(),
        username: profile.username.as_deref(),
        banned: profile.banned,
        deprovisioned: profile.deprovisioned,
    }
}

pub(super) fn inviter(user_id: &str, profile: &Profile) -> PublicInviterData {
    PublicInviterData {
        user_id: user_id.to_owned(),
        first_name: profile.first_name.clone(),
        last_name: profile.last_name.clone(),
        image_url: profile.image_url.clone().unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
        has_image: profile.has_image,
        identifier: profile.identifier.clone().unwrap_or_default(),
    }
}

pub(super) fn organization(entry: &Entry) -> PublicOrganizationData {
    let properties = Properties::read(entry.stored()).unwrap_or_default();
    PublicOrganizationData {
        id: entry.id.to_string(),
        name: properties.value("name").unwrap_or_default(),
        slug: properties.value("slug").unwrap_or_default(),
        image_url: properties.value("image_url"),
        has_image: properties.value("has_image").unwrap_or_default(),
    }
}
