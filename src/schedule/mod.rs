//! When syncs are due: what marks them, and everything about cron: reading an expression, the next
//! time it names, and a scheduler that works on when this machine's clock jumps.

mod clock_guard;
pub mod due;
mod scheduler;
mod timetable;

pub(crate) use scheduler::Scheduler;
pub(crate) use timetable::{Timetable, is_valid};
