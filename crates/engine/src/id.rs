//! Identifiers. One type per noun, so a run id cannot be passed where a task id is meant.

use chrono::{DateTime, Utc};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// `UUIDv7`: sorts by creation time, so `ORDER BY id` is oldest first.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize, sqlx::Type,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A new id stamped `at`; the random part comes from `rng` so tests can repeat it.
            pub fn new(at: DateTime<Utc>, rng: &mut impl rand::Rng) -> Self {
                Self(uuid_v7(at, rng))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id! {
    /// Who calls: a program or a person.
    AgentId
}
id! {
    /// One API key of an agent.
    KeyId
}
id! {
    /// What the owner declared: a schedule, a pipeline and policies.
    TaskId
}
id! {
    /// One execution of a pipeline.
    RunId
}
id! {
    /// One calendar of an agent: dates on which schedules rest.
    CalendarId
}
id! {
    /// One token that reads an agent's planned runs.
    FeedTokenId
}
id! {
    /// A named message from outside or from a run.
    EventId
}
id! {
    /// One running process of a service.
    ProcessId
}

/// Proof of who holds a run right now: a number drawn anew at every lease (a fencing token,
/// Kleppmann 2016). A write-back with an older token changes nothing.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct LeaseToken(pub i64);

fn uuid_v7(at: DateTime<Utc>, rng: &mut impl rand::Rng) -> uuid::Uuid {
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    let mut random = [0; 10];
    rng.fill_bytes(&mut random);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// The process's source of randomness; code below the services takes it as a parameter.
#[expect(clippy::disallowed_methods, reason = "the one place allowed to ask")]
#[must_use]
pub fn rng() -> rand::rngs::ThreadRng {
    rand::rng()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_time_they_were_made() {
        let early = RunId::new("2026-01-01T00:00:00Z".parse().expect("a time"), &mut rng());
        let late = RunId::new("2026-01-01T00:00:01Z".parse().expect("a time"), &mut rng());

        assert!(early < late);
    }
}
