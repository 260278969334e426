//! Log lines on stderr, or in the journal.

use std::io::{self, IsTerminal, Write};

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
    let journal = matches!(
        (log.format, std::env::var_os("JOURNAL_STREAM")),
        (LogFormat::Journald, _) | (LogFormat::Auto, Some(_))
    );
    let terminal = Terminal(progress);
    let lines: Box<dyn Layer<_> + Send + Sync> = match tracing_journald::layer() {
        Ok(layer) if journal => layer.boxed(),
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
