//! The binary: reads the command line, runs the library, and says how it went by its exit code.

use std::process::ExitCode;

use clap::Parser;

/// Of a worker, in bytes: all services run on them, and calls that are not optimised need more than half
/// of the usual 2 MiB.
const STACK: usize = 4 * 1024 * 1024;

fn main() -> ExitCode {
    let cli = synapctl::Cli::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_stack_size(STACK).build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(synapctl::run(cli))),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("synapctl: {error:#}");
            synapctl::Exit::CouldNotRun.into()
        }
    }
}
