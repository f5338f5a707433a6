//! The days of a recurrence rule, expanded by the crate `rrule`.
//!
//! The crate is asked for days alone, in a calendar without zones. Times of day and BYSETPOS are
//! ours (`rule.rs`): a year of a rule that names every second has thirty million times, and the crate
//! would hold them all. COUNT and UNTIL are ours as well.
//!
//! The crate looks from its DTSTART on, one period after the other, until it finds something or the
//! year 10,000 comes. So its DTSTART is moved: to a period's first day, and by whole cycles of the
//! calendar into the years before its end. There a search costs the same for every task and is
//! bounded by [`SPAN_YEARS`], however old the rule is.

use chrono::{DateTime, Datelike, Days, Month, NaiveDate, NaiveTime, TimeDelta, TimeZone, Weekday};
use rrule::{Frequency, NWeekday, RRule, RRuleSet, Tz};

use super::cron::CALENDAR_CYCLE_DAYS;
use super::rule_text::{Freq, RuleText};

/// Years after which the calendar repeats, with its weekdays.
const CYCLE_YEARS: i32 = 400;
/// The last year that the crate looks at.
const CRATE_LAST_YEAR: i32 = 10_000;
/// How many years one search of the crate looks at, at the most; at the least one cycle.
const SPAN_YEARS: i32 = 2 * CYCLE_YEARS;
/// From here on a rule of days with an INTERVAL skips so far that the crate may step itself.
const LONG_INTERVAL_DAYS: u32 = 366;

/// The days of a rule, without end. Cheap to ask, from any period on.
#[derive(Clone, Debug)]
pub(super) struct RuleDays {
    rule: RRule,
    weeks: Option<WeekNumbers>,
    /// Every day passes: the crate need not be asked.
    open: bool,
}

impl RuleDays {
    /// The days of `rule`, what it leaves open taken from `start` as in RFC 5545 §3.3.10: a yearly
    /// rule without days is on the start's date, a weekly one on its weekday. A rule of hours or less
    /// limits days and does not step by them: its days are those of every year.
    ///
    /// # Errors
    ///
    /// Why the crate refuses the rule.
    pub(super) fn new(rule: &RuleText, start: NaiveDate) -> Result<Self, String> {
        let days_named = !(rule.weekdays.is_empty()
            && rule.monthdays.is_empty()
            && rule.yeardays.is_empty()
            && rule.weeknos.is_empty());
        let open = rule.freq >= Freq::Daily && !days_named && rule.months.is_empty();
        // The crate takes -4 to 5 before a day of a MONTHLY rule, though -5 exists.
        let minus_five = rule.weekdays.iter().any(|(nth, _)| *nth == -5);
        let by_year = match rule.freq {
            Freq::Yearly | Freq::Weekly => false,
            Freq::Monthly => minus_five,
            Freq::Daily => !open && rule.interval < LONG_INTERVAL_DAYS,
            _ => true,
        };
        let (freq, interval) = match rule.freq {
            _ if by_year => (Frequency::Yearly, 1),
            Freq::Yearly => (Frequency::Yearly, rule.interval),
            Freq::Monthly => (Frequency::Monthly, rule.interval),
            Freq::Weekly => (Frequency::Weekly, rule.interval),
            _ => (Frequency::Daily, rule.interval),
        };
        let mut months: Vec<u8> = small(&rule.months);
        let mut monthdays: Vec<i8> = small(&rule.monthdays);
        let mut weekdays = weekdays(rule);
        let start_day = i8::try_from(start.day()).unwrap_or(1);
        match rule.freq {
            Freq::Yearly if !days_named => {
                if months.is_empty() {
                    months = small(&[i32::try_from(start.month()).unwrap_or(1)]);
                }
                monthdays = vec![start_day];
            }
            Freq::Monthly if !days_named => monthdays = vec![start_day],
            Freq::Weekly if !days_named => weekdays = vec![NWeekday::Every(start.weekday())],
            _ => {}
        }
        let days_left_open =
            monthdays.is_empty() && weekdays.is_empty() && rule.yeardays.is_empty();
        if freq == Frequency::Yearly && days_left_open {
            monthdays = (1..=31).collect();
        }
        if by_year && rule.freq == Freq::Monthly && months.is_empty() {
            months = (1..=12).collect();
        }
        let months: Vec<Month> =
            months.into_iter().filter_map(|month| Month::try_from(month).ok()).collect();
        let made = RRule::new(freq)
            .interval(u16::try_from(interval).unwrap_or(u16::MAX))
            .week_start(rule.wkst)
            .by_month(&months)
            .by_month_day(monthdays)
            .by_year_day(small(&rule.yeardays))
            .by_weekday(weekdays)
            .by_hour(vec![0])
            .by_minute(vec![0])
            .by_second(vec![0]);
        let rule_of_days = made
            .validate(midnight(start))
            .map_err(|refusal| format!("the rule cannot be followed: {refusal}"))?;
        Ok(Self { rule: rule_of_days, weeks: WeekNumbers::of(rule), open })
    }

