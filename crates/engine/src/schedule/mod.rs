//! When a task is due.
//!
//! A [`ScheduleSpec`] is compiled once into a [`Schedule`], which answers from any instant what comes
//! next, at a cost that depends neither on the distance from its start nor on what somebody wrote in
//! it: every search is bounded. Nothing here reads a clock or a file.
//!
//! Rules and cron fields stand for *local* times; each becomes an instant by the task's policy for
//! gaps and folds (`wall.rs`), never by a library's. What has no hour of its own (intervals, rules of hours or less without
//! BYHOUR, cron with `*` as hour) follows the passing of time instead.
//!
//! A time that the schedule names but that does not fire, because its date is excluded or its local
//! time does not exist, is still a [`Nominal`]: the ledger of occurrences tells what became of it.

mod around;
pub mod calendar;
mod compile;
mod cron;
mod cron_text;
mod exclude;
mod ical;
mod interval;
mod preview;
mod rule;
mod rule_days;
mod rule_fine;
mod rule_text;
mod summary;
#[cfg(test)]
mod tests;
mod times;
mod topic;
mod wall;
mod windows_zones;
mod zone;

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use self::exclude::Excluded;
pub use self::ical::zone_named_in;
pub use self::preview::{Fire, Preview};
use self::rule_text::Stamp;
pub use self::topic::{
    EVENT_KEY_MAX, TOPIC_MAX, check_event_key, check_pattern, check_topic, topic_matches,
};
use self::wall::Source;
use self::zone::Zone;
use crate::task::{Policy, ScheduleKind, TaskSpec};

/// The version of the zone data in this program: "2026a".
pub const ZONE_DATA: &str = chrono_tz::IANA_TZDB_VERSION;

/// How many times in a row may be left out before the search for one that fires gives up.
const LEFT_OUT_MAX: usize = 20_000;

/// The schedule fields of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// What `expr` is written in.
    #[serde(rename = "schedule_kind")]
    pub kind: ScheduleKind,
    /// The schedule; empty for `manual`.
    #[serde(rename = "schedule_expr", default)]
    pub expr: String,
    /// IANA name of the zone whose wall clock the schedule follows.
    #[serde(default = "utc")]
    pub timezone: String,
    /// No occurrence before this; also the start (DTSTART) of a rule or an interval.
    #[serde(default)]
    pub starts_at: Option<DateTime<Utc>>,
    /// No occurrence after this.
    #[serde(default)]
    pub ends_at: Option<DateTime<Utc>>,
    /// No more than so many fires.
    #[serde(default)]
    pub max_fires: Option<u32>,
    /// Local dates, date ranges and calendars (`calendar:NAME`) without fires.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Clock changes and jitter.
    #[serde(default)]
    pub policy: Policy,
}

impl ScheduleSpec {
    /// The names of the calendars in `exclude`, each once.
    #[must_use]
    pub fn calendars(&self) -> BTreeSet<&str> {
        self.exclude.iter().filter_map(|entry| calendar::named_in(entry)).collect()
    }
}

fn utc() -> String {
    "UTC".to_owned()
}

impl From<&TaskSpec> for ScheduleSpec {
    fn from(task: &TaskSpec) -> Self {
        Self {
            kind: task.schedule_kind,
            expr: task.schedule_expr.clone(),
            timezone: task.timezone.clone(),
            starts_at: task.starts_at,
            ends_at: task.ends_at,
            max_fires: task.max_fires,
            exclude: task.exclude.clone(),
            policy: task.policy.clone(),
        }
    }
}

/// One time that a schedule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nominal {
    /// The instant, in whole seconds. Of a time that a clock change leaves out: the instant that
    /// RFC 5545 §3.3.5 would give it, so that it has its place in the ledger.
    pub at: DateTime<Utc>,
    /// What the schedule asked the wall clock to show; where `note` tells of a gap, the wall clock
    /// shows another time at `at`.
    pub local: NaiveDateTime,
    /// What becomes of it.
    pub kind: NominalKind,
    /// How a clock change touched it: "02:30 does not exist on 2026-03-29 in Europe/Berlin; moved
    /// to 03:30".
    pub note: Option<String>,
}

/// What becomes of a [`Nominal`] time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NominalKind {
    /// It fires.
    Fire,
    /// It was excluded; the ledger says `skipped_excluded`.
    Excluded {
        /// By what: "2026-12-25 is in exclude", "2026-12-25 is in calendar de-holidays (Weihnachten)".
        reason: String,
    },
    /// A clock change leaves it out and the policy says so; the ledger says `skipped_dst`.
    DroppedByDst,
}

impl Nominal {
    /// Whether it fires.
    #[must_use]
    pub fn fires(&self) -> bool {
        self.kind == NominalKind::Fire
    }

    /// Earlier; or at the same instant and with more right to it: one instant has one disposition.
    fn comes_before(&self, other: &Self) -> bool {
        (self.at, self.rank()) < (other.at, other.rank())
    }

