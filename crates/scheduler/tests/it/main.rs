//! The scheduler on a real Postgres and Redis.

#![expect(clippy::unwrap_used, reason = "whatever goes wrong in a helper fails the test")]

mod events;
mod expiry;
mod firing;
mod held;
mod invariants;
mod measures;
mod missed;
mod overlap;
mod pruning;
mod quotas;
mod rates;
mod silence;
mod year;
mod zone_data;
