//! The tests' S3 server as a process, for clients that are not ours: prints its endpoint, and serves
//! until its input ends.

use std::io;

use synap_testkit::s3::S3Server;
use tokio::io::AsyncReadExt as _;

#[tokio::main]
async fn main() -> io::Result<()> {
    let server = S3Server::start().await?;
    println!("{}", server.endpoint());
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
