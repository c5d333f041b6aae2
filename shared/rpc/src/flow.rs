//! HTTP/2 flow control, the same on both ends.
//!
//! A connection carries many calls, and some of them stop: a download whose reader has turned away,
//! an upload that waits for memory. What such a call has received and not read fills its own window,
//! and fills the connection's window too. So the connection's is that of all its calls together:
//! then a call that stops holds up itself and nobody else. Adaptive windows would be smaller, and
//! are off.

/// Calls under way on one connection.
pub(crate) const MAX_STREAMS: u32 = 1024;

/// Bytes that a call may receive ahead of its reader: twice a chunk of a blob, so that the next one
/// is there when it is wanted.
pub(crate) const STREAM_WINDOW: u32 = 1024 * 1024;

/// Bytes of a frame. HTTP/2's default is 16 KiB, which makes of a chunk of a blob 32 frames, each to
/// be read, counted and put together with the others. Nobody waits long for a frame of this size.
pub(crate) const FRAME: u32 = 256 * 1024;

/// Bytes that all calls of a connection may.
pub(crate) const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS;
