//! What tests share: a real PostgreSQL, a real S3 server and a network that
//! loses things, real processes, and
//! databases as they are found.

pub mod faults;
pub mod markdown;
pub mod migrations;
pub mod ports;
pub mod postgres;
pub mod s3;
pub mod v02;
