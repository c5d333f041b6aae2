//! How every service speaks gRPC.
//!
//! A call passes, in this order:
//!
//! 1. [`Channel`] in the caller: takes the caller's remaining time along, and its trace.
//! 2. [`Server`] in the service: its layers open a span ([`observe`]), bound the time
//!    ([`deadline`]), let in whom they know ([`gate`]), shed what is too much ([`limit`]), and
//!    count the bytes that are held ([`budget`]).
//! 3. The service's handler, whose errors become a `Status` through [`RpcError`].
//!
//! [`retry()`] repeats a call that is safe to repeat.

mod budget;
mod callers;
mod channel;
pub mod deadline;
mod door;
mod error;
mod flow;
mod gate;
mod held;
mod left;
mod limit;
mod observe;
mod oversize;
mod rate;
mod retry;
mod server;
mod signal;

pub use budget::{ByteBudget, Exhausted, Share};
pub use callers::{Admitted, CallerLimits, Callers};
pub use channel::{Channel, ChannelError};
pub use error::{DOMAIN, RpcError};
pub use rate::Rate;
pub use retry::retry;
pub use server::{Health, Server, ServerArgs};
pub use signal::stop_signal;

/// Bytes of a body per message of a blob stream: large enough that the cost of a message does not
/// show, small enough that many streams fit in memory.
pub const CHUNK_BYTES: usize = 512 * 1024;
