//! The client: connections, budget, and how one request is sent.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::AtomicBool},
    time::{Duration, Instant},
};

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue};

use super::{
    ClientError, Error, ErrorResponse, ResponseBody, Tally,
    body::{MAX_BODY, is_gzip, unpack},
    budget::{Budget, Share},
    error::innermost,
    retry::retrying,
};
use crate::{
    resource::{DigestKey, Exclusions},
    secret::Secret,
    server_time::{date, retry_after},
};

/// The version of Clerk's API. The users endpoints are the same since 2025-04-10. Source:
/// documented.
const API_VERSION: &str = "2026-05-12";

/// How to reach a Clerk instance.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Base address; a trailing `/v1` is removed.
    pub api_url: String,
    /// The instance's secret key.
    pub secret_key: Secret,
    /// Clerk's rate limit for this instance, in requests in ten seconds; `None` for the usual one
    /// of such a key.
    pub rate_limit: Option<u32>,
    /// The part of Clerk's rate limit that may be spent, above 0 and up to 1.
    pub request_budget: f64,
    /// The time limit of a request. Also how long a failing request is repeated, so that an outage
    /// is an error after twice this time at most.
    pub timeout: Duration,
    /// Fields that are left out of all documents.
    pub excluded: Exclusions,
}

/// A client of Clerk's Backend API. Clones share the budget, the connections and the counts of
/// requests.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    api_url: String,
    timeout: Duration,
    budget: Arc<Budget>,
    share: Share,
    asks_once: bool,
    digest_key: Arc<RwLock<DigestKey>>,
    excluded: Arc<Exclusions>,
    /// The server's time in the last answer that had one, and when that answer came.
    clock: Arc<Mutex<Option<(i64, Instant)>>>,
    /// Whether the log says that the server does not answer.
    is_away: Arc<AtomicBool>,
    tally: Tally,
}

impl Client {
    /// Makes a client. It sends no request yet.
    ///
    /// # Errors
    /// The key cannot be sent in a header, or no trusted certificates can be loaded.
    pub fn new(settings: &ClientSettings) -> Result<Self, ClientError> {
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
            // A redirect means a wrong address. Following it would send the request, without the
            // key, to another server.
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
            share: Share::Whole,
            asks_once: false,
            digest_key: Arc::default(),
            excluded: Arc::new(settings.excluded.clone()),
            clock: Arc::default(),
            is_away: Arc::default(),
            tally: Tally::default(),
        })
    }

    /// Returns the same client, which adds its requests to earlier counts.
    #[must_use]
    pub fn counting(self, tally: Tally) -> Self {
        Self { tally, ..self }
    }

    /// Returns the same client in place of another: requests that the other one sent count as its
    /// own.
    #[must_use]
    pub fn in_place_of(self, other: &Self) -> Self {
        let budget = Budget::in_place_of(self.budget, &other.budget);
        Self { budget, ..self }
    }

    /// Returns the same client for requests in great numbers: they leave a tenth of the budget to
    /// requests that are more urgent.
    #[must_use]
    pub fn patient(&self) -> Self {
        self.with(Share::Patient)
    }

    /// Returns the same client for walks that can wait: they take a third of the budget.
    #[must_use]
    pub fn in_background(&self) -> Self {
        self.with(Share::Background)
    }

    /// Returns the same client for requests that notifications ask for: they get a quarter of the
    /// budget, because every role that may connect to the database can send notifications.
    #[must_use]
    pub fn for_notifications(&self) -> Self {
        self.with(Share::Notifications)
    }

    /// What notifications ask for keeps its share.
    fn with(&self, share: Share) -> Self {
        let share = match self.share {
            Share::Notifications => self.share,
            Share::Whole | Share::Patient | Share::Background => share,
        };
        Self { share, ..self.clone() }
    }

    /// Returns the same client without retries, to find out how Clerk answers at this moment.
    #[must_use]
    pub fn asking_once(self) -> Self {
        Self {
            asks_once: true,
            ..self
        }
    }

    /// Returns how many requests notifications may ask for in ten seconds.
    pub fn max_for_notifications(&self) -> usize {
        self.budget.for_notifications()
    }

    /// Returns how many of them may be sent now.
    pub fn free_for_notifications(&self) -> usize {
        self.budget.free_for_notifications()
    }

    /// Waits until one of them may be sent.
    pub async fn is_free_for_notifications(&self) {
        self.budget.is_free_for_notifications().await;
    }

    /// Sets the key of the digests that are stored. Those of all pages to come depend on it, and on the
    /// fields that are left out.
    pub fn set_digest_key(&self, key: DigestKey) {
        let key = key.without_fields(&self.excluded);
        *self.digest_key.write().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// Returns the fields that are left out of all documents.
    pub fn excluded(&self) -> &Exclusions {
        &self.excluded
    }

    pub(super) fn digest_key(&self) -> DigestKey {
        *self.digest_key.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time by the server's clock, in Unix milliseconds: up to a second late, as
    /// answers have whole seconds. `None` if no answer had it.
    pub fn now(&self) -> Option<i64> {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let (date, at) = clock?;
        Some(date.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns how many requests were sent so far, with retries.
    pub fn requests(&self) -> u64 {
        self.tally.sent()
    }

    /// Returns how many requests a second the budget allows over time.
    pub fn requests_per_second(&self) -> f64 {
        self.budget.per_second()
    }

    /// Returns the part of the budget that is spent now, from 0 to 1.
    pub fn budget_used(&self) -> f64 {
        self.budget.used()
    }

    /// Returns how often Clerk's rate limit has refused a request.
    pub fn rate_limited(&self) -> u64 {
        self.tally.rate_limited()
    }

    /// Returns the base address, for messages.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// Waits until the next request of a long series may be sent.
    pub(super) async fn steady(&self) {
        self.budget.steady(self.share).await;
    }

    /// Sends a request until there is an answer that `read` can read, as long as the error allows.
    pub(super) async fn get<T>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        read: impl Fn(ResponseBody) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let request = async || read(self.attempt(path, parameters).await?);
        match self.asks_once {
            true => request().await,
            false => retrying(self.timeout, &self.is_away, request).await,
        }
    }

    async fn attempt(&self, path: &str, parameters: &[(&str, String)]) -> Result<ResponseBody, Error> {
        let _permit = self.budget.permit(self.share).await;
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
                // A refusal counts even if its body cannot be read.
                unpacked => unpacked.unwrap_or_default(),
            };
        }
        if status.is_success() {
            let date = date(&headers);
            if let Some(date) = date {
                *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((date, Instant::now()));
            }
            return Ok(ResponseBody { bytes: body, date });
        }
        Err(Error::of_answer(
            ErrorResponse::new(status, &headers, &body, path),
            retry_after(&headers).unwrap_or_default(),
        ))
    }
}

/// Returns the address without a trailing `/v1`, with which each path begins: Clerk's documentation
/// gives the address with and without it.
fn base(api_url: &str) -> &str {
    let url = api_url.trim_end_matches('/');
    url.strip_suffix("/v1").map_or(url, |url| url.trim_end_matches('/'))
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
}