    /// Whether every day passes.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The days from `first` on, in order, for at least a cycle of the calendar and at most
    /// [`SPAN_YEARS`]; `first` is the first day of a period, and INTERVAL counts from there. Also days
    /// of periods that INTERVAL leaves out: who asks knows the numbers of periods.
    pub(super) fn from(&self, first: NaiveDate) -> impl Iterator<Item = NaiveDate> {
        let shift = TimeDelta::days(i64::from(cycles_ahead(first.year())) * CALENDAR_CYCLE_DAYS);
        let shifted = first.checked_add_signed(shift).unwrap_or(first);
        let days = RRuleSet::new(midnight(shifted)).rrule(self.rule.clone()).limit();
        days.into_iter()
            .filter_map(move |at| at.date_naive().checked_sub_signed(shift))
            .filter(|&day| self.weeks.as_ref().is_none_or(|weeks| weeks.has(day)))
    }
}

/// By how many cycles of the calendar a search from `year` on is moved towards the crate's end, so that
/// at least one cycle and less than [`SPAN_YEARS`] are left before it.
fn cycles_ahead(year: i32) -> i32 {
    (CRATE_LAST_YEAR - year).div_euclid(CYCLE_YEARS) + 1 - SPAN_YEARS / CYCLE_YEARS
}

/// BYWEEKNO. The crate is not asked for it: like the library it was made after, it takes the first days of
/// January for week 53 where they are in week 52 (2011 with WKST=MO).
#[derive(Clone, Debug)]
struct WeekNumbers {
    numbers: Vec<i32>,
    wkst: Weekday,
}

impl WeekNumbers {
    fn of(rule: &RuleText) -> Option<Self> {
        let numbers = rule.weeknos.clone();
        (!numbers.is_empty()).then_some(Self { numbers, wkst: rule.wkst })
    }

    /// Weeks begin on WKST; the first of a year is the first with four days in it (RFC 5545
    /// §3.3.10, ISO 8601 where WKST is Monday).
    fn has(&self, date: NaiveDate) -> bool {
        let into_week = date.weekday().days_since(self.wkst);
        // The week belongs to the year that its fourth day is in.
        let Some(fourth) = week_start(date, into_week).checked_add_days(Days::new(3)) else {
            return false;
        };
        let year = if fourth.leap_year() { 366 } else { 365 };
        let before = i32::try_from(fourth.ordinal0() / 7).unwrap_or(0);
        let behind = i32::try_from((year - 1 - fourth.ordinal0()) / 7).unwrap_or(0);
        self.numbers.iter().any(|&wanted| wanted == before + 1 || wanted == -behind - 1)
    }
}

/// The day `into_week` days before `date`.
pub(super) fn week_start(date: NaiveDate, into_week: u32) -> NaiveDate {
    date.checked_sub_days(Days::new(u64::from(into_week))).unwrap_or(NaiveDate::MIN)
}

