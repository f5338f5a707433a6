//! Reading the event spine as one of a group: each entry goes to one scheduler, and to another when
//! that one does not acknowledge it in time.

use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamPendingReply, StreamReadReply};

use super::{EVENTS, Streams};

/// The group of all schedulers.
const GROUP: &str = "scheduler";
/// How long one read waits for entries.
const BLOCK: Duration = Duration::from_secs(5);
/// After how long an entry that was read and not acknowledged is read by another.
const STALE_AFTER: Duration = Duration::from_secs(15);
/// The most entries of one read.
pub const BATCH: usize = 500;
/// How long the stream may grow before acknowledged entries are dropped.
const KEPT: usize = 10_000;

/// One entry of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Redis' id of it.
    pub id: String,
    /// The event it stands for, where it was published through the API; it is in Postgres already.
    pub event_id: Option<String>,
    /// Its `topic` field; missing where another program wrote something else.
    pub topic: Option<String>,
    /// Its `payload` field: JSON, or plain text.
    pub payload: Option<String>,
    /// Its `key` field.
    pub key: Option<String>,
    /// A field of these whose value is no text: not UTF-8.
    pub unreadable: Option<&'static str>,
}

impl From<StreamId> for Entry {
    fn from(entry: StreamId) -> Self {
        let mut unreadable = None;
        let mut text = |name: &'static str| {
            let text = entry.get(name);
            if text.is_none() && entry.contains_key(name) {
                unreadable = Some(name);
            }
            text
        };
        Self {
            event_id: text("event_id"),
            topic: text("topic"),
            payload: text("payload"),
            key: text("key"),
            unreadable,
            id: entry.id,
        }
    }
}

/// A member of the group, with a connection of its own.
pub struct Consumer {
    streams: Streams,
    connection: MultiplexedConnection,
    name: String,
}

impl Streams {
    /// Joins the group as `name`, making the group where there is none: it then begins with the
    /// oldest entry, so that nothing written before is passed over. `None`: Redis is away.
    pub async fn consume(&self, name: String) -> Option<Consumer> {
        let mut connection = self.dedicated(BLOCK).await?;
        let made: Result<(), RedisError> = redis::cmd("XGROUP")
            .arg("CREATE")
            .arg(EVENTS)
            .arg(GROUP)
            .arg("0")
            .arg("MKSTREAM")
            .query_async(&mut connection)
            .await;
        match made {
            Ok(()) => {}
            Err(error) if error.code() == Some("BUSYGROUP") => {}
            Err(error) => {
                self.went_away(&error);
                return None;
            }
        }
        Some(Consumer { streams: self.clone(), connection, name })
    }
}

impl Consumer {
    /// The next entries nobody has read, at most 500; waits a few seconds for some. `None`:
    /// Redis went away, or forgot the group; join again.
    pub async fn read(&mut self) -> Option<Vec<Entry>> {
        let answer: Result<Option<StreamReadReply>, _> = redis::cmd("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg(&self.name)
            .arg("COUNT")
            .arg(BATCH)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX))
            .arg("STREAMS")
            .arg(EVENTS)
            .arg(">")
            .query_async(&mut self.connection)
            .await;
        let reply = self.streams.note(answer)?;
        let ids = reply.and_then(|reply| reply.keys.into_iter().next()).map(|key| key.ids);
        Some(ids.unwrap_or_default().into_iter().map(Entry::from).collect())
    }

    /// Entries that another member read long ago and has not acknowledged: it died. At most 500.
    /// `None`: Redis went away, or forgot the group.
    pub async fn claim_stale(&mut self) -> Option<Vec<Entry>> {
        let answer: Result<StreamAutoClaimReply, _> = redis::cmd("XAUTOCLAIM")
            .arg(EVENTS)
            .arg(GROUP)
            .arg(&self.name)
            .arg(u64::try_from(STALE_AFTER.as_millis()).unwrap_or(u64::MAX))
            .arg("0-0")
            .arg("COUNT")
            .arg(BATCH)
            .query_async(&mut self.connection)
            .await;
        let reply = self.streams.note(answer)?;
        Some(reply.claimed.into_iter().map(Entry::from).collect())
    }

    /// Says that the entries' events are in Postgres. One that is not said so comes again.
    pub async fn acknowledge(&mut self, entries: &[Entry]) -> Option<()> {
        if entries.is_empty() {
            return Some(());
        }
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        let answer: Result<i64, _> = redis::cmd("XACK")
            .arg(EVENTS)
            .arg(GROUP)
            .arg(ids)
            .query_async(&mut self.connection)
            .await;
        self.streams.note(answer).map(|_| ())
    }

    /// Once the stream has grown long, drops what every member has acknowledged. An entry that nobody
    /// has read, or that was not acknowledged, is never dropped.
    pub async fn trim(&mut self) -> Option<()> {
        let length: Result<usize, _> =
            redis::cmd("XLEN").arg(EVENTS).query_async(&mut self.connection).await;
        if self.streams.note(length)? <= KEPT {
            return Some(());
        }
        let pending: Result<StreamPendingReply, _> =
            redis::cmd("XPENDING").arg(EVENTS).arg(GROUP).query_async(&mut self.connection).await;
        let first_open = match self.streams.note(pending)? {
            StreamPendingReply::Data(data) => data.start_id,
            _ => self.last_delivered().await?,
        };
        let trimmed: Result<i64, _> = redis::cmd("XTRIM")
            .arg(EVENTS)
            .arg("MINID")
            .arg("~")
            .arg(first_open)
            .query_async(&mut self.connection)
            .await;
        self.streams.note(trimmed).map(|_| ())
    }

    async fn last_delivered(&mut self) -> Option<String> {
        let groups: Result<redis::streams::StreamInfoGroupsReply, _> =
            redis::cmd("XINFO").arg("GROUPS").arg(EVENTS).query_async(&mut self.connection).await;
        let groups = self.streams.note(groups)?;
        let group = groups.groups.into_iter().find(|group| group.name == GROUP)?;
        Some(group.last_delivered_id)
    }
}
