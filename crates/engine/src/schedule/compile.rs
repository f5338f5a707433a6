//! From what somebody wrote to a [`Schedule`]: every mistake is found here, all at once, and a
//! schedule that is accepted fires at least once.

use chrono::{DateTime, Datelike, NaiveDateTime, NaiveTime, Utc};

use super::calendar::Calendars;
use super::exclude::Excluded;
use super::interval::{self, Interval};
use super::rule::DayRule;
use super::rule_fine::{FineRule, Frame};
use super::rule_text::{Freq, RULE_COUNT_MAX, RuleText, Stamp};
use super::wall::{Changes, LocalTimes, Source, frame_of, nominals};
use super::zone::{LAST_SECOND, Resolved, Zone, instant, seconds};
use super::{Nominal, NominalKind, Schedule, ScheduleSpec, cron_text, ical, summary, topic};
use crate::clock::YEARS;
use crate::problem::Problem;
use crate::task::{DstFold, JITTER_MAX_SECONDS, ScheduleKind};

const EXPR: &str = "/schedule_expr";

/// Longer than any offset from UTC and any clock change, in seconds.
const TWO_DAYS: i64 = 2 * 86_400;

/// What the expression of a schedule came to.
#[derive(Default)]
struct Plan {
    sources: Vec<Source>,
    exdates: Vec<Stamp>,
    words: String,
}

impl Schedule {
    /// Checks `spec`, which names no calendars, and makes a schedule of it: see
    /// [`Schedule::compile_with`].
    ///
    /// # Errors
    ///
    /// As there; a calendar that it names nevertheless is one that does not exist.
    pub fn compile(spec: &ScheduleSpec, created_at: DateTime<Utc>) -> Result<Self, Vec<Problem>> {
        Self::compile_with(spec, created_at, &Calendars::default())
    }

