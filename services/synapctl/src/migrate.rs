//! `synapctl migrate`: what an installation of V0.2 has, into the stores of this one.

pub(crate) mod content;
mod events;

use clap::{Args, Subcommand};

use crate::cli::Exit;

/// Bring what V0.2 has into the stores of this installation, while it is in use.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The bodies that V0.2 keeps in content_blocks, into the object store.
    Content(content::ContentArgs),
    /// The events of V0.2, with their ids and times.
    Events(events::EventsArgs),
}

/// Runs the command.
pub(crate) async fn migrate(args: MigrateArgs) -> anyhow::Result<Exit> {
    match args.what {
        What::Content(args) => content::migrate(args).await,
        What::Events(args) => events::migrate(args).await,
    }
}
