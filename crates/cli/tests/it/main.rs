//! The real binary, as people and programs call it.

mod offline;
mod system;
mod verbs;
