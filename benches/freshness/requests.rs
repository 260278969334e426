//! What the simulator was asked in a stretch of time.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use clerk_sim::{Request, Sim};

/// The length of Clerk's rate limit's window.
const WINDOW_MS: i64 = 10_000;

/// The simulator's clock.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Requests in the order in which they arrived.
pub struct Requests(Vec<Request>);

impl Requests {
    /// Those that arrived in this stretch of time and were answered.
    pub fn between(sim: &Sim, from: i64, to: i64) -> Self {
        let mut requests = sim.log();
        requests.retain(|request| (from..=to).contains(&request.at));
        requests.sort_by_key(|request| request.at);
        Self(requests)
    }

    pub fn since(sim: &Sim, from: i64) -> Self {
        Self::between(sim, from, i64::MAX)
    }

    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// How many incremental syncs began.
    pub fn looks(&self) -> u64 {
        self.0.iter().filter(|request| is_look(request)).count() as u64
    }

    /// The most in any ten seconds.
    pub fn busiest_window(&self) -> u64 {
        let mut first = 0;
        let mut most = 0;
        for (last, request) in self.0.iter().enumerate() {
            while request.at - self.0[first].at >= WINDOW_MS {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        most as u64
    }

    pub fn with_status(&self, status: u16) -> u64 {
        self.0.iter().filter(|request| request.status == status).count() as u64
    }

    /// How many of which kind.
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

/// The first page of the users who changed last, by which each incremental sync begins.
fn is_look(request: &Request) -> bool {
    let has = |name, value| parameters(request).any(|parameter| parameter == (name, value));
    let goes_on = parameters(request).any(|(name, value)| name == "offset" && value != "0");
    request.path.starts_with("/v1/users?") && has("order_by", "-updated_at") && !goes_on
}

/// The path without ids, and the names of the parameters.
fn kind(request: &Request) -> String {
    if is_look(request) {
        return "look".to_owned();
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
pub async fn look(sim: &Sim) -> Result<()> {
    let from = now_ms();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if Requests::since(sim, from).looks() > 0 {
            return Ok(());
        }
    }
    bail!("for a minute, the daemon did not ask for the users who changed last")
}
