//! The Clerk side: asks the Backend API within its budget, and turns answers into pages of undecoded users.

mod budget;
mod error;
mod page;
mod tally;

use std::{
    io::Read,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use flate2::read::MultiGzDecoder;
use libdeflater::{Decompressor, crc32};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderValue};
use serde::{Deserialize, de::DeserializeOwned};
use tracing::{debug, warn};

use crate::{
    reconcile::{range::Range, walk::ListQuery},
    resource::{DigestKey, MAX_PAGE},
    secret::Secret,
};
use budget::Budget;
use error::{Answer, Retry, innermost};
pub use error::{ClientError, Error, Objection};
pub use page::{Body, MAX_USERS, Page, Raw};
pub use tally::Tally;

/// The version of Clerk's API that this client speaks. The users endpoints are the same since 2025-04-10. Source: documented.
const API_VERSION: &str = "2026-05-12";

/// Ascending, as `+` is implied (documented). A literal one is unknown to emulators that strip only `-`: they sort by something else (observed).
const BY_CREATION: &str = "created_at";

/// Most ids in one question by id. Source: documented.
pub const MAX_IDS: usize = 100;

/// The largest body that is read, in bytes after decompression: a page of 500 users of 64 kB each.
pub const MAX_BODY: usize = 32 << 20;

/// The largest body that is read of an answer without users.
const MAX_ANSWER: usize = 1 << 20;

/// How long a rate-limited request waits as it was told, in all, before it counts as failed.
const RATE_LIMITED: Duration = Duration::from_secs(120);

/// How often an answer that cannot be read is asked for again.
const GARBAGE_TRIES: u32 = 2;

/// How to reach a Clerk instance.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base address; a trailing `/v1` is taken off.
    pub api_url: String,
    /// The instance's secret key.
    pub secret_key: Secret,
    /// Clerk's rate limit for this instance, in requests in ten seconds; none for what is usual for such a key.
    pub rate_limit: Option<u32>,
    /// The part of Clerk's rate limit that may be spent, above 0 and up to 1.
    pub request_budget: f64,
    /// For one request; also how long one that fails is tried again, so that an outage is an error after twice this time at most.
    pub timeout: Duration,
}

/// What `/v1/instance` says of the key's instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Instance {
    /// `ins_…`
    pub id: String,
    /// `production`, `development`, …
    #[serde(default)]
    pub environment_type: String,
}

/// The answer to asking for one user by id.
#[derive(Debug)]
pub enum Lookup {
    /// The user, as a page of one.
    Found(Page),
    /// Clerk says with 404 `resource_not_found` that there is no such user.
    Gone,
}

/// A client of Clerk's Backend API. Clones share the budget, the connections and the counts of requests.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    api_url: String,
    timeout: Duration,
    budget: Arc<Budget>,
    is_patient: bool,
    is_for_notifications: bool,
    asks_once: bool,
    digest_key: Arc<RwLock<DigestKey>>,
    /// The server's time in the last answer that had one, and when that answer came.
    clock: Arc<Mutex<Option<(i64, Instant)>>>,
    tally: Tally,
}

