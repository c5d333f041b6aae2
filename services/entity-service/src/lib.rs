//! entity-service owns PostgreSQL's metadata: `entities`, V0.2's `content_blocks`, revisions, the
//! log of write operations, and the storage phase.
//!
//! Read it in this order: [`domain`] says what there is; `grpc` checks what comes in; [`store`]
//! holds every statement, one use case a file (`begin`, `commit` or `edit`, and `settle` are steps
//! 1, 3 and 5 of the write protocol); `start` waits for a database
//! that can be worked with; `maintenance` is what is done unasked; [`error`] says how each error looks on the wire.

mod config;
pub mod domain;
pub mod error;
mod grpc;
mod maintenance;
mod service;
mod start;
pub mod store;

pub use config::{Config, ProtocolArgs, SearchArgs};
pub use service::{MIGRATION_TABLE, MIGRATOR, Service};
