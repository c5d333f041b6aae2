//! PostgreSQL, real: found or fetched, started, crashed, pooled and migrated.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers are tests too")]

mod support;

mod database;
mod lifecycle;
mod sources;
