//! Why a program ends by itself: a sentence on stderr and a code.

use crate::config::Faults;
use crate::consumer::ConsumerError;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// An end other than a clean one.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The command line is at fault, where the program has one. Code 64.
    #[error("{0}")]
    Usage(String),
    /// The configuration is at fault; nothing was contacted. Code 64.
    #[error(transparent)]
    Configuration(#[from] Faults),
    /// A port is taken, or the address is not of this machine. Code 1.
    #[error("{name}: {address} cannot be opened: {error}")]
    Listen {
        /// The setting.
        name: &'static str,
        /// What it is set to.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The consumer cannot do its work. Code 77 where AWS refused a call, else 1.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// Anything else, also what a handler of your own cannot begin without. Code 1.
    #[error("{0}")]
    Failed(String),
}

impl ProgramError {
    /// As `docs/configuration.md` has them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Configuration(_) => 64,
            Self::Consumer(ConsumerError::Refused { .. } | ConsumerError::Credentials(_)) => 77,
            Self::Listen { .. } | Self::Consumer(_) | Self::Failed(_) => 1,
        }
    }

    /// Says why on stderr, a line for each fault, behind the program's name.
    pub fn report(&self) -> ExitCode {
        let name = program_name();
        for line in self.to_string().lines() {
            eprintln!("{name}: {line}");
        }
        ExitCode::from(self.exit_code())
    }
}

/// What this program was started as: those in Rust of your own have their own name.
pub(super) fn program_name() -> String {
    let program = std::env::args_os().next().map(PathBuf::from);
    let name = program.as_ref().and_then(|program| program.file_name()?.to_str());
    name.unwrap_or(env!("CARGO_PKG_NAME")).to_owned()
}
