//! Rate limits: of an agent, together with all other replicas as long as Redis is there; of a client
//! that fails to say who it is, in this process alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use lru::LruCache;
use orchestrator_engine::clock::Clock;
use orchestrator_engine::id::AgentId;
use orchestrator_engine::streams::{Decision, Streams, decide_rate};

use crate::client::{self, Client};
use crate::problem::whole_seconds;

/// How often a minute one address (of IPv6: one network) may fail to say who it is.
pub const FAILURES_PER_MINUTE: u32 = 60;
/// So many callers are remembered; who was seen longest ago is forgotten, and begins anew.
const REMEMBERED: std::num::NonZeroUsize = std::num::NonZeroUsize::new(10_000).unwrap();

/// What is left of the quota (draft-ietf-httpapi-ratelimit-headers-10, §4).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What the quota is (the same draft, §3).
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What is counted, and against what.
pub struct Limits {
    /// Requests a minute of an agent; 0: no limit.
    per_minute: u32,
    /// Where replicas count together.
    streams: Streams,
    clock: Arc<dyn Clock>,
    /// The counts of this process alone.
    local: Mutex<LruCache<String, i64>>,
}

impl Limits {
    /// With nothing counted yet. `per_minute` requests of each agent may come; 0: any number.
    #[must_use]
    pub fn new(per_minute: u32, streams: Streams, clock: Arc<dyn Clock>) -> Self {
        Self { per_minute, streams, clock, local: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Counts requests that come at once, each from one of `agents`, in their order. Returns whether each
    /// may go on; `None`: there is no limit.
    pub async fn count_agents(&self, agents: &[AgentId]) -> Vec<Option<Decision>> {
        if self.per_minute == 0 || agents.is_empty() {
            return vec![None; agents.len()];
        }
        let mut counts: Vec<(String, usize)> = Vec::new();
        let mut places = HashMap::new();
        for agent in agents {
            let place = *places.entry(agent).or_insert_with(|| {
                counts.push((format!("agent:{agent}"), 0));
                counts.len() - 1
            });
            counts[place].1 += 1;
        }
        let decisions = match self.streams.rate_limits(&counts, self.per_minute).await {
            Some(decisions) => decisions,
            None => self.count_alone(counts),
        };
        let mut decisions: Vec<_> = decisions.into_iter().map(Vec::into_iter).collect();
        agents.iter().map(|agent| decisions[places[agent]].next()).collect()
    }

    fn count_alone(&self, counts: Vec<(String, usize)>) -> Vec<Vec<Decision>> {
        let of_one = |(key, count): (String, usize)| {
            (0..count).map(|_| self.count_here(key.clone(), self.per_minute)).collect()
        };
        counts.into_iter().map(of_one).collect()
    }

    /// Counts a failure of `client` to say who it is.
    #[must_use]
    pub fn count_failure(&self, client: Option<Client>) -> Decision {
        let key = client.map_or_else(
            || "client".to_owned(),
            |Client(at)| format!("client:{}", client::network(at)),
        );
        self.count_here(key, FAILURES_PER_MINUTE)
    }

    fn count_here(&self, key: String, per_minute: u32) -> Decision {
        let now_us = self.clock.now().timestamp_micros();
        let mut kept = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.get(&key).copied().unwrap_or(0);
        let (decision, after) = decide_rate(before, now_us, per_minute);
        kept.put(key, after);
        decision
    }

    /// Tells an agent what is left.
    pub fn write_headers(&self, headers: &mut HeaderMap, decision: &Decision) {
        let reset = whole_seconds(decision.reset_after);
        let left = format!("\"agent\";r={};t={reset}", decision.remaining);
        let policy = format!("\"agent\";q={};w=60", self.per_minute);
        for (name, value) in [(RATE_LIMIT, left), (RATE_LIMIT_POLICY, policy)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}
