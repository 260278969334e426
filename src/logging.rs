//! Log lines on stderr, or in the journal.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt::MakeWriter, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

use crate::{
    config::{Log, LogFormat},
    progress::Progress,
};

/// Changes the level of a running process.
#[derive(Clone)]
pub struct Levels(reload::Handle<EnvFilter, Registry>);

/// Starts logging. `RUST_LOG`, where it is set, stands above the configured level.
///
/// # Errors
/// The level cannot be read.
pub fn start(log: &Log, progress: Progress) -> Result<Levels, ParseError> {
    let (filter, handle) = reload::Layer::new(filter(log)?);
    let journal = match log.format {
        LogFormat::Journald => true,
        LogFormat::Auto => stderr_is_journal(),
        LogFormat::Pretty | LogFormat::Json => false,
    };
    let terminal = Terminal(progress);
    let lines: Box<dyn Layer<_> + Send + Sync> = match tracing_journald::layer() {
        Ok(layer) if journal => layer.with_priority_mappings(priorities()).boxed(),
        _ if log.format == LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_target(false)
            .with_writer(terminal)
            .boxed(),
        _ => tracing_subscriber::fmt::layer()
            .with_target(false)
            .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .with_writer(terminal)
            .boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(Levels(handle))
}

impl Levels {
    /// Takes over the level of a reloaded configuration.
    ///
    /// # Errors
    /// The level cannot be read; the old one stays.
    pub fn set(&self, log: &Log) -> Result<(), ParseError> {
        let filter = filter(log)?;
        // Only a process that is ending has no subscriber any more.
        let _ = self.0.reload(filter);
        Ok(())
    }
}

/// systemd tells which stream is the journal's. Whoever starts the program with another one may still have the variable, from a terminal's own service for
/// one.
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

/// syslog's meanings: by default everything would be one step more urgent, and `journalctl` would print each line of level info in bold.
fn priorities() -> PriorityMappings {
    PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
        ..PriorityMappings::new()
    }
}

/// Libraries speak from `warn` on: at lower levels some of them print what they send.
fn filter(log: &Log) -> Result<EnvFilter, ParseError> {
    match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(directives),
        _ if log.level.contains(['=', ',']) => EnvFilter::try_new(&log.level),
        _ => EnvFilter::try_new(format!("warn,clerk2pg={}", log.level)),
    }
}

/// stderr, shared with the progress bar.
struct Terminal(Progress);

struct Line<'p>(&'p Progress);

impl<'p> MakeWriter<'p> for Terminal {
    type Writer = Line<'p>;

    fn make_writer(&'p self) -> Line<'p> {
        Line(&self.0)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
