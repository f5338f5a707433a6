//! The command line as a person runs it: the real binary, real servers.

mod servers;
