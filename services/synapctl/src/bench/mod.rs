//! `synapctl bench`: the system beside its floor.
//!
//! A benchmark runs two things in turn, in one call, on one machine: the system as `up` runs it,
//! and the floor: the same work straight to the same stores, without gRPC, without services. What
//! it says is the ratio; absolute numbers belong to the machine.

mod create_note;
mod floor;
mod idle;
mod load;
mod report;
mod system;

use clap::{Args, Subcommand};

use crate::cli::Exit;

/// Measure the system beside its floor: the same work straight to the stores.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// CreateNote through the gateway, against PUT + one transaction + one INSERT.
    CreateNote(create_note::CreateNoteArgs),
    /// Start time and idle memory of each service.
    Idle(idle::IdleArgs),
}

/// Runs the command.
pub(crate) async fn bench(args: BenchArgs) -> anyhow::Result<Exit> {
    match args.what {
        What::CreateNote(args) => create_note::bench(args).await,
        What::Idle(args) => idle::bench(args).await,
    }
}
