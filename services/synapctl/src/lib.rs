//! The operator's command. One command a file:
//!
//! - [`up`]: all of Synap storage on this machine, with nothing to configure.
//! - `run`: one service in the foreground; what `up --processes` starts.
//! - `token`: a development token.
//! - `status`: what each service says of itself.
//! - `migrate`: what V0.2 has, into the stores of this installation.
//! - `verify`: whether entities are what their events say.
//! - `events`: the upkeep of the event store, and the end of V0.2's.
//! - `cutover`, `rollback`, `drop-legacy`, `restore-legacy`: from content_blocks to the object store, phase
//!   by phase, and back.
//! - `bench`: the system beside its floor.
//!
//! Every other command talks to the services over gRPC; the database is never opened from here,
//! but for the floor of a benchmark.

mod bench;
mod cli;
mod events;
mod migrate;
mod output;
mod patience;
mod run;
mod status;
mod takeover;
mod token;
pub mod up;
mod verify;

pub use cli::{Cli, Exit, run};
