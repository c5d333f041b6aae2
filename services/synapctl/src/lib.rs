//! The operator's command. One command a file:
//!
//! - [`up`]: all of Synap storage on this machine, with nothing to configure.
//! - `run`: one service in the foreground; what `up --processes` starts.
//! - `token`: a development token.
//! - `status`: what each service says of itself.
//! - `adopt`: a database of V0.2, while it is in use.
//! - `cost`: what is stored, in dollars.
//! - `migrate`: what V0.2 has, into the stores of this installation.
//! - `verify`: whether the object store, or the event store, has what entities say.
//! - `monitor`: the same all the time, a little at a time, with alerts.
//! - `reconcile`: the object store against rows, both ways, and the quarantine.
//! - `events`: the upkeep of the event store, and the end of V0.2's.
//! - `cutover`, `rollback`, `drop-legacy`, `restore-legacy`: from content_blocks to the object store, phase
//!   by phase, and back.
//! - `bench`: the system beside its floor.
//!
//! Every other command talks to the services over gRPC; the database is never opened from here,
//! but for the floor of a benchmark.

mod adopt;
mod age;
mod bench;
mod cli;
mod cost;
mod events;
mod looks;
mod migrate;
mod monitor;
mod output;
mod patience;
mod phase;
mod reconcile;
mod run;
mod services;
mod statistics;
mod status;
mod takeover;
mod token;
mod units;
pub mod up;
mod verify;

pub use cli::{Cli, Exit, run};
