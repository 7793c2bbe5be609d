//! How the process ends: a sentence on stderr and a code.

use std::process::ExitCode;
use streamgate::config::Faults;
use streamgate::consumer::ConsumerError;

/// An end other than a clean one.
#[derive(Debug)]
pub enum Exit {
    /// The command line is; a sentence. Code 64.
    Usage(String),
    /// The configuration is at fault; nothing was contacted. Code 64.
    Configuration(Faults),
    /// AWS refused a call at start. Code 77.
    Refused(String),
    /// Anything else. Code 1.
    Failed(String),
}

impl Exit {
    /// Says what clap has to say: help on stdout, or what is wrong with the command line,
    /// which is configuration like any other.
    pub fn said(said: &clap::Error) -> ExitCode {
        // Where it cannot be printed there is nobody to tell.
        let _ = said.print();
        if said.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS }
    }

    /// Says why on stderr.
    pub fn report(self) -> ExitCode {
        let (code, why) = match self {
            Self::Usage(why) => (64, why),
            Self::Configuration(faults) => (64, faults.to_string()),
            Self::Refused(why) => (77, why),
            Self::Failed(why) => (1, why),
        };
        for line in why.lines() {
            eprintln!("streamgate: {line}");
        }
        ExitCode::from(code)
    }
}

impl From<Faults> for Exit {
    fn from(faults: Faults) -> Self {
        Self::Configuration(faults)
    }
}

impl From<ConsumerError> for Exit {
    fn from(error: ConsumerError) -> Self {
        match error {
            ConsumerError::Refused { .. } | ConsumerError::Credentials(_) => {
                Self::Refused(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}
