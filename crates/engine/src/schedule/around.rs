//! Questions about one instant: whether the schedule names it, what came before it, how it reads on
//! the task's wall clock.

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};

use super::wall::{Changes, nominals};
use super::{Nominal, Schedule};
use crate::task::{DstFold, DstGap};

/// The first window that [`Schedule::last_before`] looks back, in seconds.
const FIRST_WINDOW: i64 = 60;

impl Schedule {
    /// The nominal time in the second of `at`, also one that does not fire. `None` when the schedule
    /// does not name it.
    #[must_use]
    pub fn names(&self, at: DateTime<Utc>) -> Option<Nominal> {
        let second = at.timestamp();
        self.next(second.checked_sub(1)?).filter(|nominal| nominal.at.timestamp() == second)
    }

    /// The last nominal time strictly before `at` and not before `not_before`, also one that does
    /// not fire. `None` when there is none in between.
    ///
    /// Looks forward from ever further back and halves what it finds, so it asks for the next time
    /// not more than some hundred times, however many there are.
    #[must_use]
    pub fn last_before(&self, at: DateTime<Utc>, not_before: DateTime<Utc>) -> Option<Nominal> {
        self.last_before_counted(at, not_before).0
    }

    /// The last time that fires strictly before `at` and not before `not_before`.
    #[must_use]
    pub fn last_fire_before(
        &self,
        at: DateTime<Utc>,
        not_before: DateTime<Utc>,
    ) -> Option<Nominal> {
        let last = self.last_before(at, not_before);
        std::iter::successors(last, |later| self.last_before(later.at, not_before))
            .find(Nominal::fires)
    }

    /// With how many times the next time was asked for.
    fn last_before_counted(
        &self,
        at: DateTime<Utc>,
        not_before: DateTime<Utc>,
    ) -> (Option<Nominal>, u32) {
        let mut asked = 0;
        let mut before_at = |after: i64| {
            asked += 1;
            self.next(after).filter(|nominal| nominal.at < at)
        };
        // A second may be partly over: a time at its start is before `not_before` then.
        let begun = i64::from(not_before.timestamp_subsec_nanos() > 0);
        let bound =
            not_before.timestamp().saturating_add(begun - 1).max(self.from.saturating_sub(1));
        // Nothing after `high` is before `at`.
        let mut high = at.timestamp();
        let mut window = FIRST_WINDOW;
        let mut best = None;
        while best.is_none() && bound < high {
            let low = high.saturating_sub(window).max(bound);
            best = before_at(low);
            if best.is_none() {
                high = low;
            }
            window = window.saturating_mul(2);
        }
        while let Some(low) = best.as_ref().map(|best| best.at.timestamp()).filter(|&at| at < high)
        {
            match before_at(low + (high - low) / 2) {
                Some(later) => best = Some(later),
                None => high = low + (high - low) / 2,
            }
        }
        (best, asked)
    }

    /// The instant that a local time means, the first where a clock change brings it twice. One that
    /// a clock change leaves out is moved by RFC 5545 §3.3.5, with a note that says so.
    #[must_use]
    pub fn instant_of(&self, local: NaiveDateTime) -> (DateTime<Utc>, Option<String>) {
        let changes = Changes::Fixed(DstGap::Shift, DstFold::First);
        let first = nominals(local, changes, self.zone).next();
        first.map_or_else(|| (local.and_utc(), None), |nominal| (nominal.at, nominal.note))
    }