impl Client {
    /// A client; no request is made yet.
    ///
    /// # Errors
    /// The key cannot be sent in a header, or no trusted certificates can be loaded.
    pub fn new(settings: &Settings) -> Result<Self, ClientError> {
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {}", settings.secret_key.expose())).map_err(|_| ClientError::Key)?;
        authorization.set_sensitive(true);
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, authorization),
            (ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
            (
                reqwest::header::HeaderName::from_static("clerk-api-version"),
                HeaderValue::from_static(API_VERSION),
            ),
        ]);
        let http = reqwest::Client::builder()
            .user_agent(concat!("clerk2pg/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .timeout(settings.timeout)
            .connect_timeout(settings.timeout.min(Duration::from_secs(10)))
            // A redirect means a wrong address; following it would carry the question, not the key, to somebody else.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ClientError::Https(innermost(&error).to_string()))?;
        Ok(Self {
            http,
            api_url: base(&settings.api_url).to_owned(),
            timeout: settings.timeout,
            budget: Arc::new(Budget::new(
                &settings.secret_key,
                settings.rate_limit,
                settings.request_budget,
            )),
            is_patient: false,
            is_for_notifications: false,
            asks_once: false,
            digest_key: Arc::default(),
            clock: Arc::default(),
            tally: Tally::default(),
        })
    }

    /// The same client, which counts its requests together with those counted before.
    #[must_use]
    pub fn counting(self, tally: Tally) -> Self {
        Self { tally, ..self }
    }

    /// The same client, which takes the place of another: what that one has spent counts as its own.
    #[must_use]
    pub fn in_place_of(self, other: &Self) -> Self {
        let budget = Budget::in_place_of(self.budget, &other.budget);
        Self { budget, ..self }
    }

    /// The same client, for requests that come in great numbers: they leave a tenth of the budget to those that somebody waits for.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self {
            is_patient: true,
            ..self.clone()
        }
    }

    /// The same client, for requests that notifications ask for: they get a quarter of the budget, as
    /// anybody who may connect to the database can send them.
    #[must_use]
    pub fn for_notifications(&self) -> Self {
        Self {
            is_for_notifications: true,
            ..self.clone()
        }
    }

    /// How many requests notifications may ask for in ten seconds.
    pub fn most_for_notifications(&self) -> usize {
        self.budget.for_notifications()
    }

    /// How many of them may be sent at this moment.
    pub fn free_for_notifications(&self) -> usize {
        self.budget.free_for_notifications()
    }

    /// Waits until one of them may be sent.
    pub async fn is_free_for_notifications(&self) {
        self.budget.is_free_for_notifications().await;
    }

    /// The same client, for who wants to know how Clerk answers at this moment: nothing is asked twice.
    #[must_use]
    pub fn asking_once(self) -> Self {
        Self {
            asks_once: true,
            ..self
        }
    }

    /// Takes the digests of all pages to come with this key.
    pub fn set_digest_key(&self, key: DigestKey) {
        *self.digest_key.write().unwrap_or_else(PoisonError::into_inner) = key;
    }

    fn digest_key(&self) -> DigestKey {
        *self.digest_key.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time by the server's clock, in Unix milliseconds: up to a second late, as answers have whole seconds. `None` if no answer had it.
    pub fn now(&self) -> Option<i64> {
        let told = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let (date, at) = told?;
        Some(date.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX)))
    }

    /// Requests sent so far, retries among them.
    pub fn requests(&self) -> u64 {
        self.tally.sent()
    }

    /// How many requests the budget lets out in a second, over time.
    pub fn requests_per_second(&self) -> f64 {
        self.budget.per_second()
    }

    /// The part of the budget that is spent at this moment, from 0 to 1.
    pub fn budget_used(&self) -> f64 {
        self.budget.used()
    }

    /// How often Clerk's rate limit refused a request so far.
    pub fn rate_limited(&self) -> u64 {
        self.tally.rate_limited()
    }

    /// The base address, for messages.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// What stands for the identity of a server that does not tell it.
    pub fn address_as_instance(&self) -> Instance {
        Instance {
            id: format!("url:{}", self.api_url),
            environment_type: "emulator".to_owned(),
        }
    }

    /// The key's instance; none where the server does not know the endpoint, as emulators do not.
    pub async fn instance(&self) -> Result<Option<Instance>, Error> {
        known(self.get("instance", &[], json("GET /v1/instance")).await)
    }

    /// How many users Clerk has in a stretch of `created_at`; none where the server does not know the endpoint.
    pub async fn count(&self, stretch: Range) -> Result<Option<u64>, Error> {
        #[derive(Deserialize)]
        struct Total {
            // Four billion are beyond any instance, and sums of them within what is reckoned with.
            total_count: u32,
        }
        let parameters = bounds(stretch);
        let total = self.get("users/count", &parameters, json("GET /v1/users/count")).await;
        Ok(known(total)?.map(|total: Total| total.total_count.into()))
    }

    /// A page of the list in descending order of `updated_at`, at most `limit` users. Clerk has no cursor for this order, and no filter by
    /// `updated_at`. Source: documented.
    pub async fn recent(&self, offset: u64, limit: u32) -> Result<Page, Error> {
        let parameters = [
            ("order_by", "-updated_at".to_owned()),
            ("limit", limit.to_string()),
            ("offset", offset.to_string()),
        ];
        self.get("users", &parameters, self.page("GET /v1/users?order_by=-updated_at"))
            .await
    }

    /// A page of a stretch of `created_at`, in its ascending order, behind the first `offset` of it.
    pub async fn stretch(&self, stretch: Range, offset: u64) -> Result<Page, Error> {
        let mut parameters = bounds(stretch);
        parameters.push(("order_by", BY_CREATION.to_owned()));
        parameters.push(("limit", MAX_PAGE.to_string()));
        parameters.push(("offset", offset.to_string()));
        self.get("users", &parameters, self.page("GET /v1/users?created_at_after=…"))
            .await
    }

    /// A page of the list in ascending order of `created_at`, at most `limit` users.
    pub async fn list(&self, query: &ListQuery, limit: u32) -> Result<Page, Error> {
        let mut parameters = vec![("order_by", BY_CREATION.to_owned()), ("limit", limit.to_string())];
        if let Some(after) = &query.after {
            parameters.push(("starting_after", after.clone()));
        }
        if let Some(after) = query.created_after {
            parameters.push(("created_at_after", after.to_string()));
        }
        if query.offset > 0 {
            parameters.push(("offset", query.offset.to_string()));
        }
        self.budget.steady().await;
        self.get("users", &parameters, self.page("GET /v1/users")).await
    }

    /// Asks for users by id: those of `ids` (at most [`MAX_IDS`]) that exist. Unknown ids are left out. Source: documented. A server that
    /// ignores the filter answers with strangers, so the answer must be held against the question.
    pub async fn named(&self, ids: &[&str]) -> Result<Page, Error> {
        debug_assert!(ids.len() <= MAX_IDS, "Clerk takes {MAX_IDS} ids");
        // The key is repeated: the form `user_id[0]=` is silently ignored and answers with everybody. Source: observed.
        let mut parameters: Vec<_> = ids.iter().map(|id| ("user_id", (*id).to_owned())).collect();
        parameters.push(("limit", MAX_IDS.to_string()));
        self.get("users", &parameters, self.page("GET /v1/users?user_id=…"))
            .await
    }

    /// Asks for one user by id.
    pub async fn user(&self, id: &str) -> Result<Lookup, Error> {
        let key = self.digest_key();
        let read =
            |body| Page::single(body, &key).map_err(|(body, why)| Error::garbage("GET /v1/users/{id}", &body, &why));
        match self.get(&format!("users/{}", urlencode(id)), &[], read).await {
            Ok(page) => Ok(Lookup::Found(page)),
            Err(Error::NotFound(answer)) if answer.has_code("resource_not_found") => Ok(Lookup::Gone),
            Err(error) => Err(error),
        }
    }

    /// Reads an answer as a page of users.
    fn page(&self, request: &str) -> impl Fn(Body) -> Result<Page, Error> {
        let key = self.digest_key();
        move |body| Page::parse(body, &key).map_err(|(body, why)| Error::garbage(request, &body, &why))
    }

    /// Asks until there is an answer that `read` can read, as far as the error deserves another try.
    async fn get<T>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        read: impl Fn(Body) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let (rate_limited, mut garbage) = (AtomicU32::new(0), 0);
        (async || read(self.attempt(path, parameters).await?))
            .retry(
                ExponentialBuilder::default()
                    .with_min_delay(Duration::from_millis(250))
                    .with_max_delay(Duration::from_secs(10))
                    .without_max_times()
                    .with_jitter(),
            )
            .when(|error| match error.retry() {
                _ if self.asks_once => false,
                Retry::No => false,
                Retry::WhenTold(after) => {
                    rate_limited.fetch_add(1, Ordering::Relaxed);
                    started.elapsed().saturating_add(after) < RATE_LIMITED
                }
                Retry::Briefly => {
                    garbage += 1;
                    garbage <= GARBAGE_TRIES
                }
                // A server that wants to be left alone for longer than an outage may last is away.
                Retry::Soon(after) => started.elapsed().saturating_add(after) < self.timeout,
            })
            .adjust(|error, backoff| match error.retry() {
                // `Retry-After: 0` occurs: never at once. Source: observed.
                Retry::WhenTold(after) => {
                    Some(after.max(Duration::from_secs(1)) + Duration::from_millis(fastrand::u64(50..500)))
                }
                Retry::Soon(after) => backoff.map(|backoff| backoff.max(after)),
                Retry::Briefly => backoff,
                Retry::No => None,
            })
            .notify(|error, wait| {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                if rate_limited.load(Ordering::Relaxed) == 1 && matches!(error, Error::RateLimited { .. }) {
                    warn!(wait_ms, "Clerk asks to slow down");
                } else {
                    debug!(wait_ms, %error, "asking Clerk again");
                }
            })
            .await
    }

    async fn attempt(&self, path: &str, parameters: &[(&str, String)]) -> Result<Body, Error> {
        let _place = match self.is_for_notifications {
            true => self.budget.place_for_notification().await,
            false => self.budget.place(self.is_patient).await,
        };
        self.tally.send();
        let unavailable = |error: reqwest::Error| Error::unavailable(&self.api_url, &error);
        let sent = self
            .http
            .get(format!("{}/v1/{path}", self.api_url))
            .query(parameters)
            .send()
            .await;
        self.tally
            .answer(sent.as_ref().ok().map(|response| response.status().as_u16()));
        let mut response = sent.map_err(unavailable)?;

        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let length = response
            .content_length()
            .and_then(|length| usize::try_from(length).ok());
        let mut body = Vec::with_capacity(length.unwrap_or_default().min(MAX_BODY));
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(Error::TooLarge { limit: MAX_BODY });
            }
            body.extend_from_slice(&chunk);
        }
        if is_gzip(&headers) {
            body = match unpack(&body, path) {
                Err(error) if status.is_success() => return Err(error),
                // A refusal is one whatever it says besides.
                unpacked => unpacked.unwrap_or_default(),
            };
        }
        if status.is_success() {
            let date = date(&headers);
            if let Some(date) = date {
                *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((date, Instant::now()));
            }
            return Ok(Body { bytes: body, date });
        }
        Err(Error::of_answer(
            Answer::new(status, &headers, &body, path),
            retry_after(&headers),
        ))
    }
}

