//! The requests that the simulator received in a period.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use clerk_sim::{Request, Sim};

/// The window of Clerk's rate limit, in milliseconds.
const WINDOW_MS: i64 = 10_000;

/// The current time in Unix milliseconds, as in the simulator's log.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Requests in the order in which they arrived.
pub struct Requests(Vec<Request>);

impl Requests {
    /// Requests that arrived in this period and were answered.
    pub fn between(sim: &Sim, from: i64, to: i64) -> Self {
        let mut requests = sim.log();
        requests.retain(|request| (from..=to).contains(&request.at));
        requests.sort_by_key(|request| request.at);
        Self(requests)
    }

    /// Requests that arrived from this time on and were answered.
    pub fn since(sim: &Sim, from: i64) -> Self {
        Self::between(sim, from, i64::MAX)
    }

    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// The number of incremental syncs that began.
    pub fn incremental_syncs(&self) -> u64 {
        self.0.iter().filter(|request| begins_incremental_sync(request)).count() as u64
    }

    /// The highest number in ten seconds.
    pub fn busiest_window(&self) -> u64 {
        let mut first = 0;
        let mut max = 0;
        for (last, request) in self.0.iter().enumerate() {
            while request.at - self.0[first].at >= WINDOW_MS {
                first += 1;
            }
            max = max.max(last - first + 1);
        }
        max as u64
    }

    pub fn with_status(&self, status: u16) -> u64 {
        self.0.iter().filter(|request| request.status == status).count() as u64
    }

    /// The number of requests of each kind, as text.
    pub fn kinds(&self) -> String {
        let mut kinds = BTreeMap::<String, usize>::new();
        for request in &self.0 {
            *kinds.entry(kind(request)).or_default() += 1;
        }
        let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        kinds.join(", ")
    }
}

fn parameters(request: &Request) -> impl Iterator<Item = (&str, &str)> {
    let query = request.path.split_once('?').map_or("", |(_, query)| query);
    query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

/// Whether it asks for the first page of recently changed users. Each incremental sync begins so.
fn begins_incremental_sync(request: &Request) -> bool {
    let has = |name, value| parameters(request).any(|parameter| parameter == (name, value));
    let has_offset = parameters(request).any(|(name, value)| name == "offset" && value != "0");
    request.path.starts_with("/v1/users?") && has("order_by", "-updated_at") && !has_offset
}

/// The path without ids, and the names of the parameters.
fn kind(request: &Request) -> String {
    if begins_incremental_sync(request) {
        return "incremental sync".to_owned();
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let path = match path.find("/user_") {
        Some(at) => format!("{}/{{id}}", &path[..at]),
        None => path.to_owned(),
    };
    let mut names: Vec<_> = parameters(request).map(|(name, _)| name).collect();
    names.dedup();
    format!("{path}?{}", names.join("&")).trim_end_matches('?').to_owned()
}

/// Waits for an incremental sync that begins from now on.
pub async fn wait_for_incremental_sync(sim: &Sim) -> Result<()> {
    let from = now_ms();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if Requests::since(sim, from).incremental_syncs() > 0 {
            return Ok(());
        }
    }
    bail!("no incremental sync began for a minute")
}
