//! What tests share: a real PostgreSQL, a real S3 server and a network that
//! loses things, real processes.

pub mod faults;
pub mod migrations;
pub mod ports;
pub mod postgres;
pub mod s3;