fn is_gzip(headers: &HeaderMap) -> bool {
    let coding = headers.get(CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("gzip"))
}

/// Unpacks a whole gzip body. `path` is for the error.
///
/// # Errors
/// It is no gzip, or unpacks to more than [`MAX_BODY`]; no more than that is unpacked.
pub fn unpack(packed: &[u8], path: &str) -> Result<Vec<u8>, Error> {
    // A gzip member ends with the checksum and the length of what was packed. Of several, the first alone is unpacked at once: then they are
    // another one's.
    if let Some([a, b, c, d, length @ ..]) = packed.last_chunk::<8>() {
        let (checksum, length) = (
            u32::from_le_bytes([*a, *b, *c, *d]),
            u32::from_le_bytes(*length) as usize,
        );
        if (1..=MAX_BODY).contains(&length) {
            let mut body = vec![0; length];
            let unpacked = Decompressor::new().gzip_decompress(packed, &mut body);
            if unpacked == Ok(length) && crc32(&body) == checksum {
                return Ok(body);
            }
        }
    }
    let mut body = Vec::new();
    let read = MultiGzDecoder::new(packed)
        .take(MAX_BODY as u64 + 1)
        .read_to_end(&mut body)
        .map_err(|error| Error::Garbage(format!("GET /v1/{path} gave what cannot be unpacked: {error}")))?;
    if read > MAX_BODY {
        return Err(Error::TooLarge { limit: MAX_BODY });
    }
    Ok(body)
}

