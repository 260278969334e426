//! Log lines on stderr or in the journal.

use std::{
    fmt::{self, Debug},
    fs::File,
    io::{self, Write},
    mem,
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use anstream::{AutoStream, ColorChoice};
use anstyle::Style;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::RecordFields,
    filter::ParseError,
    fmt::{FormatFields, MakeWriter, format::Writer},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::{
    printable::{printable, printable_json},
    progress::Progress,
};

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
    let stderr = SharedStderr {
        progress,
        is_json: format == LogFormat::Json,
    };
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
            .fmt_fields(PlainFields)
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

/// Writes the fields of a line for people, as the library does, except that each value stays on the
/// line and controls no terminal.
struct PlainFields;

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, out: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldWriter {
            out,
            space: "",
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct FieldWriter<'w> {
    out: Writer<'w>,
    /// What comes before the next field.
    space: &'static str,
    result: fmt::Result,
}

impl Visit for FieldWriter<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // The line's head has what the libraries that use `log` put here.
        if self.result.is_err() || field.name().starts_with("log.") {
            return;
        }
        let space = mem::replace(&mut self.space, " ");
        let value = format!("{value:?}");
        let value = printable(&value);
        let (italic, dimmed) = match self.out.has_ansi_escapes() {
            true => (Style::new().italic(), Style::new().dimmed()),
            false => (Style::new(), Style::new()),
        };
        self.result = match field.name() {
            "message" => write!(self.out, "{space}{value}"),
            name => write!(self.out, "{space}{italic}{name}{italic:#}{dimmed}={dimmed:#}{value}"),
        };
    }
}

/// stderr, shared with the progress bar.
struct SharedStderr {
    progress: Progress,
    is_json: bool,
}

/// Writes one log line while the progress bar is hidden.
struct LineWriter<'s>(&'s SharedStderr);

impl<'s> MakeWriter<'s> for SharedStderr {
    type Writer = LineWriter<'s>;

    fn make_writer(&'s self) -> LineWriter<'s> {
        LineWriter(self)
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let SharedStderr { progress, is_json } = self.0;
        match str::from_utf8(line) {
            // The library writes a line at once.
            Ok(object) if *is_json => {
                let object = format!("{}\n", printable_json(object.trim_end_matches('\n')));
                progress.suspend(|| io::stderr().write_all(object.as_bytes()))?;
                Ok(line.len())
            }
            _ => progress.suspend(|| io::stderr().write(line)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
