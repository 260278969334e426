//! The requests: what is asked for, and how answers are read.

use std::collections::BTreeSet;

use serde::{Deserialize, de::DeserializeOwned};

use super::{Client, Error, MAX_ANSWER, Page, ResponseBody};
use crate::{
    reconcile::{range::Range, walk::ListQuery},
    resource::{Confirm, Count, MAX_IDS, Place, Resource},
};

/// Clerk's error code for what does not exist. Source: documented.
const NOT_FOUND: &str = "resource_not_found";

/// Ascending, as `+` is implied (documented). Emulators that strip only `-` do not know a literal
/// `+`: they sort by something else (observed).
const BY_CREATION: &str = "created_at";

/// For lists that Clerk does not order by update: their newest objects first.
const NEWEST_FIRST: &str = "-created_at";

/// What `/v1/instance` says about the key's instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Instance {
    /// `ins_…`
    pub id: String,
    /// `production`, `development`, …
    #[serde(default)]
    pub environment_type: String,
}

/// The answer to asking for one object by id.
#[derive(Debug)]
pub enum Lookup {
    /// The object, on a page.
    Found(Page),
    /// Clerk says that there is no such object.
    Gone,
    /// Clerk was not asked: the organization that it belongs to is not known, it has no address of its
    /// own, like a membership, or no path can hold its id.
    PlaceUnknown,
}

/// The answer to asking for members of an organization.
#[derive(Debug)]
pub enum Members {
    /// Clerk shows these. The others that were asked for are none.
    Shown(Page),
    /// Clerk says that there is no such organization.
    NoOrganization,
    /// The members on the page exist; about the others, the answer proves nothing, for this reason.
    Unclear(Page, &'static str),
}

impl Client {
    /// Asks for the key's instance. `None` if the server does not know the endpoint, as emulators
    /// do not.
    pub async fn instance(&self) -> Result<Option<Instance>, Error> {
        if_known(self.get("instance", &[], json("GET /v1/instance")).await)
    }

    /// Returns what stands for the identity of a server that does not say it.
    pub fn address_as_instance(&self) -> Instance {
        Instance {
            id: format!("url:{}", self.api_url()),
            environment_type: "emulator".to_owned(),
        }
    }

    /// Asks how many objects Clerk has in a range of `created_at`. `None` if the server does not know
    /// the endpoint that counts, or cannot count a range.
    pub async fn count(&self, resource: &'static Resource, range: Range) -> Result<Option<u64>, Error> {
        #[derive(Deserialize)]
        struct Total {
            // Four billion are more than any instance has, and sums of them do not overflow.
            total_count: u32,
        }
        let path = match resource.list.count {
            Count::Endpoint(path) => path,
            Count::InList if range == Range::ALL => return Ok(self.recent(resource, 0, 1).await?.total),
            Count::InList => return Ok(None),
        };
        let request = format!("GET /v1/{path}");
        let total = self.get(path, &bounds(range), json(&request)).await;
        Ok(if_known(total)?.map(|total: Total| total.total_count.into()))
    }

    /// Asks for a page of the list with the last change first, at most `limit` objects. Clerk has
    /// no cursor for this order, and no filter by `updated_at`. Source: documented.
    pub async fn recent(&self, resource: &'static Resource, offset: u64, limit: u32) -> Result<Page, Error> {
        let order = resource.list.by_update.unwrap_or(NEWEST_FIRST);
        let parameters = [
            ("order_by", order.to_owned()),
            ("limit", limit.to_string()),
            ("offset", offset.to_string()),
        ];
        self.page(resource, &parameters, &format!("?order_by={order}")).await
    }

    /// Asks for a page of a range of `created_at`, in ascending order, after its first `offset`
    /// objects, at most `limit`.
    pub async fn range(
        &self,
        resource: &'static Resource,
        range: Range,
        offset: u64,
        limit: u32,
    ) -> Result<Page, Error> {
        let mut parameters = bounds(range);
        parameters.push(("order_by", BY_CREATION.to_owned()));
        parameters.push(("limit", limit.to_string()));
        parameters.push(("offset", offset.to_string()));
        let shown = match range {
            Range::ALL => "",
            _ => "?created_at_after=…",
        };
        self.page(resource, &parameters, shown).await
    }

