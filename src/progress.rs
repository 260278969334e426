//! Shows the progress of a walk: a bar on a terminal, else a log line every ten seconds. A walk of
//! a few seconds shows nothing.

use std::{
    fmt::Write,
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tracing::info;

use crate::humanize::{duration, number};

/// Time until the bar appears: a shorter walk needs none.
const BAR_DELAY: Duration = Duration::from_secs(2);

/// Time between two log lines.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The progress of a sync. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Option<WalkProgress>>>);

#[derive(Debug)]
struct WalkProgress {
    /// What is counted, in the plural.
    objects: String,
    bar: ProgressBar,
    started: Instant,
    logged_at: Instant,
    /// Objects that were seen already when the walk started or resumed.
    first: Option<u64>,
}

/// How far a walk has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// What is counted, in the plural.
    pub objects: String,
    /// Objects that were seen so far.
    pub seen: u64,
    /// Objects in all; `None` if Clerk does not say how many.
    pub total: Option<u64>,
}

/// What a log line says apart from the number of objects seen.
struct ProgressLine {
    objects: String,
    total: Option<u64>,
    /// Objects per second.
    rate: f64,
}

impl Progress {
    /// Starts the progress of a walk over `total` objects, which are called so in the plural; `None` if
    /// Clerk does not say how many.
    pub fn start(&self, objects: &str, total: Option<u64>) {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = match total {
            Some(_) => format!("{{bar:30}} {{human_pos}} of {{human_len}} {objects}, {{rate}} a second, {{left}} left"),
            None => format!("{{spinner}} {{human_pos}} {objects}, {{rate}} a second"),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            // A bar that cannot be drawn must not stop the sync.
            let rate = |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{}", number(state.per_sec() as u64));
            };
            let left = |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{}", duration(Duration::from_secs(state.eta().as_secs())));
            };
            bar.set_style(style.with_key("rate", rate).with_key("left", left));
        }
        *self.lock() = Some(WalkProgress {
            objects: objects.to_owned(),
            bar,
            started: Instant::now(),
            logged_at: Instant::now(),
            first: None,
        });
    }

    /// Shows that `seen` objects have been seen in all.
    pub fn seen(&self, seen: u64) {
        // The line is written after the lock is released: the writer of the log locks it, too.
        if let Some(ProgressLine { objects, total, rate }) = self.advance(seen, std::io::stderr().is_terminal()) {
            let per_second = rate.round();
            match total {
                Some(total) => info!(seen, total, per_second, "syncing {objects}"),
                None => info!(seen, per_second, "syncing {objects}"),
            }
        }
    }

    fn advance(&self, seen: u64, is_terminal: bool) -> Option<ProgressLine> {
        let mut state = self.lock();
        let state = state.as_mut()?;
        // The rate of a resumed walk must not include the objects of its first part.
        let first = *state.first.get_or_insert_with(|| {
            state.bar.reset_eta();
            seen
        });
        state.bar.set_position(seen);
        if is_terminal {
            if state.bar.is_hidden() && state.started.elapsed() > BAR_DELAY {
                state.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            return None;
        }
        if state.logged_at.elapsed() < LOG_PERIOD {
            return None;
        }
        state.logged_at = Instant::now();
        Some(ProgressLine {
            objects: state.objects.clone(),
            total: state.bar.length(),
            rate: seen.saturating_sub(first) as f64 / state.started.elapsed().as_secs_f64(),
        })
    }

    /// Returns how far the walk has come; `None` if there is none at this moment.
    pub fn position(&self) -> Option<Position> {
        self.lock().as_ref().map(|walk| Position {
            objects: walk.objects.clone(),
            seen: walk.bar.position(),
            total: walk.bar.length(),
        })
    }

    /// Ends the progress of a walk.
    pub fn finish(&self) {
        if let Some(state) = self.lock().take() {
            state.bar.finish_and_clear();
        }
    }

    /// Hides the bar while something else is written to the terminal.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match self.lock().as_ref() {
            Some(state) => state.bar.suspend(write),
            None => write(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<WalkProgress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::mpsc};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Writes log lines as the program does: while the bar is hidden.
    #[derive(Clone)]
    struct LogSink(Progress, mpsc::Sender<Vec<u8>>);

    impl io::Write for LogSink {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0
                .suspend(|| self.1.send(line.to_vec()))
                .map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for LogSink {
        type Writer = LogSink;

        fn make_writer(&'w self) -> LogSink {
            self.clone()
        }
    }

    #[test]
    fn the_position_is_known_during_a_walk() {
        let progress = Progress::default();
        assert_eq!(progress.position(), None);
        progress.start("users", Some(1000));
        progress.advance(400, false);
        let position = Position {
            objects: "users".to_owned(),
            seen: 400,
            total: Some(1000),
        };
        assert_eq!(progress.position(), Some(position));
        progress.finish();
        assert_eq!(progress.position(), None);
    }

    #[test]
    fn log_lines_and_the_bar_do_not_block_each_other() {
        let progress = Progress::default();
        progress.start("users", Some(1000));
        if let Some(state) = progress.lock().as_mut() {
            state.logged_at -= LOG_PERIOD;
        }
        let (sender, lines) = mpsc::channel();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(LogSink(progress.clone(), sender))
            .finish();
        std::thread::spawn(move || {
            tracing::subscriber::with_default(log, || {
                let line = progress.advance(500, false).expect("a line is due");
                assert_eq!(line.total, Some(1000));
                assert!(progress.advance(600, false).is_none(), "ten seconds have not passed");
                info!("written while nothing is locked");
            });
        });
        let line = lines.recv_timeout(Duration::from_secs(30)).expect("the log is stuck");
        assert!(String::from_utf8_lossy(&line).contains("nothing is locked"));
    }
}
