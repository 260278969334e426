//! Starts the program, and holds its exit code and output.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::{
    summary::{Exit, Summary},
    wait::PATIENCE,
};

/// What a run of the program returned.
#[derive(Debug)]
pub struct ProgramOutput {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for ProgramOutput {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl ProgramOutput {
    /// Parses stdout, which must be one JSON object.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn assert_exit(&self, exit: Exit) {
        assert_eq!(self.code, Some(exit as i32), "{exit:?} was expected of {self:#?}");
    }

    pub fn summary(&self) -> Summary {
        serde_json::from_value(self.json()).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    #[track_caller]
    pub fn assert(&self, exit: Exit, expected: Summary) {
        self.assert_named("", exit, expected);
    }

    /// Asserts the exit code, and parts of the error and of the hint on stderr.
    #[track_caller]
    pub fn assert_error(&self, exit: Exit, error: &str, hint: &str) {
        assert_eq!(self.code, Some(exit as i32), "{error}: {self:#?}");
        let has = |start: &str, part: &str| {
            let mut lines = self.stderr.lines();
            lines.any(|line| line.starts_with(start) && line.contains(part))
        };
        assert!(has("error: ", error), "no error with {error:?}: {self:#?}");
        assert!(has("hint: ", hint), "no hint with {hint:?}: {self:#?}");
    }

    /// As [`Self::assert`], with a name for the message.
    #[track_caller]
    pub fn assert_named(&self, name: &str, exit: Exit, expected: Summary) {
        let mut differences = self.summary().differences(&expected);
        if self.code != Some(exit as i32) {
            differences.insert(
                0,
                format!("exit code: {:?}, expected {exit:?} ({})", self.code, exit as i32),
            );
        }
        assert!(
            differences.is_empty(),
            "{name}\n{}\n{expected:#?} was expected of {self:#?}",
            differences.join("\n")
        );
    }
}

/// Returns a command of the program with an empty environment, in a directory without a
/// `config.toml`. It has no HTTP listener, as many tests run at once.
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

/// Waits until a child ends.
pub async fn wait_for_exit(child: Child) -> ProgramOutput {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    output.expect("the program does not end").unwrap().into()
}
