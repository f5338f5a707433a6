//! The tools a step can use: the only place of the system that calls the outside world.
//!
//! [`Registry`] holds every tool under its address `server.tool` and is what a worker calls. It does
//! for all tools what must never be forgotten: the input is checked against the tool's schema, the
//! call ends within its timeout whatever the tool does, the result is checked and bounded.
//!
//! Built in are `core.*` ([`core`]), `http.request` ([`http`]) and `llm.chat` ([`llm`]); every other
//! tool comes from a server of the Model Context Protocol ([`mcp`]).
//!
//! # How to add a tool
//!
//! 1. Is it a program of its own? Then it is an MCP server: name it in the file `MCP_CONFIG` names,
//!    and nothing has to be written here.
//! 2. Otherwise make a module with a type that implements [`Tool`], and a function that returns its
//!    [`ToolSpec`](orchestrator_engine::tool::ToolSpec): a schema that refuses unknown fields, a
//!    timeout, and the scope `tool:<server>` unless any agent may use it.
//! 3. Add both to `Registry::builtin`, and the server's name to [`mcp::RESERVED`].
//! 4. Errors say what a person needs and never hold a secret: see [`failure`]. Transient is what may
//!    succeed when it is asked again; everything else is `Refused`.

pub mod core;
pub mod failure;
pub mod http;
pub mod llm;
pub mod mcp;
mod registry;
mod schema;

pub use llm::LlmConfig;
pub use registry::{INHERITED_ENV, OUTPUT_MAX_BYTES, Registry, StartError, Tool, ToolsConfig};
