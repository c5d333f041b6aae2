//! What tests share: a real PostgreSQL, a real S3 server, real processes.

pub mod ports;
pub mod postgres;
pub mod s3;