fn json<T: DeserializeOwned>(request: &str) -> impl Fn(Body) -> Result<T, Error> {
    move |Body { bytes, .. }| {
        if bytes.len() > MAX_ANSWER {
            return Err(Error::TooLarge { limit: MAX_ANSWER });
        }
        serde_json::from_slice(&bytes).map_err(|error| Error::garbage(request, &bytes, &error.to_string()))
    }
}

/// The address without a trailing `/v1`, which each path begins with: Clerk's documentation gives the address with and without it.
fn base(api_url: &str) -> &str {
    let url = api_url.trim_end_matches('/');
    url.strip_suffix("/v1").map_or(url, |url| url.trim_end_matches('/'))
}

/// The server's clock, in Unix milliseconds.
fn date(headers: &HeaderMap) -> Option<i64> {
    let text = headers.get(reqwest::header::DATE)?.to_str().ok()?;
    Some(chrono::DateTime::parse_from_rfc2822(text).ok()?.timestamp_millis())
}

/// How long to wait before the next request: `Retry-After` in seconds, or as a date, which is compared with the server's own clock.
/// Zero if the answer has none.
fn retry_after(headers: &HeaderMap) -> Duration {
    let text = headers
        .get(reqwest::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let Some(text) = text.map(str::trim) else {
        return Duration::ZERO;
    };
    if let Ok(seconds) = text.parse() {
        return Duration::from_secs(seconds);
    }
    let now = date(headers).unwrap_or_else(|| chrono::Utc::now().timestamp_millis());
    let then = chrono::DateTime::parse_from_rfc2822(text).map(|at| at.timestamp_millis());
    then.map_or(Duration::ZERO, |then| {
        Duration::from_millis(u64::try_from(then.saturating_sub(now)).unwrap_or_default())
    })
}

/// A half-open stretch as Clerk's bounds, which most likely exclude their own moment. Source: a guess; where it is wrong, users at the very
/// bound count twice, so that bounds are best laid where nobody is.
fn bounds(stretch: Range) -> Vec<(&'static str, String)> {
    let after = stretch.from.map(|from| ("created_at_after", (from - 1).to_string()));
    let before = stretch.before.map(|before| ("created_at_before", before.to_string()));
    after.into_iter().chain(before).collect()
}

/// None where the server does not know the endpoint.
fn known<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Ids are letters, digits and underscores; anything else must not leave its segment of the path.
fn urlencode(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_the_version_is_the_same() {
        for url in [
            "https://api.clerk.com",
            "https://api.clerk.com/",
            "https://api.clerk.com/v1",
            "https://api.clerk.com//v1//",
        ] {
            assert_eq!(base(url), "https://api.clerk.com", "{url}");
        }
        assert_eq!(base("http://localhost:1/clerk/v1/"), "http://localhost:1/clerk");
        assert_eq!(base("http://localhost:1/my-v1"), "http://localhost:1/my-v1");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let check = |pairs: &[(&'static str, &str)], expected| {
            let headers = pairs.iter().map(|(name, value)| {
                let name = reqwest::header::HeaderName::from_static(name);
                (name, HeaderValue::from_str(value).unwrap())
            });
            assert_eq!(
                retry_after(&headers.collect()),
                Duration::from_secs(expected),
                "{pairs:?}"
            );
        };
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        check(&[], 0);
        check(&[("retry-after", "7")], 7);
        check(&[("retry-after", " 0 ")], 0);
        check(&[("retry-after", "soon")], 0);
        check(&[("retry-after", "-3")], 0);
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date], 30);
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), date], 0);
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT"), date], 0);
        // Without the server's clock ours stands in, by which that is long ago.
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], 0);
    }
}