    /// Asks for a page of the list in ascending order of `created_at`, at most `limit` objects.
    pub async fn list(&self, resource: &'static Resource, query: &ListQuery, limit: u32) -> Result<Page, Error> {
        let mut parameters = vec![("order_by", BY_CREATION.to_owned()), ("limit", limit.to_string())];
        if let Some((cursor, after)) = resource.list.cursor.zip(query.after.as_ref()) {
            parameters.push((cursor, after.clone()));
        }
        if let Some(after) = query.created_after.filter(|_| resource.has_ranges()) {
            parameters.push(("created_at_after", after.to_string()));
        }
        if query.offset > 0 {
            parameters.push(("offset", query.offset.to_string()));
        }
        self.steady().await;
        self.page(resource, &parameters, "").await
    }

    /// Asks for objects by id, at most [`MAX_IDS`]. Unknown ids are left out. Source: documented. A
    /// server that ignores the filter, or has none, answers with other objects, so compare the
    /// answer with the question.
    pub async fn by_ids(&self, resource: &'static Resource, ids: &[&str]) -> Result<Page, Error> {
        debug_assert!(ids.len() <= MAX_IDS, "Clerk takes {MAX_IDS} ids");
        let filter = resource.list.ids.into_iter();
        let mut parameters: Vec<_> = filter
            .flat_map(|name| ids.iter().map(move |id| (name, (*id).to_owned())))
            .collect();
        parameters.push(("limit", MAX_IDS.to_string()));
        let shown = format!("?{}=…", resource.list.ids.unwrap_or("limit"));
        self.page(resource, &parameters, &shown).await
    }

    /// Asks for one object by id. Memberships are asked for by [`Self::members`].
    pub async fn by_id(&self, resource: &'static Resource, place: &Place) -> Result<Lookup, Error> {
        // Even encoded, such a segment of a path means another path.
        if matches!(place.id.as_str(), "" | "." | "..") {
            return Ok(Lookup::PlaceUnknown);
        }
        let id = urlencode(&place.id);
        match (resource.confirm, &place.organization_id) {
            (Confirm::ById { path, code }, _) => {
                let (path, shown) = (format!("{path}/{id}"), format!("{path}/{{id}}"));
                self.single(resource, &path, &shown, code).await
            }
            (Confirm::InOrganization { path, code }, Some(organization)) => {
                let organization = urlencode(organization);
                let full = format!("organizations/{organization}/{path}/{id}");
                let shown = format!("organizations/{{id}}/{path}/{{id}}");
                self.single(resource, &full, &shown, code).await
            }
            (Confirm::InOrganization { .. }, None) | (Confirm::Member, _) => Ok(Lookup::PlaceUnknown),
        }
    }

    /// Asks for one object. `shown` is its path in an error, and `code` what Clerk answers if there
    /// is none.
    async fn single(&self, resource: &'static Resource, path: &str, shown: &str, code: &str) -> Result<Lookup, Error> {
        let key = self.digest_key();
        let read = |body| {
            Page::single(resource, body, &key)
                .map(|page| page.without(self.excluded(), resource))
                .map_err(|(body, why)| Error::garbage(&format!("GET /v1/{shown}"), &body, &why))
        };
        match self.get(path, &[], read).await {
            Ok(page) => Ok(Lookup::Found(page)),
            Err(Error::NotFound(answer)) if answer.has_code(code) => Ok(Lookup::Gone),
            Err(error) => Err(error),
        }
    }

