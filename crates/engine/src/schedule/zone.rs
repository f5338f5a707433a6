//! From the wall clock to the instant and back, with our own rule for clock changes.
//!
//! Instants are whole seconds since 1970 here (`unix`), wall-clock times are naive. The zone data
//! are those compiled into `chrono-tz`; the machine's own are never asked.

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::windows_zones;
use crate::problem::nearest;

/// 9999-12-31T23:59:59Z: the last that RFC 3339 can write.
pub(super) const LAST_SECOND: i64 = 253_402_300_799;
/// Further than any clock change reaches: the widest known is 24 hours (Pacific/Apia, 2011).
const BEYOND_ANY_CHANGE: i64 = 26 * 3600;

/// What one wall-clock time means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// It exists once.
    Once(i64),
    /// A clock change leaves it out; this is the instant that RFC 5545 §3.3.5 gives it, counted
    /// with the offset from before the change.
    Gap(i64),
    /// A clock change brings it twice.
    Twice(i64, i64),
}

/// A zone of the IANA database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zone(pub(super) Tz);

impl Zone {
    /// The zone of that exact name, or what to say to the person who wrote it.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        name.parse().map(Self).map_err(|_| {
            if let Some(iana) = windows_zones::iana(name) {
                return format!("{name:?} is what Windows calls a zone; its IANA name is {iana:?}");
            }
            let known = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
            match nearest(name, known) {
                Some(close) => format!("no time zone is called {name:?}; did you mean {close:?}?"),
                None => format!(
                    "no time zone is called {name:?}; IANA names such as \"Europe/Chisinau\" or \
                     \"UTC\" are wanted"
                ),
            }
        })
    }

    /// Its IANA name.
    pub(super) fn name(self) -> &'static str {
        self.0.name()
    }

    /// Seconds east of UTC at `unix`.
    pub(super) fn offset_at(self, unix: i64) -> i64 {
        let utc = naive(unix);
        i64::from(self.0.offset_from_utc_datetime(&utc).fix().local_minus_utc())
    }

    /// What a wall clock shows at `unix`.
    pub(super) fn local_at(self, unix: i64) -> NaiveDateTime {
        naive(unix.saturating_add(self.offset_at(unix)))
    }

    /// The instant or instants at which a wall clock shows `local`.
    pub(super) fn resolve(self, local: NaiveDateTime) -> Resolved {
        let as_utc = seconds(local);
        let before =
            |offset: chrono_tz::TzOffset| as_utc - i64::from(offset.fix().local_minus_utc());
        match self.0.offset_from_local_datetime(&local) {
            chrono::LocalResult::Single(offset) => Resolved::Once(before(offset)),
            chrono::LocalResult::Ambiguous(one, other) => {
                let (one, other) = (before(one), before(other));
                Resolved::Twice(one.min(other), one.max(other))
            }
            chrono::LocalResult::None => {
                // Counted with the later offset the time falls just before the change, where the
                // earlier offset can be read.
                let after = self.offset_at(as_utc + BEYOND_ANY_CHANGE);
                let before = self.offset_at(as_utc - after);
                Resolved::Gap(as_utc - before)
            }
        }
    }

    /// The first instant at which the wall clock shows `local` or, in a gap, would have.
    pub(super) fn first_instant(self, local: NaiveDateTime) -> i64 {
        match self.resolve(local) {
            Resolved::Once(at) | Resolved::Gap(at) | Resolved::Twice(at, _) => at,
        }
    }

    /// By how many seconds the clock changes around `unix`; 0 but for the hours about a change. Within
    /// that distance wall-clock order and the order of instants may differ.
    pub(super) fn change_around(self, unix: i64) -> i64 {
        match self.change_within(unix, BEYOND_ANY_CHANGE) {
            0 => 0,
            // A change further away than it is wide does not reach here.
            width => self.change_within(unix, width + 1),
        }
    }

    fn change_within(self, unix: i64, distance: i64) -> i64 {
        let offsets = [
            self.offset_at(unix.saturating_sub(distance)),
            self.offset_at(unix),
            self.offset_at(unix.saturating_add(distance)),
        ];
        let (low, high) =
            offsets.iter().fold((i64::MAX, i64::MIN), |(l, h), &o| (l.min(o), h.max(o)));
        high - low
    }
}

/// `local` read as if it were UTC, in seconds since 1970.
pub(super) fn seconds(local: NaiveDateTime) -> i64 {
    local.and_utc().timestamp()
}

