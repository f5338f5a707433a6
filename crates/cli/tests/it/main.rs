//! The command line as people and programs call it: the real binary, real servers.

mod offline;
mod servers;
mod system;
mod verbs;
