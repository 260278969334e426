//! A small client.

use clerk_sim::{Effect, ErrorAnswer, ErrorBody, Options, OrganizationOptions, Sim};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// A simulator with a client that knows its key.
pub struct Clerk {
    pub sim: Sim,
    pub client: Client,
}

/// A complete answer.
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<String>,
    pub bytes: Vec<u8>,
}

/// The effect of answering with an error.
pub fn error(status: u16, retry_after: Option<u64>, body: ErrorBody) -> Effect {
    Effect::Error(ErrorAnswer {
        status,
        retry_after,
        body,
    })
}

/// The id of a document.
pub fn id(document: &Value) -> String {
    document["id"].as_str().expect("a document has an id").to_owned()
}

/// The ids of documents.
pub fn ids(documents: &[Value]) -> Vec<String> {
    documents.iter().map(id).collect()
}

fn client() -> Client {
    // This fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The tests check the bytes as they are sent.
    Client::builder().no_gzip().build().expect("a client without TLS")
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub fn ids(&self) -> Vec<String> {
        let list = self.json();
        let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
        list.iter()
            .map(|user| user["id"].as_str().expect("a user has an id").to_owned())
            .collect()
    }

    /// The objects of a list with a total.
    pub fn data(&self) -> Vec<Value> {
        let list = self.json();
        let data = list["data"].as_array();
        data.unwrap_or_else(|| panic!("no list: {list}")).clone()
    }

    /// The total of a list.
    pub fn total(&self) -> u64 {
        self.json()["total_count"].as_u64().expect("a total")
    }

    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Clerk {
    pub async fn with(options: Options) -> Self {
        let sim = Sim::start(options).await.expect("the simulator starts");
        Self { sim, client: client() }
    }

    pub async fn users(users: usize) -> Self {
        Self::with(Options {
            users,
            ..Options::default()
        })
        .await
    }

    /// A simulator with organizations.
    pub async fn organizations(users: usize, organizations: OrganizationOptions) -> Self {
        Self::with(Options {
            users,
            organizations,
            ..Options::default()
        })
        .await
    }

    /// A simulator with organizations and none of them yet.
    pub async fn no_organizations(users: usize) -> Self {
        Self::organizations(users, OrganizationOptions::number(0)).await
    }

    /// Sends a request under `/v1` with the key.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> reqwest::Result<Answer> {
        let mut request = self.client.request(method, format!("{}/v1{path}", self.sim.url()));
        request = request.bearer_auth(self.sim.secret_key());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let retry_after = response
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().unwrap_or("?").to_owned());
        Ok(Answer {
            status: response.status(),
            retry_after,
            bytes: response.bytes().await?.to_vec(),
        })
    }

    /// Sends a request with a JSON body.
    pub async fn write(&self, method: Method, path: &str, body: Value) -> Answer {
        self.send(method, path, Some(body)).await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await.expect("an answer")
    }

    /// The ids of a list. The answer must be a 200.
    pub async fn list(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("/users?{query}")).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.bytes));
        answer.ids()
    }

    /// A list with a total. The answer must be a 200.
    pub async fn total_list(&self, path: &str) -> Answer {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.bytes));
        answer
    }

    /// The ids of a list with a total.
    pub async fn ids(&self, path: &str) -> Vec<String> {
        ids(&self.total_list(path).await.data())
    }

    /// The ids of all pages, walked by the offset.
    pub async fn walk_by_offset(&self, path: &str, limit: usize) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = self
                .ids(&format!("{path}{separator}limit={limit}&offset={}", all.len()))
                .await;
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    /// Sends a request that must succeed, and returns its answer.
    pub async fn done(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.write(method, path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.bytes));
        answer.json()
    }

    /// Sends a request that must fail, and returns the status and the code of the error.
    pub async fn fails(&self, method: Method, path: &str, body: Value) -> (u16, String) {
        let answer = self.write(method, path, body).await;
        (answer.status.as_u16(), answer.code())
    }

    /// The status and the code of an error.
    pub async fn refused(&self, path: &str) -> (u16, String) {
        let answer = self.get(path).await;
        (answer.status.as_u16(), answer.code())
    }

    pub async fn count(&self, query: &str) -> u64 {
        let answer = self.get(&format!("/users/count?{query}")).await;
        answer.json()["total_count"]
            .as_u64()
            .unwrap_or_else(|| panic!("no count: {}", answer.json()))
    }

    /// The ids of all pages, walked by the cursor.
    pub async fn walk(&self, query: &str, limit: usize) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        loop {
            let cursor = all
                .last()
                .map(|last| format!("&starting_after={last}"))
                .unwrap_or_default();
            let page = self.list(&format!("{query}&limit={limit}{cursor}")).await;
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }
}
