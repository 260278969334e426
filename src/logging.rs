//! Log lines on stderr or in the journal.

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use anstream::{AutoStream, ColorChoice};
use serde::{Deserialize, Serialize};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt::MakeWriter, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

use crate::progress::Progress;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// [`LogFormat::Journald`] if stderr is the journal, else [`LogFormat::Pretty`].
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
    /// The journal's own protocol, with fields.
    Journald,
}

/// Changes the log level of a running process.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

/// Starts logging. `level` is a level, or directives as in `RUST_LOG`, which wins if it is set.
///
/// # Errors
/// The level cannot be parsed.
pub fn start(format: LogFormat, level: &str, progress: Progress) -> Result<LogLevel, ParseError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let journal = match format {
        LogFormat::Journald => true,
        LogFormat::Auto => stderr_is_journal(),
        LogFormat::Pretty | LogFormat::Json => false,
    };
    let stderr = SharedStderr(progress);
    let lines: Box<dyn Layer<_> + Send + Sync> = match tracing_journald::layer() {
        Ok(layer) if journal => layer.with_priority_mappings(priorities()).boxed(),
        _ if format == LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_target(false)
            .with_writer(stderr)
            .boxed(),
        _ => tracing_subscriber::fmt::layer()
            .with_target(false)
            // By the same variables as the results on stdout.
            .with_ansi(AutoStream::choice(&io::stderr()) != ColorChoice::Never)
            .with_writer(stderr)
            .boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(LogLevel(handle))
}

impl LogLevel {
    /// Sets the level of a reloaded configuration.
    ///
    /// # Errors
    /// The level cannot be parsed; the old one stays.
    pub fn set(&self, level: &str) -> Result<(), ParseError> {
        let filter = filter(level)?;
        // It fails only in a process that is ending, which has no subscriber any more.
        let _ = self.0.reload(filter);
        Ok(())
    }
}

/// Whether stderr is the journal, by the variable that systemd sets. The device and inode are
/// compared, because a process with another stderr may inherit the variable, for example from the
/// service of its terminal.
fn stderr_is_journal() -> bool {
    let (Ok(stream), Ok(stderr)) = (
        std::env::var("JOURNAL_STREAM"),
        io::stderr().as_fd().try_clone_to_owned(),
    ) else {
        return false;
    };
    File::from(stderr)
        .metadata()
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Maps levels to syslog's priorities. The default mapping is one step more urgent, so that
/// `journalctl` would print each line of level info in bold.
fn priorities() -> PriorityMappings {
    PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
        ..PriorityMappings::new()
    }
}

/// Returns the filter for a level. Libraries log from `warn` on: at lower levels some of them print
/// what they send.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(directives),
        _ if level.contains(['=', ',']) => EnvFilter::try_new(level),
        _ => EnvFilter::try_new(format!("warn,clerk2pg={level}")),
    }
}

/// stderr, shared with the progress bar.
struct SharedStderr(Progress);

/// Writes one log line while the progress bar is hidden.
struct LineWriter<'p>(&'p Progress);

impl<'p> MakeWriter<'p> for SharedStderr {
    type Writer = LineWriter<'p>;

    fn make_writer(&'p self) -> LineWriter<'p> {
        LineWriter(&self.0)
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
