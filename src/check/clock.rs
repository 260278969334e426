//! Three clocks: this machine's, Clerk's and the database's. Where two agree, the third is off.

use chrono::TimeDelta;

use super::Finding;

/// What is no matter: Clerk tells whole seconds only.
const TOLERATED: TimeDelta = TimeDelta::seconds(5);

const HINT: &str = "have it set over the network (NTP): certificates, schedules and the age of changes go by it";

/// Compares, by how far the others' clocks are ahead of this machine's.
pub(super) fn compare(clerk: Option<TimeDelta>, database: Option<TimeDelta>) -> Finding {
    let name = "clock";
    let is_off = |delta: TimeDelta| delta.abs() > TOLERATED;
    let others = [("Clerk's", clerk), ("the database's", database)];
    let others: Vec<_> = others
        .into_iter()
        .filter_map(|(whose, delta)| Some((whose, delta?)))
        .collect();
    let told: Vec<_> = others
        .iter()
        .map(|(whose, delta)| format!("{whose} clock {}", words(*delta)))
        .collect();
    let told = told.join(", ");
    let culprit = match others.as_slice() {
        [] => return Finding::skipped(name, "neither Clerk nor the database told the time"),
        both if both.iter().all(|(_, delta)| !is_off(*delta)) => {
            return Finding::ok(name, format!("as this machine sees it, {told}"));
        }
        [(_, clerk), (_, database)] if !is_off(*clerk - *database) => "this machine's clock is off",
        [(_, clerk), (_, _)] if !is_off(*clerk) => "the database's clock is off",
        [(_, _), (_, database)] if !is_off(*database) => "the clock of whoever answers in Clerk's name is off",
        _ => "which one is off cannot be told",
    };
    Finding::warn(name, format!("{culprit}: as this machine sees it, {told}")).hint(HINT)
}

fn words(ahead: TimeDelta) -> String {
    let seconds = ahead.num_milliseconds() as f64 / 1000.0;
    match seconds {
        s if s.abs() < 1.0 => "agrees".to_owned(),
        s if s > 0.0 => format!("is {s:.0} s ahead"),
        s => format!("is {:.0} s behind", -s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CheckStatus;

    #[test]
    fn two_that_agree_tell_of_the_third() {
        let check = |clerk: Option<i64>, database: Option<i64>, status, says: &str| {
            let finding = compare(clerk.map(TimeDelta::seconds), database.map(TimeDelta::seconds));
            assert_eq!(
                (finding.status, finding.says.as_str()),
                (status, says),
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
                "the clock of whoever answers in Clerk's name is off: {seen}Clerk's clock is 3600 s ahead, the database's clock agrees"
            ),
        );
        check(
            Some(60),
            Some(-60),
            CheckStatus::Warn,
            &format!(
                "which one is off cannot be told: {seen}Clerk's clock is 60 s ahead, the database's clock is 60 s behind"
            ),
        );
        check(
            Some(60),
            None,
            CheckStatus::Warn,
            &format!("which one is off cannot be told: {seen}Clerk's clock is 60 s ahead"),
        );
        check(
            None,
            None,
            CheckStatus::Skipped,
            "neither Clerk nor the database told the time",
        );
    }
}
