//! One file per gRPC service; a handler only validates, calls, and maps.

mod convert;
mod notes;

pub(crate) use notes::Notes;
