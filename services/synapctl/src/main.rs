//! The binary: reads the command line, runs the library, and says how it went by its exit code.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = synapctl::Cli::parse();
    match Box::pin(synapctl::run(cli)).await {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("synapctl: {error:#}");
            synapctl::Exit::CouldNotRun.into()
        }
    }
}
