//! content-service over real gRPC on loopback: one suite, run over every store.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod check;
mod faults;
mod heads;
mod large;
mod listing;
mod outages;
mod puts;
mod quarantine;
mod races;
mod ranges;
mod refusals;
mod round_trips;
mod running;
mod signed_puts;
mod signed_reads;
mod surface;
mod throttle;
