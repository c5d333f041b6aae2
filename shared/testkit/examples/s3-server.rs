//! An S3 server to try things with: s3s-fs on loopback until Ctrl-C, and what to set so that Synap
//! storage uses it. Its objects go with it.
//!
//! ```text
//! cargo run --release -p synap-testkit --example s3-server
//! ```

use synap_testkit::s3::{ACCESS_KEY_ID, BUCKET, S3Server, SECRET_ACCESS_KEY};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let server = S3Server::start().await?;
    println!("export S3_ENDPOINT={}", server.endpoint());
    println!("export R2_BUCKET_NAME={BUCKET}");
    println!("export R2_ACCESS_KEY_ID={ACCESS_KEY_ID}");
    println!("export R2_SECRET_ACCESS_KEY={SECRET_ACCESS_KEY}");
    tokio::signal::ctrl_c().await
}
