//! The API on a real Postgres and Redis, called as a client calls it.

#![expect(clippy::unwrap_used, reason = "what fails in the arrangements of a test fails the test")]

mod admission;
mod agents;
mod bad_requests;
mod calendars;
mod changes;
mod counts;
mod documented;
mod feeds;
mod harness;
mod limits;
mod many_runs;
mod pages;
mod runs;
mod silence;
mod tasks;
mod times;