    /// Asks which of some users, fewer than [`MAX_IDS`], are members of an organization, together with
    /// another member: an answer without that one proves nothing. If the mirror knows no other member,
    /// the organization must have none at all.
    pub async fn members(
        &self,
        resource: &'static Resource,
        places: &[Place],
        organization: &str,
    ) -> Result<Members, Error> {
        debug_assert!(places.len() < MAX_IDS, "Clerk takes {MAX_IDS} ids");
        let path = format!("organizations/{}/memberships", urlencode(organization));
        let witness = places.first().and_then(|place| place.witness.as_ref());
        let users: Option<BTreeSet<&String>> = places.iter().map(|place| place.user_id.as_ref()).collect();
        // The witness comes last, in the question and in the answer, as the mirror takes the newest member: a
        // server that reads one user only, or cuts the page, does not show both.
        let filter = users.zip(witness).map(|(mut users, (_, other))| {
            users.remove(other);
            let asked: Vec<&String> = users.into_iter().chain([other]).collect();
            asked
        });
        let mut parameters = vec![
            ("limit", resource.list.max_page.to_string()),
            ("order_by", BY_CREATION.to_owned()),
        ];
        let asked = filter.iter().flatten();
        parameters.extend(asked.map(|user| ("user_id", (*user).clone())));
        let shown = "organizations/{id}/memberships";
        let page = match self.page_of(resource, &path, &parameters, shown).await {
            Ok(page) => page,
            Err(Error::NotFound(answer)) if answer.has_code(NOT_FOUND) => return Ok(Members::NoOrganization),
            Err(error) => return Err(error),
        };
        let shows = |id: &str| page.objects().iter().any(|raw| raw.id.as_deref() == Some(id));
        let shown = page.objects().len();
        // A server that ignores the filter answers with other members, and may leave some out.
        let is_complete = match &filter {
            Some(asked) => shown <= asked.len(),
            None => page.total == Some(shown as u64),
        };
        let why = match witness {
            Some(_) if !is_complete => "the answer does not hold all members that were asked for",
            Some((witness, _)) if shows(witness) => return Ok(Members::Shown(page)),
            Some(_) => "the answer leaves out a member who is known to exist",
            None if shown > 0 || page.total != Some(0) => "the organization has members that are not in the mirror yet",
            None if self.members_count(organization).await? == Some(0) => return Ok(Members::Shown(page)),
            None => "the organization has members, but none is listed",
        };
        Ok(Members::Unclear(page, why))
    }

    /// Asks how many members an organization has; `None` if the answer does not say.
    async fn members_count(&self, organization: &str) -> Result<Option<u64>, Error> {
        #[derive(Deserialize)]
        struct Members {
            members_count: Option<u64>,
        }
        let path = format!("organizations/{}", urlencode(organization));
        let parameters = [("include_members_count", "true".to_owned())];
        let read = json("GET /v1/organizations/{id}");
        let Members { members_count } = self.get(&path, &parameters, read).await?;
        Ok(members_count)
    }

    /// Asks for a page of the list. `shown` are the parameters in an error.
    async fn page(
        &self,
        resource: &'static Resource,
        parameters: &[(&str, String)],
        shown: &str,
    ) -> Result<Page, Error> {
        let path = resource.list.path;
        self.page_of(resource, path, parameters, &format!("{path}{shown}"))
            .await
    }

    /// Asks for a page of the list at a path, which is `shown` in an error.
    async fn page_of(
        &self,
        resource: &'static Resource,
        path: &str,
        parameters: &[(&str, String)],
        shown: &str,
    ) -> Result<Page, Error> {
        let key = self.digest_key();
        let read = |body| {
            Page::parse(resource, body, &key)
                .map(|page| page.without(self.excluded(), resource))
                .map_err(|(body, why)| Error::garbage(&format!("GET /v1/{shown}"), &body, &why))
        };
        self.get(path, parameters, read).await
    }
}

fn json<T: DeserializeOwned>(request: &str) -> impl Fn(ResponseBody) -> Result<T, Error> {
    move |ResponseBody { bytes, .. }| {
        if bytes.len() > MAX_ANSWER {
            return Err(Error::TooLarge { limit: MAX_ANSWER });
        }
        serde_json::from_slice(&bytes).map_err(|error| Error::garbage(request, &bytes, &error.to_string()))
    }
}

/// Returns a half-open range as Clerk's bounds, which most likely exclude their own moment. Source:
/// a guess. If it is wrong, objects at the very bound count twice, so it is best to choose bounds
/// where no object is.
fn bounds(range: Range) -> Vec<(&'static str, String)> {
    let after = range.from.map(|from| ("created_at_after", (from - 1).to_string()));
    let before = range.before.map(|before| ("created_at_before", before.to_string()));
    after.into_iter().chain(before).collect()
}

/// Returns `None` if the server does not know the endpoint.
fn if_known<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Encodes an id for a path. Ids are letters, digits and underscores; anything else must not leave
/// its segment of the path.
fn urlencode(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