/// BYDAY for the crate. It takes a day with a number and one without for two conditions, though RFC
/// 5545 lists days: so where there are both, the one without gets every number there is.
fn weekdays(rule: &RuleText) -> Vec<NWeekday> {
    let most = if rule.freq == Freq::Yearly && rule.months.is_empty() { 53 } else { 5 };
    let numbered = rule.weekdays.iter().any(|(nth, _)| *nth != 0);
    let mut list = Vec::new();
    for &(nth, day) in &rule.weekdays {
        match i16::try_from(nth) {
            Ok(0) if numbered => list.extend((1..=most).map(|nth| NWeekday::Nth(nth, day))),
            Ok(0) | Err(_) => list.push(NWeekday::Every(day)),
            Ok(nth) => list.push(NWeekday::Nth(nth, day)),
        }
    }
    list
}

fn small<T: TryFrom<i32>>(numbers: &[i32]) -> Vec<T> {
    numbers.iter().filter_map(|&number| T::try_from(number).ok()).collect()
}

fn midnight(date: NaiveDate) -> DateTime<Tz> {
    Tz::UTC.from_utc_datetime(&date.and_time(NaiveTime::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::rule_text;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn days(rule: &str, start: &str) -> RuleDays {
        RuleDays::new(&rule_text::parse(rule).unwrap(), date(start)).unwrap()
    }

    #[test]
    fn every_search_ends_after_a_cycle_of_the_calendar_and_before_two() {
        for year in 1..=9_999 {
            let left = CRATE_LAST_YEAR - (year + cycles_ahead(year) * CYCLE_YEARS);
            assert!((CYCLE_YEARS..SPAN_YEARS).contains(&left), "{year}: {left}");
        }
        for (rule, most) in [
            ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", 0),
            ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", 0),
            ("FREQ=YEARLY;BYWEEKNO=53;BYYEARDAY=180", 0),
            ("FREQ=WEEKLY", SPAN_YEARS * 53),
            ("FREQ=MONTHLY;BYMONTHDAY=31", SPAN_YEARS * 7),
            ("FREQ=DAILY;INTERVAL=7;BYDAY=TU", SPAN_YEARS * 53),
            ("FREQ=YEARLY;BYDAY=MO,TU,WE,TH,FR,SA,SU", SPAN_YEARS * 366),
        ] {
            let found = days(rule, "2026-01-05").from(date("2026-01-05")).count();
            assert!(i32::try_from(found).unwrap() <= most, "{rule}: {found}");
        }
    }

    #[test]
    fn days_come_from_where_the_search_begins_however_far_that_is() {
        for (rule, from, wanted) in [
            ("FREQ=DAILY", "2026-05-05", ["2026-05-05", "2026-05-06"]),
            ("FREQ=WEEKLY;BYDAY=MO,SU", "2526-04-30", ["2526-05-05", "2526-05-06"]),
            ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", "9991-01-01", ["9992-02-29", "9996-02-29"]),
            ("FREQ=MONTHLY;BYDAY=-5MO", "2026-01-01", ["2026-03-02", "2026-06-01"]),
            ("FREQ=MONTHLY;BYDAY=MO,2TU", "2026-01-01", ["2026-01-05", "2026-01-12"]),
        ] {
            let found: Vec<_> = days(rule, "2016-02-29").from(date(from)).take(2).collect();
            assert_eq!(found, wanted.map(date), "{rule} {from}");
        }
    }

    #[test]
    fn weeks_have_the_numbers_of_iso_8601_in_every_year() {
        for number in [1, 2, 51, 52, 53] {
            let days = days(&format!("FREQ=YEARLY;BYWEEKNO={number}"), "1990-01-01");
            let span = date("1990-01-01").iter_days().take(366 * 90);
            let wanted: Vec<_> = span.filter(|day| day.iso_week().week() == number).collect();
            let found: Vec<_> = days.from(date("1990-01-01")).take(wanted.len()).collect();
            assert_eq!(found, wanted, "week {number}");
        }
    }

    #[test]
    fn what_the_crate_refuses_is_refused_with_its_reason() {
        let rule = rule_text::parse("FREQ=YEARLY;BYDAY=-53MO").unwrap();
        let said = RuleDays::new(&rule, date("2026-01-01")).unwrap_err();
        assert!(said.contains("-52..=53"), "{said}");
    }
}
