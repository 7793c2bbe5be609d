//! The binary: a command line over the library.
//!
//! Owns exit codes and signals. Configuration is judged before a port is opened or
//! anything is contacted.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    streamgate::panics::end_the_process();
    cli::run()
}
