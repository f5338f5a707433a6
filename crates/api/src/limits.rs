//! Rate limits: of an agent, together with all other replicas as long as Redis is there; of a client
//! that fails to say who it is, in this process alone.

use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use lru::LruCache;
use orchestrator_engine::id::AgentId;
use orchestrator_engine::streams::{Decision, decide_rate};

use crate::client::{self, Client};
use crate::problem::whole_seconds;
use crate::state::Api;

/// How often a minute one address (of IPv6: one network) may fail to say who it is.
pub const FAILURES_PER_MINUTE: u32 = 60;
/// So many callers are remembered; who was seen longest ago is forgotten, and begins anew.
const REMEMBERED: std::num::NonZeroUsize = std::num::NonZeroUsize::new(10_000).unwrap();

/// What is left of the quota (draft-ietf-httpapi-ratelimit-headers-10, §4).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What the quota is (the same draft, §3).
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Limits kept in this process.
pub struct LocalLimits(Mutex<LruCache<String, i64>>);

impl Default for LocalLimits {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl LocalLimits {
    fn count(&self, key: String, now_us: i64, per_minute: u32) -> Decision {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.get(&key).copied().unwrap_or(0);
        let (decision, after) = decide_rate(before, now_us, per_minute);
        kept.put(key, after);
        decision
    }
}

/// Counts a request of `agent`. `None` when there is no limit.
pub async fn count_agent(api: &Api, agent: AgentId) -> Option<Decision> {
    let per_minute = api.options.rate_limit_per_minute;
    if per_minute == 0 {
        return None;
    }
    let key = format!("agent:{agent}");
    match api.streams.rate_limit(&key, per_minute).await {
        Some(decision) => Some(decision),
        None => Some(api.limits.count(key, api.clock.now().timestamp_micros(), per_minute)),
    }
}

/// Counts a failure of `client` to say who it is.
#[must_use]
pub fn count_failure(api: &Api, client: Option<Client>) -> Decision {
    let key = client.map_or_else(
        || "client".to_owned(),
        |Client(at)| format!("client:{}", client::network(at)),
    );
    api.limits.count(key, api.clock.now().timestamp_micros(), FAILURES_PER_MINUTE)
}

/// Tells the caller what is left.
pub fn write_headers(headers: &mut HeaderMap, decision: &Decision, per_minute: u32) {
    let reset = whole_seconds(decision.reset_after);
    let left = format!("\"agent\";r={};t={reset}", decision.remaining);
    let policy = format!("\"agent\";q={per_minute};w=60");
    for (name, value) in [(RATE_LIMIT, left), (RATE_LIMIT_POLICY, policy)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}
