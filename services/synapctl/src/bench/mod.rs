//! `synapctl bench`: the system beside its floor.
//!
//! A benchmark runs two things in turn, in one call, on one machine: the system as `up` runs it,
//! and the floor: the same work straight to the same stores, without gRPC, without services. What
//! it says is the ratio; absolute numbers belong to the machine.

mod blobs;
mod corpus;
mod create_note;
mod events;
mod floor;
mod idle;
mod listing;
mod listing_notes;
mod load;
mod migrate;
mod notes;
mod process;
mod processes;
mod report;
mod search;
mod stores;
mod stream;
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
    /// PUT and GET of blobs through content-service, against the object store itself.
    Blobs(blobs::BlobsArgs),
    /// ListBlobs, against a listing by the object store itself.
    Listing(listing::ListingArgs),
    /// Appends through event-service, against INSERT and COPY; reads of the partitioned table.
    Events(events::EventsArgs),
    /// The migration of V0.2's bodies, against the same read, PUT and read-back.
    Migrate(migrate::MigrateArgs),
    /// Reads, writes and searches side by side, over many notes of many users, against the same done
    /// straight to the stores.
    Notes(notes::NotesArgs),
    /// ListNotes: the first page and the last one, against the same SQL.
    ListingNotes(listing_notes::ListingNotesArgs),
    /// Searches by words and vectors, against the same SQL; recall; vectors in their own table.
    Search(search::SearchArgs),
    /// One large file up and down: through the gateway, by signed URL, and straight to the store.
    Stream(stream::StreamArgs),
    /// Start time and idle memory of each service.
    Idle(idle::IdleArgs),
}

/// Runs the command.
pub(crate) async fn bench(args: BenchArgs) -> anyhow::Result<Exit> {
    match args.what {
        What::CreateNote(args) => create_note::bench(args).await,
        What::Blobs(args) => blobs::bench(args).await,
        What::Listing(args) => listing::bench(args).await,
        What::Events(args) => events::bench(args).await,
        What::Migrate(args) => migrate::bench(args).await,
        What::Notes(args) => notes::bench(args).await,
        What::ListingNotes(args) => listing_notes::bench(args).await,
        What::Search(args) => search::bench(args).await,
        What::Stream(args) => stream::bench(args).await,
        What::Idle(args) => idle::bench(args).await,
    }
}
