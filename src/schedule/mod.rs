//! Everything about cron: reading an expression, the next time it names, and a scheduler that marks
//! syncs as due, also when this machine's clock jumps.

mod clock_guard;
mod scheduler;
mod timetable;

pub(crate) use scheduler::Scheduler;
pub(crate) use timetable::{Timetable, is_valid};