    /// Checks `spec` and makes a schedule of it. `calendars` are those of the task's owner, at least
    /// the ones that [`ScheduleSpec::calendars`] names.
    ///
    /// `created_at` is when the task was made, as stored: where neither `starts_at` nor the rule
    /// itself says so, it is DTSTART and the phase of an interval, at whole seconds. The answer does
    /// not depend on when it is asked for, so a stored task compiles for ever.
    ///
    /// A rule's DTSTART is its first time only when the rule matches it (as in dateutil), and counts
    /// in COUNT then. Where the creation stands in for it, times of day that the rule names are
    /// round: `BYHOUR=8` is 08:00:00. UNTIL as a date includes that day.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, with pointers as in a task: `/schedule_expr`, `/timezone`,
    /// `/exclude/3`, `/starts_at`, `/ends_at`, `/schedule_kind`.
    pub fn compile_with(
        spec: &ScheduleSpec,
        created_at: DateTime<Utc>,
        calendars: &Calendars,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let zone = Zone::named(&spec.timezone).unwrap_or_else(|said| {
            problems.push(Problem::new("/timezone", said));
            Zone(chrono_tz::Tz::UTC)
        });
        let excluded = Excluded::read(&spec.exclude, calendars, &mut problems);
        for (pointer, bound) in [("/starts_at", spec.starts_at), ("/ends_at", spec.ends_at)] {
            if bound.is_some_and(|at| !YEARS.contains(&at.year())) {
                problems.push(Problem::new(pointer, "must be in the years 1 to 9999"));
            }
        }
        let anchor = spec.starts_at.unwrap_or(created_at).timestamp();
        let plan = plan(spec, zone, anchor).unwrap_or_else(|said| {
            problems.extend(said);
            Plan::default()
        });
        let mut schedule = Self {
            kind: spec.kind,
            zone,
            sources: plan.sources,
            exdates: plan.exdates,
            excluded,
            from: spec.starts_at.map_or(i64::MIN, |at| at.timestamp()),
            until: spec.ends_at.map_or(LAST_SECOND, |at| at.timestamp()),
            max_fires: spec.max_fires,
            jitter_max_seconds: spec.policy.jitter_seconds.min(JITTER_MAX_SECONDS),
            summary: String::new(),
        };
        if problems.is_empty() && !schedule.sources.is_empty() {
            problems.extend(schedule.never_fires(anchor));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        schedule.summary = summary::whole(spec, &plan.words, &schedule.excluded);
        Ok(schedule)
    }

    /// Why the schedule never fires, where it does not.
    fn never_fires(&mut self, anchor: i64) -> Option<Problem> {
        // A cron has no first time of its own; any moment serves to ask whether there is one.
        let begin = if self.kind == ScheduleKind::Cron { anchor - 1 } else { i64::MIN };
        if self.next_fire(begin, |_| ()).is_some() {
            return None;
        }
        let until = std::mem::replace(&mut self.until, LAST_SECOND);
        let excluded = std::mem::take(&mut self.excluded);
        let plain = until == LAST_SECOND && excluded.is_empty();
        let problem = if plain || self.next_fire(begin, |_| ()).is_none() {
            let bound = if self.from == i64::MIN { "" } else { " at or after starts_at" };
            Problem::new(EXPR, format!("this never fires{bound}: no date and time fit it"))
        } else {
            self.until = until;
            if self.next_fire(begin, |_| ()).is_none() {
                Problem::new("/ends_at", "the schedule does not fire up to ends_at")
            } else {
                Problem::new(
                    "/exclude",
                    "every time of the schedule is excluded, so it never fires",
                )
            }
        };
        self.until = until;
        self.excluded = excluded;
        Some(problem)
    }
}

fn plan(spec: &ScheduleSpec, zone: Zone, anchor: i64) -> Result<Plan, Vec<Problem>> {
    let at_expr = |said: String| vec![Problem::new(EXPR, said)];
    let all_at_expr =
        |said: Vec<String>| said.into_iter().map(|one| Problem::new(EXPR, one)).collect::<Vec<_>>();
    match spec.kind {
        ScheduleKind::Cron => cron(spec).map_err(all_at_expr),
        ScheduleKind::Rrule => rules(spec, zone, anchor).map_err(all_at_expr),
        ScheduleKind::Interval => {
            let every = interval::parse(&spec.expr).map_err(at_expr)?;
            let first = i64::from(spec.starts_at.is_none());
            let source = Source::Interval(Interval { phase: anchor, every, first });
            Ok(Plan { sources: vec![source], words: summary::interval(every), ..Plan::default() })
        }
        ScheduleKind::Once => once(spec, zone).map_err(at_expr),
        ScheduleKind::Event => {
            topic::check_pattern(&spec.expr).map_err(at_expr)?;
            Ok(Plan { words: format!("at every event {}", spec.expr), ..Plan::default() })
        }
        ScheduleKind::Manual if spec.expr.trim().is_empty() => {
            Ok(Plan { words: "only when somebody asks".to_owned(), ..Plan::default() })
        }
        ScheduleKind::Manual => {
            Err(at_expr("must be empty: a manual task runs only when somebody asks".to_owned()))
        }
        ScheduleKind::Condition => Err(vec![Problem::new(
            "/schedule_kind",
            "condition schedules are not available yet; use interval or cron with a step whose \
             \"if\" asks the condition, or event",
        )]),
    }
}

fn cron(spec: &ScheduleSpec) -> Result<Plan, Vec<String>> {
    let cron = cron_text::parse(&spec.expr)?;
    let words = summary::cron(&cron);
    let changes = if cron.every_hour {
        Changes::Passing
    } else {
        Changes::Fixed(spec.policy.dst_gap, spec.policy.dst_fold)
    };
    let source = Source::Wall(LocalTimes::Cron(cron), changes, None);
    Ok(Plan { sources: vec![source], words, ..Plan::default() })
}

fn rules(spec: &ScheduleSpec, zone: Zone, anchor: i64) -> Result<Plan, Vec<String>> {
    let mut set = ical::parse(&spec.expr, &spec.timezone)?;
    if set.start.is_none() && spec.starts_at.is_none() {
        set.rules.iter_mut().for_each(RuleText::round_times);
    }
    let start = match set.start {
        None => zone.local_at(anchor),
        Some(Stamp::Date(date)) => date.and_time(NaiveTime::MIN),
        Some(Stamp::Local(local)) => local,
        Some(Stamp::Instant(at)) => zone.local_at(at.timestamp()),
    };
    if !YEARS.contains(&start.year()) {
        return Err(vec!["DTSTART must be in the years 1 to 9999".to_owned()]);
    }
    let fixed = Changes::Fixed(spec.policy.dst_gap, spec.policy.dst_fold);
    let mut plan = Plan { exdates: set.exdates, ..Plan::default() };
    let mut words = Vec::new();
    let counted: u32 = set.rules.iter().filter_map(|rule| rule.count).sum();
    if counted > RULE_COUNT_MAX {
        return Err(vec![format!(
            "the COUNTs of all rules together must be at most {RULE_COUNT_MAX}; use UNTIL"
        )]);
    }
    for rule in &set.rules {
        let source = rule_source(rule, zone, start, fixed).map_err(|said| vec![said])?;
        // Each by itself, and the first ends it: ten searches in vain would be ten times as long.
        if source.next_after(zone, i64::MIN).is_none() {
            let words = summary::rule(rule, start);
            return Err(vec![format!("this never fires: no date and time fit {words:?}")]);
        }
        plan.sources.push(source);
        words.push(summary::rule(rule, start));
    }
    if !set.rdates.is_empty() {
        words.push(summary::listed(set.rdates.len()));
        plan.sources.push(Source::Listed(listed(&set.rdates, fixed, zone)));
    }
    if !plan.exdates.is_empty() {
        words.push(format!("except {} EXDATE", plan.exdates.len()));
    }
    plan.words = words.join("; ");
    Ok(plan)
}

fn rule_source(
    rule: &RuleText,
    zone: Zone,
    start: NaiveDateTime,
    fixed: Changes,
) -> Result<Source, String> {
    let end_of_day = |date: chrono::NaiveDate| date.and_hms_opt(23, 59, 59);
    let (local, at) = match rule.until {
        None => (None, None),
        Some(Stamp::Date(date)) => (end_of_day(date), None),
        Some(Stamp::Local(local)) => (Some(local), None),
        Some(Stamp::Instant(at)) => {
            // The instant decides; the local time only ends the search, so it may be a little late.
            let at = at.timestamp();
            (Some(zone.local_at(at.saturating_add(TWO_DAYS))), Some(at))
        }
    };
    if rule.freq < Freq::Hourly {
        let days = DayRule::new(rule, start, local)?;
        return Ok(Source::Wall(LocalTimes::Days(days), fixed, at));
    }
    match frame_of(rule, zone) {
        Frame::Wall => {
            let changes = if rule.hours.is_empty() { Changes::Passing } else { fixed };
            let fine = FineRule::new(rule, Frame::Wall, start, local.map(seconds))?;
            Ok(Source::Wall(LocalTimes::Fine(fine), changes, at))
        }
        frame @ Frame::Elapsed(_) => {
            let until = at.or(local.map(|local| match zone.resolve(local) {
                Resolved::Once(at) | Resolved::Gap(at) | Resolved::Twice(_, at) => at,
            }));
            FineRule::new(rule, frame, start, until).map(Source::Elapsed)
        }
    }
}

/// RDATE as nominal times, in order, one for an instant.
fn listed(rdates: &[Stamp], fixed: Changes, zone: Zone) -> Vec<Nominal> {
    let mut list: Vec<Nominal> = Vec::new();
    for rdate in rdates {
        match *rdate {
            Stamp::Instant(at) => list.push(Nominal {
                at,
                local: zone.local_at(at.timestamp()),
                kind: NominalKind::Fire,
                note: None,
            }),
            Stamp::Local(local) => list.extend(nominals(local, fixed, zone)),
            Stamp::Date(_) => {}
        }
    }
    list.sort_by_key(|nominal| (nominal.at, nominal.rank()));
    list.dedup_by_key(|nominal| nominal.at);
    list
}

fn once(spec: &ScheduleSpec, zone: Zone) -> Result<Plan, String> {
    let text = spec.expr.trim();
    let nominal = if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        let at = instant(at.timestamp());
        let local = zone.local_at(at.timestamp());
        Nominal { at, local, kind: NominalKind::Fire, note: None }
    } else {
        let local = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
            .iter()
            .find_map(|shape| NaiveDateTime::parse_from_str(text, shape).ok())
            .ok_or_else(|| {
                format!(
                    "{text:?} is no time; an instant \"2026-12-24T17:00:00Z\" or a local time \
                     \"2026-12-24T18:00\" is wanted"
                )
            })?;
        // Once is once: of two times of the same name the first is taken unless the last is asked
        // for.
        let fold = match spec.policy.dst_fold {
            DstFold::Both => DstFold::First,
            fold => fold,
        };
        let changes = Changes::Fixed(spec.policy.dst_gap, fold);
        let found = nominals(local, changes, zone).next();
        found.ok_or_else(|| format!("{text:?} does not exist in {}", zone.name()))?
    };
    if nominal.kind == NominalKind::DroppedByDst {
        return Err(format!(
            "{}, because dst_gap is skip; so this never fires",
            nominal.note.unwrap_or_default()
        ));
    }
    let words = summary::once(nominal.at, zone);
    Ok(Plan { sources: vec![Source::Listed(vec![nominal])], words, ..Plan::default() })
}
