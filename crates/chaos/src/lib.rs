//! Breaks what the services stand on, under load, and looks what became of every run.
//!
//! A [`trial`] starts private servers, the real binaries as processes, and a [`receiver`] that the
//! steps of all runs call and that notes every call. While runs are enqueued through the API, one
//! [`faults::Fault`] does its harm. When the queue is empty, what the API tells about each run is held
//! against what the receiver saw ([`check`]). Nothing here looks into the product's way of doing it:
//! how leases are kept may change, and this stays.
//!
//! `make chaos` does all faults with 10,000 runs each; the test of this crate a short form of each.

pub mod check;
pub mod faults;
mod load;
mod plan;
mod proxy;
pub mod receiver;
mod report;
mod servers;
mod services;
mod tasks;
mod trial;
mod world;

pub use plan::Plan;
pub use report::{print, write_json, write_table};
pub use trial::{Verdict, trial};

/// What anything here comes to; the error is a sentence for people.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
