//! entity-service as its callers see it: real gRPC on loopback, a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "helpers are tests too")]

mod adoption;
mod ahead;
mod audit;
mod configuration;
mod content;
mod content_migration;
mod edits;
mod faults;
mod fencing;
mod files;
mod groups;
mod legacy;
mod migrations;
mod operations;
mod phases;
mod plans;
mod purge;
mod recovery;
mod repairs;
mod retention;
mod revisions;
mod search;
mod support;
mod takeover;
mod validation;
mod vectors;
mod verification;
mod walls;
