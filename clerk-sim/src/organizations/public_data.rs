//! What memberships and invitations show of users and organizations.

use serde::Serialize;

use crate::store::entry::Entry;
use crate::store::properties::{Properties, Text};
use crate::users::resource::{PRIMARY_EMAIL_ADDRESS, PRIMARY_PHONE_NUMBER, PRIMARY_WEB3_WALLET};

/// What a user has to show. All of it is absent for a user that does not exist or is not JSON.
#[derive(Default)]
struct Profile {
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
struct PublicMemberData<'a> {
    user_id: &'a str,
    first_name: Option<String>,
    last_name: Option<String>,
    profile_image_url: String,
    image_url: String,
    has_image: bool,
    identifier: Option<String>,
    username: Option<String>,
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
    fn read(user: &Entry) -> Self {
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

/// The JSON of the user of a membership, who may be gone.
pub(super) fn member(user_id: &str, user: Option<&Entry>) -> Vec<u8> {
    let profile = user.map(Profile::read).unwrap_or_default();
    let image_url = profile.image_url.unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
    let member = PublicMemberData {
        user_id,
        first_name: profile.first_name,
        last_name: profile.last_name,
        profile_image_url: profile.profile_image_url.unwrap_or_else(|| image_url.clone()),
        image_url,
        has_image: profile.has_image,
        identifier: profile.identifier,
        username: profile.username,
        banned: profile.banned,
        deprovisioned: profile.deprovisioned,
    };
    serde_json::to_vec(&member).expect("public data can be written to memory")
}

pub(super) fn inviter(user: &Entry) -> PublicInviterData {
    let profile = Profile::read(user);
    PublicInviterData {
        user_id: user.id.to_string(),
        first_name: profile.first_name,
        last_name: profile.last_name,
        image_url: profile.image_url.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
        has_image: profile.has_image,
        identifier: profile.identifier.unwrap_or_default(),
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