/// The reverse of [`seconds`], held within the years that chrono knows.
pub(super) fn naive(seconds: i64) -> NaiveDateTime {
    instant(seconds).naive_utc()
}

/// `unix` as an instant, held within the years that chrono knows.
pub(super) fn instant(unix: i64) -> DateTime<Utc> {
    // A few days inside chrono's range, so that an offset or a second may still be added.
    let reach = TimeDelta::days(3);
    let (first, last) = (DateTime::<Utc>::MIN_UTC + reach, DateTime::<Utc>::MAX_UTC - reach);
    DateTime::from_timestamp(unix.clamp(first.timestamp(), last.timestamp()), 0).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> Zone {
        Zone::named(name).unwrap()
    }

    fn local(text: &str) -> NaiveDateTime {
        text.parse().unwrap()
    }

    fn unix(text: &str) -> i64 {
        text.parse::<DateTime<Utc>>().unwrap().timestamp()
    }

    #[test]
    fn a_time_in_a_gap_keeps_the_offset_from_before_it() {
        for (name, missing, at) in [
            ("Europe/Berlin", "2026-03-29T02:30:00", "2026-03-29T01:30:00Z"),
            ("Europe/Berlin", "2026-03-29T02:00:00", "2026-03-29T01:00:00Z"),
            ("America/New_York", "2026-03-08T02:59:59", "2026-03-08T07:59:59Z"),
            ("Australia/Lord_Howe", "2026-10-04T02:15:00", "2026-10-03T15:45:00Z"),
            ("Pacific/Apia", "2011-12-30T09:00:00", "2011-12-30T19:00:00Z"),
            ("America/Sao_Paulo", "2017-10-15T00:00:00", "2017-10-15T03:00:00Z"),
            ("Africa/Casablanca", "2026-03-22T02:30:00", "2026-03-22T02:30:00Z"),
        ] {
            assert_eq!(zone(name).resolve(local(missing)), Resolved::Gap(unix(at)), "{name}");
        }
    }

    #[test]
    fn a_time_in_a_fold_has_both_instants_in_order() {
        for (name, double, first, last) in [
            (
                "Europe/Berlin",
                "2026-10-25T02:30:00",
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
            ),
            (
                "America/New_York",
                "2026-11-01T01:00:00",
                "2026-11-01T05:00:00Z",
                "2026-11-01T06:00:00Z",
            ),
            (
                "Australia/Lord_Howe",
                "2026-04-05T01:45:00",
                "2026-04-04T14:45:00Z",
                "2026-04-04T15:15:00Z",
            ),
            (
                "America/Sao_Paulo",
                "2017-02-18T23:30:00",
                "2017-02-19T01:30:00Z",
                "2017-02-19T02:30:00Z",
            ),
        ] {
            let wanted = Resolved::Twice(unix(first), unix(last));
            assert_eq!(zone(name).resolve(local(double)), wanted, "{name}");
        }
    }

    #[test]
    fn a_zone_with_an_odd_offset_resolves_to_the_second() {
        let kathmandu = zone("Asia/Kathmandu");

        let at = kathmandu.resolve(local("2026-01-01T09:00:00"));

        assert_eq!(at, Resolved::Once(unix("2026-01-01T03:15:00Z")));
    }

    #[test]
    fn the_zone_data_know_the_summers_of_this_century() {
        assert_eq!(zone("Europe/Berlin").offset_at(unix("2095-07-01T00:00:00Z")), 7_200);
        assert_eq!(zone("America/New_York").offset_at(unix("2095-01-01T00:00:00Z")), -18_000);
    }

    #[test]
    fn a_misspelt_zone_is_answered_with_the_near_one() {
        let said = Zone::named("europe/berlin").unwrap_err();
        assert!(said.contains("did you mean \"Europe/Berlin\""), "{said}");
        let said = Zone::named("W. Europe Standard Time").unwrap_err();
        assert!(said.contains("its IANA name is \"Europe/Berlin\""), "{said}");
    }

    #[test]
    fn every_name_and_alias_is_a_zone() {
        for name in chrono_tz::TZ_VARIANTS.map(Tz::name) {
            assert_eq!(Zone::named(name).map(Zone::name), Ok(name));
        }
        for alias in
            ["Europe/Kiev", "US/Eastern", "GB", "Asia/Calcutta", "Etc/GMT-14", "CET", "Zulu"]
        {
            assert!(Zone::named(alias).is_ok(), "{alias}");
        }
    }
}
