//! event-service as its callers see it: real gRPC on loopback, a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]
#![expect(clippy::result_large_err, reason = "an answer a test looks at is not moved about")]

mod append;
mod archive;
mod consumers;
mod content;
mod feed;
mod harness;
mod horizon;
mod idempotency;
mod kept;
mod kills;
mod legacy;
mod migrations;
mod operation;
mod order;
mod outage;
mod partitions;
mod prepared;
mod read;
mod restore;
mod rollups;
mod timeline;
mod validation;
