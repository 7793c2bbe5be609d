//! The binary: a command line over the library.
//!
//! Owns the commands and their flags. Configuration is judged before a port is opened or
//! anything is contacted.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
