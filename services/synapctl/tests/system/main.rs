//! The whole system in real processes. One binary, because each would be linked with all services,
//! and because Cargo runs one after the other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

mod activity;
mod adopt;
mod crash_matrix;
mod damage;
mod edge;
mod edits;
mod faults;
mod files;
mod idempotency;
mod journey;
mod legacy_events;
mod listing;
mod migrate_content;
mod model;
mod monitor;
mod notes;
mod outages;
mod phases;
mod pressure;
mod reconcile;
mod refusals;
mod search;
mod surface;
mod takeover;
mod units;
mod up;
mod verify_events;
mod verify_files;
mod walls;
