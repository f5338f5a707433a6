//! Waiting for hints: a task of its own reads a stream and rings a bell. Whoever hears it asks
//! Postgres, so a lost or doubled ring changes nothing but the delay.

use std::sync::Arc;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{CALL_TIMEOUT, RETRY_AFTER, Streams};

/// How long one read waits for entries before it is asked again.
const BLOCK: Duration = Duration::from_secs(20);

/// A bell that rings when a stream has new entries. Rings that nobody waits for are kept as one.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Waits for the next ring.
    pub async fn heard(&self) {
        self.0.notified().await;
    }

    /// Rings.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

impl Streams {
    /// Rings the returned bell at new entries of `stream`, and when Redis has come back, until
    /// `stop`. Without Redis it never rings.
    #[must_use]
    pub fn listen(&self, stream: &'static str, stop: CancellationToken) -> Wake {
        let wake = Wake::default();
        if self.is_configured() {
            let (streams, bell) = (self.clone(), wake.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = streams.ring_at_entries(stream, &bell) => {}
                }
            });
        }
        wake
    }

    async fn ring_at_entries(&self, stream: &str, bell: &Wake) {
        loop {
            if let Some(mut connection) = self.dedicated(BLOCK).await {
                bell.ring(); // entries may have come while nobody read
                if let Err(error) = follow(&mut connection, stream, bell).await {
                    self.went_away(&error);
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// A connection of its own for a caller that blocks up to `block` in Redis. `None`: Redis is away.
    pub(super) async fn dedicated(&self, block: Duration) -> Option<MultiplexedConnection> {
        let client = self.0.client.as_ref()?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CALL_TIMEOUT))
            .set_response_timeout(Some(block + CALL_TIMEOUT * 4));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        self.note(connection)
    }
}

async fn follow(
    connection: &mut MultiplexedConnection,
    stream: &str,
    bell: &Wake,
) -> Result<(), redis::RedisError> {
    let mut after = "$".to_owned();
    loop {
        let reply: Option<StreamReadReply> = redis::cmd("XREAD")
            .arg("COUNT")
            .arg(1_000)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX))
            .arg("STREAMS")
            .arg(stream)
            .arg(&after)
            .query_async(connection)
            .await?;
        let last = reply.and_then(|reply| reply.keys.into_iter().next()?.ids.pop());
        if let Some(last) = last {
            after = last.id;
            bell.ring();
        }
    }
}