    fn rank(&self) -> u8 {
        match self.kind {
            NominalKind::Fire if self.note.is_none() => 0,
            NominalKind::Fire => 1,
            NominalKind::Excluded { .. } => 2,
            NominalKind::DroppedByDst => 3,
        }
    }
}

/// A checked schedule, cheap to ask and to share. Made by [`Schedule::compile`].
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: ScheduleKind,
    zone: Zone,
    sources: Vec<Source>,
    /// EXDATE.
    exdates: Vec<Stamp>,
    excluded: Excluded,
    /// No time before this; seconds since 1970.
    from: i64,
    /// No time after this; seconds since 1970, at most the end of the year 9999.
    until: i64,
    max_fires: Option<u32>,
    jitter_max_seconds: u32,
    summary: String,
}

impl Schedule {
    /// What the schedule is written in.
    #[must_use]
    pub fn kind(&self) -> ScheduleKind {
        self.kind
    }

    /// No more than so many fires. [`Schedule::next_after`] does not count: who keeps the ledger
    /// knows how many there were.
    #[must_use]
    pub fn max_fires(&self) -> Option<u32> {
        self.max_fires
    }

    /// The schedule in plain words: "every Monday to Friday at 08:30, Europe/Chisinau".
    #[must_use]
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// The first nominal time strictly after `after`, also one that does not fire (see
    /// [`NominalKind`]). `None` when there is none: the schedule has ended, or has no times of its
    /// own (`manual`, `event`).
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<Nominal> {
        self.next(after.timestamp())
    }

    /// The first time strictly after `after` that fires. Excluded stretches are passed over in one
    /// step, however many times they hold. `None` as in [`Schedule::next_after`].
    #[must_use]
    pub fn next_fire_after(&self, after: DateTime<Utc>) -> Option<Nominal> {
        self.next_fire(after.timestamp(), |_| ())
    }

    /// How long after `nominal` the run of the task `seed` starts, from zero up to the policy's
    /// jitter: always the same for the same two, and less than the time to the next fire, so that
    /// runs do not change their order. Whole milliseconds.
    #[must_use]
    pub fn jitter(&self, seed: Uuid, nominal: DateTime<Utc>) -> TimeDelta {
        let most = i64::from(self.jitter_max_seconds);
        if most == 0 {
            return TimeDelta::zero();
        }
        let free = self
            .next_fire_after(nominal)
            .map_or(most, |next| (next.at - nominal).num_seconds())
            .min(most);
        let digest = Sha256::new()
            .chain_update(seed.as_bytes())
            .chain_update(nominal.timestamp_micros().to_be_bytes())
            .finalize();
        let draw = digest.iter().take(7).fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
        TimeDelta::milliseconds(draw % (free * 1_000).max(1))
    }

    fn next(&self, after: i64) -> Option<Nominal> {
        let after = after.max(self.from.saturating_sub(1));
        if self.until <= after {
            return None;
        }
        let found = self
            .sources
            .iter()
            .filter_map(|source| source.next_after(self.zone, after))
            .map(|nominal| self.judged(nominal))
            .reduce(|best, other| if other.comes_before(&best) { other } else { best })?;
        (found.at.timestamp() <= self.until).then_some(found)
    }

    /// Like [`Schedule::next_fire_after`]; what is left out on the way is shown to `left_out`, of an
    /// excluded stretch only its first time.
    fn next_fire(&self, after: i64, mut left_out: impl FnMut(&Nominal)) -> Option<Nominal> {
        let mut after = after;
        for _ in 0..LEFT_OUT_MAX {
            let found = self.next(after)?;
            if found.fires() {
                return Some(found);
            }
            left_out(&found);
            after = self.end_of_stretch(&found);
        }
        None
    }

    /// The last second of the excluded stretch that `nominal` is in, or the time itself.
    fn end_of_stretch(&self, nominal: &Nominal) -> i64 {
        let at = nominal.at.timestamp();
        let shown = self.zone.local_at(at).date();
        let midnight = self
            .excluded
            .until(shown)
            .and_then(|last| last.succ_opt())
            .map(|next| self.zone.first_instant(next.and_time(chrono::NaiveTime::MIN)));
        midnight.map_or(at, |midnight| at.max(midnight - 1))
    }

    /// `nominal`, marked where it is excluded.
    fn judged(&self, mut nominal: Nominal) -> Nominal {
        if !nominal.fires() {
            return nominal;
        }
        let shown = self.zone.local_at(nominal.at.timestamp()).date();
        let date = [nominal.local.date(), shown]
            .into_iter()
            .find(|&date| self.excluded.until(date).is_some());
        if let Some(date) = date {
            nominal.kind = NominalKind::Excluded { reason: self.excluded.reason(date) };
        } else if self.exdates.iter().any(|exdate| match exdate {
            Stamp::Date(date) => *date == nominal.local.date(),
            Stamp::Local(local) => *local == nominal.local,
            Stamp::Instant(at) => *at == nominal.at,
        }) {
            nominal.kind = NominalKind::Excluded {
                reason: format!("{} is in EXDATE", nominal.local.format("%Y-%m-%d %H:%M")),
            };
        }
        nominal
    }
}
