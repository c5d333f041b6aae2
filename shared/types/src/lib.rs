//! The values that every context speaks of. No I/O happens here.
//!
//! - [`UserId`]: who owns a thing; comes from outside, so it is checked once, here.
//! - [`BlobKey`]: the only type that knows how object keys are built.
//! - [`MediaType`]: what kinds of files there are.
//! - [`Checksum`]: SHA-256 of a body, in the text form that V0.2 stores.
//! - [`Clock`] and [`IdGenerator`]: time and randomness, passed in so that a test can repeat a run.

mod checksum;
mod clock;
mod key;
mod media;
mod user;

pub use checksum::{Checksum, Hasher, InvalidChecksum};
pub use clock::{Clock, IdGenerator, SystemClock, SystemIds};
pub use key::{BlobKey, EntityType, InvalidEntityType, InvalidKey, MAX_KEY_BYTES};
pub use media::{FileKind, MediaType};
pub use user::{InvalidUserId, MAX_SEGMENT_BYTES, UserId};
