//! Step records on their way into the database.

use std::borrow::Cow;
use std::ops::Deref;

use crate::run::StepRecord;

/// A step record and, where it was made already, the JSON that is written of it: a record is a checkpoint
/// first and then a part of its run's row, in the same words.
#[derive(Clone, Debug)]
pub struct Sealed {
    record: StepRecord,
    json: Option<String>,
}

impl Sealed {
    /// Makes the JSON now, for a record that is written more than once.
    #[must_use]
    pub fn now(record: StepRecord) -> Self {
        Self { json: json(&record), record }
    }

    /// The record, to change it: what was made of it is made anew.
    pub fn unseal(&mut self) -> &mut StepRecord {
        self.json = None;
        &mut self.record
    }

    /// An object. `None` for what Postgres could not read back as jsonb: that has to be refused before it
    /// is kept as text.
    pub(super) fn json(&self) -> Option<Cow<'_, str>> {
        match &self.json {
            Some(made) => Some(Cow::Borrowed(made)),
            None => json(&self.record).map(Cow::Owned),
        }
    }
}

impl From<StepRecord> for Sealed {
    /// The JSON is made when it is asked for.
    fn from(record: StepRecord) -> Self {
        Self { record, json: None }
    }
}

impl Deref for Sealed {
    type Target = StepRecord;

    fn deref(&self) -> &StepRecord {
        &self.record
    }
}

fn json(record: &StepRecord) -> Option<String> {
    serde_json::to_string(record).ok().filter(|text| !text.contains("\\u0000"))
}
