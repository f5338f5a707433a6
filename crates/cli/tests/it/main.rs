//! The command line as a person runs it: the real binary, real servers.

#![expect(clippy::unwrap_used, reason = "what fails in the arrangements of a test fails the test")]

mod examples;
mod servers;
