//! Shows how far a walk has come: a bar on a terminal, a log line every ten seconds elsewhere. A walk of a few seconds shows nothing.

use std::{
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::info;

/// A walk shorter than this needs no bar.
const QUIET: Duration = Duration::from_secs(2);

/// Time between two log lines.
const EVERY: Duration = Duration::from_secs(10);

/// The shown progress of a pass. Clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Option<State>>>);

#[derive(Debug)]
struct State {
    bar: ProgressBar,
    started: Instant,
    told: Instant,
    first: Option<u64>,
}

impl Progress {
    /// A walk over so many users begins; none where Clerk does not say how many.
    pub fn start(&self, total: Option<u64>) {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = match total {
            Some(_) => "{bar:30} {human_pos} of {human_len} users, {per_sec}, {eta} left",
            None => "{spinner} {human_pos} users, {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
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
        let mut state = self.lock();
        let Some(state) = state.as_mut() else { return };
        // A walk that is taken up again must not claim the users of its first part for its rate.
        let first = *state.first.get_or_insert_with(|| {
            state.bar.reset_eta();
            users
        });
        state.bar.set_position(users);
        if std::io::stderr().is_terminal() {
            if state.bar.is_hidden() && state.started.elapsed() > QUIET {
                state.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
        } else if state.told.elapsed() >= EVERY {
            state.told = Instant::now();
            let rate = (users - first.min(users)) as f64 / state.started.elapsed().as_secs_f64();
            match state.bar.length() {
                Some(total) => info!(users, total, users_per_second = rate.round(), "syncing"),
                None => info!(users, users_per_second = rate.round(), "syncing"),
            }
        }
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
