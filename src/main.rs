//! The binary: a command line over the library.
//!
//! Owns the commands and their flags. Configuration is judged before a port is opened or
//! anything is contacted.

mod cli;

use std::process::ExitCode;

/// Polling is many small allocations on whichever thread is free, which glibc's does not like.
/// The binary's alone: the library leaves the choice to the program.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
