//! Shows how far a walk has come: a bar on a terminal, a log line every ten seconds elsewhere. A walk of a few seconds shows nothing.

use std::{
    fmt::Write,
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tracing::info;

/// A walk shorter than this needs no bar.
const QUIET: Duration = Duration::from_secs(2);

/// Time between two log lines.
const EVERY: Duration = Duration::from_secs(10);

/// The shown progress of a sync. Clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Option<State>>>);

#[derive(Debug)]
struct State {
    bar: ProgressBar,
    started: Instant,
    told: Instant,
    first: Option<u64>,
}

/// What a log line says besides how many were met.
struct Line {
    total: Option<u64>,
    rate: f64,
}

impl Progress {
    /// A walk over so many users begins; none where Clerk does not say how many.
    pub fn start(&self, total: Option<u64>) {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = match total {
            Some(_) => "{bar:30} {human_pos} of {human_len} users, {rate} a second, {eta} left",
            None => "{spinner} {human_pos} users, {rate} a second",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                // A bar that cannot be drawn is no reason to stop.
                let _ = write!(out, "{}", HumanCount(state.per_sec() as u64));
            }));
        }
        *self.lock() = Some(State {
            bar,
            started: Instant::now(),
            told: Instant::now(),
            first: None,
        });
    }

    /// So many users have been met.
    pub fn seen(&self, users: u64) {
        // The line is written after the lock is given back: the writer of the log asks for it too.
        if let Some(Line { total, rate }) = self.advance(users, std::io::stderr().is_terminal()) {
            let users_per_second = rate.round();
            match total {
                Some(total) => info!(users, total, users_per_second, "syncing"),
                None => info!(users, users_per_second, "syncing"),
            }
        }
    }

    fn advance(&self, users: u64, is_terminal: bool) -> Option<Line> {
        let mut state = self.lock();
        let state = state.as_mut()?;
        // A walk that is taken up again must not claim the users of its first part for its rate.
        let first = *state.first.get_or_insert_with(|| {
            state.bar.reset_eta();
            users
        });
        state.bar.set_position(users);
        if is_terminal {
            if state.bar.is_hidden() && state.started.elapsed() > QUIET {
                state.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            return None;
        }
        if state.told.elapsed() < EVERY {
            return None;
        }
        state.told = Instant::now();
        Some(Line {
            total: state.bar.length(),
            rate: users.saturating_sub(first) as f64 / state.started.elapsed().as_secs_f64(),
        })
    }

    /// The walk is over.
    pub fn finish(&self) {
        if let Some(state) = self.lock().take() {
            state.bar.finish_and_clear();
        }
    }

    /// Writes something else to the terminal without tearing the bar.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match self.lock().as_ref() {
            Some(state) => state.bar.suspend(write),
            None => write(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::mpsc};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Writes log lines as the program does: while the bar stands aside.
    #[derive(Clone)]
    struct Log(Progress, mpsc::Sender<Vec<u8>>);

    impl io::Write for Log {
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

    impl<'w> MakeWriter<'w> for Log {
        type Writer = Log;

        fn make_writer(&'w self) -> Log {
            self.clone()
        }
    }

    #[test]
    fn a_log_line_comes_through_the_same_door_as_the_bar() {
        let progress = Progress::default();
        progress.start(Some(1000));
        if let Some(state) = progress.lock().as_mut() {
            state.told -= EVERY;
        }
        let (sender, lines) = mpsc::channel();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(Log(progress.clone(), sender))
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
