//! How the process ends: as every program over the library, and what clap says.

use std::process::ExitCode;
pub use streamgate::program::ProgramError as Exit;

/// Says what clap has to say: help on stdout, or what is wrong with the command line,
/// which is configuration like any other.
pub fn said(said: &clap::Error) -> ExitCode {
    // Where it cannot be printed there is nobody to tell.
    let _ = said.print();
    if said.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS }
}
