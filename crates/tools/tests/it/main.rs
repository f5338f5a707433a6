//! The tools against real counterparts: HTTP servers on this machine, and MCP servers as published.

#![expect(clippy::unwrap_used, reason = "what fails in the arrangements of a test fails the test")]

mod core;
mod http;
mod llm;
mod mcp_http;
mod mcp_stdio;
mod page;
mod setup;
