//! What a schedule will do, for people to look at.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Nominal, NominalKind, Schedule};

/// The fires of a schedule from some instant on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// In order, no instant twice.
    pub fires: Vec<Fire>,
    /// Nothing comes after the last of `fires`.
    pub exhausted: bool,
}

/// One time at which a schedule fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fire {
    /// The instant.
    pub at: DateTime<Utc>,
    /// The same with the zone's offset, RFC 3339.
    pub local: String,
    /// How a clock change, an exclusion before it or jitter touches it.
    pub note: Option<String>,
}

impl Schedule {
    /// The first `count` fires at or after `from`, when `already_fired` have been before them (only
    /// `max_fires` asks). Times that do not fire leave a note at the next that does.
    #[must_use]
    pub fn preview(&self, from: DateTime<Utc>, count: usize, already_fired: u32) -> Preview {
        let left = self.max_fires.map(|max| max.saturating_sub(already_fired));
        let left = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        // A second may be partly over: what fires at its start is before `from` then.
        let begun = i64::from(from.timestamp_subsec_nanos() > 0);
        let mut after = from.timestamp().saturating_sub(1).saturating_add(begun);
        let mut fires = Vec::new();
        while fires.len() < count.min(left) {
            let mut skipped = Skipped::default();
            let Some(nominal) = self.next_fire(after, |nominal| skipped.add(nominal)) else {
                break;
            };
            after = nominal.at.timestamp();
            fires.push(self.fire(nominal, &skipped));
        }
        let exhausted = fires.len() >= left || self.next_fire(after, |_| ()).is_none();
        Preview { fires, exhausted }
    }

    fn fire(&self, nominal: Nominal, skipped: &Skipped) -> Fire {
        let jitter = (self.jitter_max_seconds > 0)
            .then(|| format!("starts up to {} s later (jitter)", self.jitter_max_seconds));
        let notes: Vec<String> =
            [skipped.note(), nominal.note, jitter].into_iter().flatten().collect();
        Fire {
            at: nominal.at,
            local: self.local(nominal.at),
            note: (!notes.is_empty()).then(|| notes.join(". ")),
        }
    }
}

/// What was left out before a fire.
#[derive(Default)]
struct Skipped {
    first: Option<String>,
    more: usize,
}

impl Skipped {
    fn add(&mut self, nominal: &Nominal) {
        if self.first.is_some() {
            self.more += 1;
            return;
        }
        self.first = match &nominal.kind {
            NominalKind::Excluded { reason } => Some(format!("Before this: {reason}")),
            _ => nominal.note.as_ref().map(|note| format!("Before this: {note}")),
        };
    }

    fn note(&self) -> Option<String> {
        match (&self.first, self.more) {
            (first, 0) => first.clone(),
            (Some(first), more) => Some(format!("{first}, and {more} more left out")),
            (None, _) => None,
        }
    }
}
