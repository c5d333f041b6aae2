//! event-service: what happened to each aggregate, once and in order.
//!
//! In reading order:
//!
//! 1. [`Config`] says where to listen and which database to use; [`Service`] puts the parts
//!    together and runs them.
//! 2. `grpc` validates a request into the types of `domain`, calls the `store`, and maps what comes
//!    back; `error` says what each failure looks like on the wire.
//! 3. `store/append` groups the appends of concurrent callers into one statement, `append.sql`,
//!    which is the heart of the service; `store/read` reads what is one user's in pages, and
//!    `store/feed` follows all events, see `docs/events.md`.
//! 4. `upkeep` keeps partitions ahead of time; `store/partitions` says how, without stopping appends.
//! 5. `archive` moves what is old into the object store, and reads it there; `store/join` completes
//!    reads with it.
//! 6. `legacy` takes over the events of V0.2.
//! 7. `migrations/event` has the tables. They live in the schema `event_store`.
//!
//! **Exactly once.** An event id is stored once, whatever happens: the ledger (`event_ids`) and
//! the event are written in one transaction. A repeat with the same body gets the stored versions
//! and `duplicate = true`, also when only the reply to the first attempt was lost. The body is the
//! stream, the user and every field of the event; JSON is compared by value, not by spelling.
//!
//! **In order.** The versions of a stream count without gaps: from 1, or, where an aggregate had its
//! versions before it had events here, on from those. All events together are ordered by
//! `(epoch, xid, pos)`, which agrees with the versions of every stream; but for the history of V0.2,
//! which comes later than what was appended before it was migrated (docs/legacy-events.md).

mod archive;
mod config;
mod domain;
mod error;
mod grpc;
mod legacy;
mod service;
mod store;
mod upkeep;

pub use config::{Config, DatabaseUrl, UpkeepArgs};
pub use service::{MIGRATION_TABLE, MIGRATOR, Service, StartError, migrate};
