//! The program: how it is started, and what it gave when it ended.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::wait::PATIENCE;

/// What a run of the binary gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// The object on stdout, which must be alone there.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Outcome, created, updated, deleted, unchanged, held and rejected of a report, as text.
    pub fn summary(&self) -> String {
        let json = self.json();
        let field = |name: &str| json[name].to_string();
        format!(
            "{} +{} ~{} -{} ={} held {} rejected {}",
            json["outcome"].as_str().unwrap(),
            field("created"),
            field("updated"),
            field("deleted"),
            field("unchanged"),
            field("held"),
            field("rejected"),
        )
    }

    #[track_caller]
    pub fn assert(&self, code: i32, summary: &str) {
        assert_eq!((self.code, self.summary().as_str()), (Some(code), summary), "{self:#?}");
    }
}

/// The binary with an environment of nothing but what is given here, in a directory without a `config.toml`. Nobody can watch it, as many run at
/// once.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerk2pg"));
    command
        .env_clear()
        .env("CLERK2PG_HTTP__LISTEN", "")
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Waits for a child's end.
pub async fn ended(child: Child) -> Ran {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    output.expect("the program does not end").unwrap().into()
}