    /// `at` on the wall clock of the schedule's zone, RFC 3339 with its offset, in whole seconds.
    #[must_use]
    pub fn local(&self, at: DateTime<Utc>) -> String {
        at.with_timezone(&self.zone.0).to_rfc3339_opts(SecondsFormat::Secs, false)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use crate::schedule::tests::{compiled, instant, spec, with_changes};
    use crate::schedule::{NominalKind, ScheduleSpec};
    use crate::task::ScheduleKind::{Cron, Interval, Manual, Rrule};
    use crate::task::{DstFold, DstGap};

    #[test]
    fn a_schedule_names_its_times_and_no_others() {
        let schedule = compiled(&spec(Cron, "30 8 * * MON", "Europe/Berlin"));
        let monday = instant("2026-05-04T06:30:00Z");

        assert_eq!(schedule.names(monday).map(|nominal| nominal.at), Some(monday));
        assert!(schedule.names(monday + TimeDelta::milliseconds(999)).is_some());
        for other in [-1, 1, 86_400] {
            assert_eq!(schedule.names(monday + TimeDelta::seconds(other)), None);
        }
        let excluded = ScheduleSpec {
            exclude: vec!["2026-05-04".into()],
            ..spec(Cron, "30 8 * * MON", "Europe/Berlin")
        };
        let named = compiled(&excluded).names(monday).unwrap();
        assert!(matches!(named.kind, NominalKind::Excluded { .. }));
        assert_eq!(compiled(&spec(Manual, "", "UTC")).names(monday), None);
    }

    #[test]
    fn the_last_time_before_is_that_of_a_walk_from_far_back() {
        for (kind, expr) in [
            (Cron, "*/7 * * * *"),
            (Cron, "30 2 * * *"),
            (Cron, "*/20 */5 2 * * *"),
            (Cron, "0 0 29 2 *"),
            (Rrule, "DTSTART:20250101T000000\nRRULE:FREQ=WEEKLY;INTERVAL=5;BYDAY=MO,SU"),
            (Rrule, "DTSTART:20250101T000000\nRRULE:FREQ=MINUTELY;INTERVAL=1001"),
            (Interval, "PT13H"),
        ] {
            let schedule = with_changes(kind, expr, "Europe/Berlin", DstGap::Shift, DstFold::Both);
            for at in ["2026-03-29T01:30:00Z", "2026-10-25T00:59:59Z", "2026-10-25T01:30:01Z"] {
                let at = instant(at);
                let from = at - TimeDelta::days(4);
                let walk = std::iter::successors(schedule.next_after(from), |nominal| {
                    schedule.next_after(nominal.at)
                });
                let wanted = walk.take_while(|nominal| nominal.at < at).last();
                let just_after = from + TimeDelta::milliseconds(1);
                assert_eq!(schedule.last_before(at, just_after), wanted, "{expr} {at}");
            }
        }
    }

    #[test]
    fn the_bound_belongs_to_what_is_looked_at_and_the_instant_does_not() {
        let schedule = compiled(&spec(Cron, "0 9 * * *", "UTC"));
        let (first, second) = (instant("2026-05-04T09:00:00Z"), instant("2026-05-05T09:00:00Z"));
        let found = |at, bound| schedule.last_before(at, bound).map(|nominal| nominal.at);

        assert_eq!(found(second, first), Some(first));
        assert_eq!(found(second, first + TimeDelta::milliseconds(1)), None);
        assert_eq!(found(second + TimeDelta::milliseconds(1), first), Some(second));
        assert_eq!(found(first, second), None);
    }

    #[test]
    fn looking_back_asks_a_bounded_number_of_times() {
        let far = instant("0001-01-01T00:00:00Z");
        for (kind, expr) in [
            (Cron, "* * * * * *"),
            (Cron, "0 0 29 2 *"),
            (Rrule, "DTSTART:20260101T000000\nRRULE:FREQ=SECONDLY"),
            (Rrule, "DTSTART:20300101T000000\nRRULE:FREQ=DAILY"),
        ] {
            let schedule = compiled(&spec(kind, expr, "UTC"));
            let (_, asked) = schedule.last_before_counted(instant("2027-01-01T00:00:00Z"), far);
            assert!(asked <= 80, "{expr}: {asked}");
        }
    }

    #[test]
    fn an_instant_reads_as_the_wall_clock_shows_it() {
        let schedule = compiled(&spec(Interval, "PT1H", "Asia/Kathmandu"));

        assert_eq!(schedule.local(instant("2026-01-01T00:00:00Z")), "2026-01-01T05:45:00+05:45");
    }
}
