//! Compares three clocks: this machine's, Clerk's and the database's. If two agree, the third is
//! off.

use chrono::TimeDelta;

use super::finding::Finding;
use crate::humanize::age;

/// Largest tolerated difference: Clerk shows whole seconds only.
const TOLERATED: TimeDelta = TimeDelta::seconds(5);

const HINT: &str = "synchronize it over the network (NTP): certificates, schedules and the age of changes depend on it";

/// Compares the clocks. The arguments say how far the others are ahead of this machine's; `None` if
/// unknown.
pub(super) fn compare_clocks(clerk: Option<TimeDelta>, database: Option<TimeDelta>) -> Finding {
    let name = "clock";
    let is_off = |delta: TimeDelta| delta.abs() > TOLERATED;
    let others = [("Clerk's", clerk), ("the database's", database)];
    let others: Vec<_> = others
        .into_iter()
        .filter_map(|(whose, delta)| Some((whose, delta?)))
        .collect();
    let descriptions: Vec<_> = others
        .iter()
        .map(|(whose, delta)| format!("{whose} clock {}", describe(*delta)))
        .collect();
    let descriptions = descriptions.join(", ");
    let culprit = match others.as_slice() {
        [] => return Finding::skipped(name, "neither Clerk nor the database showed its time"),
        both if both.iter().all(|(_, delta)| !is_off(*delta)) => {
            return Finding::ok(name, format!("as this machine sees it, {descriptions}"));
        }
        [(_, clerk), (_, database)] if !is_off(*clerk - *database) => "this machine's clock is off",
        [(_, clerk), (_, _)] if !is_off(*clerk) => "the database's clock is off",
        [(_, _), (_, database)] if !is_off(*database) => "Clerk's clock, or that of a proxy in front of it, is off",
        _ => "it is unknown which one is off",
    };
    Finding::warn(name, format!("{culprit}: as this machine sees it, {descriptions}")).hint(HINT)
}

/// Describes how far a clock is ahead.
fn describe(ahead: TimeDelta) -> String {
    // Clerk shows whole seconds only.
    let seconds = TimeDelta::seconds((ahead.num_milliseconds() as f64 / 1000.0).round() as i64);
    match ahead {
        _ if ahead.abs() < TimeDelta::seconds(1) => "agrees".to_owned(),
        _ if ahead > TimeDelta::zero() => format!("is {} ahead", age(seconds)),
        _ => format!("is {} behind", age(-seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::CheckStatus;

    #[test]
    fn the_third_clock_is_off_if_two_agree() {
        let check = |clerk: Option<i64>, database: Option<i64>, status, message: &str| {
            let finding = compare_clocks(clerk.map(TimeDelta::seconds), database.map(TimeDelta::seconds));
            assert_eq!(
                (finding.status, finding.message.as_str()),
                (status, message),
                "{clerk:?} {database:?}"
            );
        };
        let seen = "as this machine sees it, ";
        check(
            Some(0),
            Some(0),
            CheckStatus::Ok,
            &format!("{seen}Clerk's clock agrees, the database's clock agrees"),
        );
        check(
            Some(3),
            Some(-2),
            CheckStatus::Ok,
            &format!("{seen}Clerk's clock is 3 s ahead, the database's clock is 2 s behind"),
        );
        check(
            None,
            Some(0),
            CheckStatus::Ok,
            &format!("{seen}the database's clock agrees"),
        );
        check(
            Some(60),
            Some(61),
            CheckStatus::Warn,
            &format!(
                "this machine's clock is off: {seen}Clerk's clock is 60 s ahead, the database's clock is 61 s ahead"
            ),
        );
        check(
            Some(1),
            Some(-90),
            CheckStatus::Warn,
            &format!(
                "the database's clock is off: {seen}Clerk's clock is 1 s ahead, the database's clock is 90 s behind"
            ),
        );
        check(
            Some(3600),
            Some(0),
            CheckStatus::Warn,
            &format!(
                "Clerk's clock, or that of a proxy in front of it, is off: {seen}Clerk's clock is 60 min ahead, the database's clock agrees"
            ),
        );
        check(
            Some(60),
            Some(-60),
            CheckStatus::Warn,
            &format!(
                "it is unknown which one is off: {seen}Clerk's clock is 60 s ahead, the database's clock is 60 s behind"
            ),
        );
        check(
            Some(60),
            None,
            CheckStatus::Warn,
            &format!("it is unknown which one is off: {seen}Clerk's clock is 60 s ahead"),
        );
        check(
            None,
            None,
            CheckStatus::Skipped,
            "neither Clerk nor the database showed its time",
        );
    }
}
