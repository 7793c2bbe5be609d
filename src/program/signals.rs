//! SIGTERM and SIGINT: the first asks for a stop, the second stops at once.

use super::error::{ProgramError, program_name};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A token that the first signal cancels. The second ends the process with code 1. Once a
/// process: every such token stops at the same signals.
///
/// # Errors
/// [`ProgramError::Failed`] where the system lets nobody wait for signals.
pub fn drain_on_signal() -> Result<CancellationToken, ProgramError> {
    let wait_for = |kind| signal(kind).map_err(|error| ProgramError::Failed(error.to_string()));
    let mut terminate = wait_for(SignalKind::terminate())?;
    let mut interrupt = wait_for(SignalKind::interrupt())?;
    let drain = CancellationToken::new();
    let token = drain.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stopping: finishing what is in flight");
        token.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let name = program_name();
        eprintln!("{name}: second signal, stopping at once; what was in flight comes again");
        std::process::exit(1);
    });
    Ok(drain)
}
