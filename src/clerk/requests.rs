//! The requests: what is asked for, and how answers are read.

use serde::{Deserialize, de::DeserializeOwned};

use super::{Client, Error, MAX_ANSWER, Page, ResponseBody};
use crate::{
    reconcile::{range::Range, walk::ListQuery},
    resource::{Confirm, MAX_IDS, Resource},
};

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
    /// The object, as a page of one.
    Found(Page),
    /// Clerk says that there is no such object.
    Gone,
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

    /// Asks how many objects Clerk has in a range of `created_at`. `None` if there is no endpoint
    /// that counts, or the server does not know it.
    pub async fn count(&self, resource: &'static Resource, range: Range) -> Result<Option<u64>, Error> {
        #[derive(Deserialize)]
        struct Total {
            // Four billion are more than any instance has, and sums of them do not overflow.
            total_count: u32,
        }
        let Some(path) = resource.list.count else {
            return Ok(None);
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
    /// objects.
    pub async fn range(&self, resource: &'static Resource, range: Range, offset: u64) -> Result<Page, Error> {
        let mut parameters = bounds(range);
        parameters.push(("order_by", BY_CREATION.to_owned()));
        parameters.push(("limit", resource.list.max_page.to_string()));
        parameters.push(("offset", offset.to_string()));
        self.page(resource, &parameters, "?created_at_after=…").await
    }

    /// Asks for a page of the list in ascending order of `created_at`, at most `limit` objects.
    pub async fn list(&self, resource: &'static Resource, query: &ListQuery, limit: u32) -> Result<Page, Error> {
        let mut parameters = vec![("order_by", BY_CREATION.to_owned()), ("limit", limit.to_string())];
        if let Some((cursor, after)) = resource.list.cursor.zip(query.after.as_ref()) {
            parameters.push((cursor, after.clone()));
        }
        if let Some(after) = query.created_after {
            parameters.push(("created_at_after", after.to_string()));
        }
        if query.offset > 0 {
            parameters.push(("offset", query.offset.to_string()));
        }
        self.steady().await;
        self.page(resource, &parameters, "").await
    }

    /// Asks for objects by id, at most [`MAX_IDS`]. Unknown ids are left out. Source: documented. A
    /// server that ignores the filter answers with other objects, so compare the answer with the
    /// question.
    pub async fn by_ids(&self, resource: &'static Resource, ids: &[&str]) -> Result<Page, Error> {
        let list = &resource.list;
        debug_assert!(ids.len() <= MAX_IDS, "Clerk takes {MAX_IDS} ids");
        let mut parameters: Vec<_> = ids.iter().map(|id| (list.ids, (*id).to_owned())).collect();
        parameters.push(("limit", MAX_IDS.to_string()));
        self.page(resource, &parameters, &format!("?{}=…", list.ids)).await
    }

    /// Asks for one object by id.
    pub async fn by_id(&self, resource: &'static Resource, id: &str) -> Result<Lookup, Error> {
        let Confirm::ById { path, code } = resource.confirm;
        let key = self.digest_key();
        let read = |body| {
            Page::single(body, &key)
                .map_err(|(body, why)| Error::garbage(&format!("GET /v1/{path}/{{id}}"), &body, &why))
        };
        match self.get(&format!("{path}/{}", urlencode(id)), &[], read).await {
            Ok(page) => Ok(Lookup::Found(page)),
            Err(Error::NotFound(answer)) if answer.has_code(code) => Ok(Lookup::Gone),
            Err(error) => Err(error),
        }
    }

    /// Asks for a page of the list. `shown` are the parameters in an error.
    async fn page(
        &self,
        resource: &'static Resource,
        parameters: &[(&str, String)],
        shown: &str,
    ) -> Result<Page, Error> {
        let path = resource.list.path;
        let key = self.digest_key();
        let read = |body| {
            Page::parse(body, &key)
                .map_err(|(body, why)| Error::garbage(&format!("GET /v1/{path}{shown}"), &body, &why))
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
