//! The command line as people and programs call it: the real binary, real servers.

#![expect(clippy::unwrap_used, reason = "what fails in the arrangements of a test fails the test")]

mod examples;
mod migrations;
mod offline;
mod pooler;
mod servers;
mod system;
mod verbs;
