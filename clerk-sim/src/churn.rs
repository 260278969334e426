//! Churn: random changes at a rate.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::shutdown::stopped;
use crate::state::State;

/// Makes changes at the rate that was set last, until the simulator stops.
pub(crate) async fn run(
    state: Arc<State>,
    mut rate: watch::Receiver<Option<f64>>,
    mut stop: watch::Receiver<bool>,
    change: fn(&State),
) {
    loop {
        let current = *rate.borrow_and_update();
        let Some(per_second) = current.filter(|rate| *rate > 0.0) else {
            tokio::select! {
                () = stopped(&mut stop) => return,
                changed = rate.changed() => if changed.is_err() { return } else { continue },
            }
        };
        // Fast rates come in batches: timers are not finer than a millisecond.
        let period = Duration::from_secs_f64((1.0 / per_second).clamp(0.005, 86_400.0));
        let mut due = 0.0;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                changed = rate.changed() => if changed.is_err() { return } else { break },
                _ = ticks.tick() => {}
            }
            due += per_second * period.as_secs_f64();
            while due >= 0.999 {
                due -= 1.0;
                change(&state);
            }
        }
    }
}
