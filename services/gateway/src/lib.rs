//! The gateway: the public API, and the write protocol across the three services. It owns nothing.
//!
//! To follow a CreateNote, read in this order:
//!
//! 1. `grpc/notes.rs` (or `http/notes.rs`, the edge for V0.2's clients): who calls, and what is
//!    asked for. Checks are in `domain`.
//! 2. `notes.rs`, then `saga`: the write protocol, step by step; `saga/create_note.rs` is what
//!    CreateNote does in it.
//! 3. `clients/`: the three services, in the gateway's own words.
//! 4. `recovery.rs`: what happens to a write whose gateway died.
//!
//! GetNote is `read_note.rs`, and what it finds broken goes to `repairs.rs`; ListNotes is
//! `list_notes.rs`, SearchNotes `search_notes.rs`, a note's revisions and events are `history.rs`, what a
//! user did is `activity.rs`.
//! Files go the same way: `grpc/files.rs`, `files.rs`, the other writes in `saga`, `read_file.rs`.

mod activity;
mod clients;
mod config;
mod domain;
mod error;
mod files;
mod grpc;
mod history;
mod http;
mod list_notes;
mod notes;
mod read_body;
mod read_file;
mod read_note;
mod recovery;
mod repairs;
mod saga;
mod search_notes;
mod service;

pub use config::Config;
pub use service::Service;
