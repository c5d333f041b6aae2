//! `content-service check`: does a store do, with our configuration, all that is asked of it? A
//! probe is written, read in every way, and deleted again, through the same code that serves.
//!
//! The probe's place is below a name that no user can have: `.` in a user's id is always encoded.

mod diagnosis;
mod probe;
mod report;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use synap_types::{IdGenerator as _, SystemIds};
use tokio_util::sync::CancellationToken;

use self::probe::Probe;
pub use self::report::Report;
use crate::{
    config::{Place, StoreArgs},
    error::StartError,
    http::{Blobs, Edge, EdgeOptions},
    sign::{S3Signer, SecretSource, Signer},
    store::BlobStore,
    upload::Uploads,
};

/// Bytes that the check may hold: its probes have a few KiB.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Prove that the store can be used: write a probe object, read it whole and in part, by a signed
/// URL too, see that it is not written over, find it in a listing, and delete it. Says what is wrong
/// where something is.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 all well, 1 findings, 2 wrong usage, 3 could not run.\n\n\
    Examples:\n  content-service check --blob-dir /var/lib/synap/blobs\n  \
    R2_ACCOUNT_ID=… R2_ACCESS_KEY_ID=… R2_SECRET_ACCESS_KEY=… R2_BUCKET_NAME=… content-service check\n  \
    content-service check --output json | jq '.steps[] | select(.outcome == \"failed\")'")]
pub struct CheckArgs {
    /// The store to check.
    #[command(flatten)]
    pub store: StoreArgs,
    /// For a person or for a program.
    #[arg(long, value_enum, default_value_t = CheckOutput::Text)]
    pub output: CheckOutput,
}

/// How the report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// A line for each step.
    Text,
    /// One object.
    Json,
}

/// Checks a store.
///
/// # Errors
/// [`StartError`] if a setting is missing or wrong, or there is no port to serve signed URLs from.
/// What is wrong with the store is in the report.
pub async fn check(args: &CheckArgs) -> Result<Report, StartError> {
    let mut config = args.store.resolve()?;
    // Who waits for an answer wants to know soon.
    if let Place::S3(bucket) = &mut config.place {
        bucket.limits.s3_max_retries = bucket.limits.s3_max_retries.min(1);
    }
    let mut report = Report::new(config.place.to_string());
    let store = match BlobStore::open(&config.place) {
        Ok(store) => store,
        Err(error) => {
            report.failed("open", error.to_string());
            return Ok(report);
        }
    };
    let uploads = Uploads::new(store.clone(), MAX_BYTES, MAX_BYTES);
    let stop = CancellationToken::new();
    let _serving = stop.clone().drop_guard();
    let signer = match &config.place {
        Place::S3(bucket) => Signer::S3(S3Signer::new(bucket)?),
        place => serve_urls(place, &store, &uploads, stop).await.map_err(StartError::Listen)?,
    };
    let prefix = format!("users/synap.check/probes/{}", SystemIds.next_id());
    Probe { uploads, store, signer, place: &config.place, prefix }.run(&mut report).await;
    Ok(report)
}

/// Signed URLs of a store that has none of its own are tried where they are served: by the same
/// code, on a port of our own.
async fn serve_urls(
    place: &Place,
    store: &BlobStore,
    uploads: &Uploads,
    stop: CancellationToken,
) -> io::Result<Signer> {
    let options = EdgeOptions {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        max_connections: 8,
        silence: Duration::from_secs(30),
        grace: Duration::ZERO,
    };
    let silence = options.silence;
    let edge = Edge::bind(options).await?;
    let signer = edge.signer(None, SecretSource::of(place, None))?;
    let (store, uploads) = (store.clone(), uploads.clone());
    let blobs = Blobs { store, uploads, signer: signer.clone(), silence };
    tokio::spawn(edge.serve(blobs, stop));
    Ok(Signer::Route(signer))
}

/// Checks a store, prints what was found, and says how the process should end: 0 all well, 1
/// findings, 3 could not run.
pub async fn print_check(args: &CheckArgs) -> ExitCode {
    match check(args).await {
        Ok(report) => {
            match (args.output, serde_json::to_string(&report)) {
                (CheckOutput::Json, Ok(json)) => println!("{json}"),
                _ => print!("{report}"),
            }
            report.exit_code()
        }
        Err(error) => {
            eprintln!("content-service check could not run: {error}");
            ExitCode::from(3)
        }
    }
}
