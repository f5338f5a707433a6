//! The tools against real counterparts: HTTP servers on this machine, and MCP servers as published.

mod core;
mod http;
mod llm;
mod mcp_http;
mod mcp_stdio;
mod setup;
