//! Why a dial failed.

use std::{error, fmt, io};

use crate::error::Stage;

/// Why a dial failed: the stage it had reached, and the system's error.
///
/// The address is not part of it; whoever dialled knows it.
#[derive(Debug)]
pub struct DialError {
    stage: Stage,
    source: io::Error,
}

impl DialError {
    /// The host name could not be resolved.
    pub fn resolve(source: io::Error) -> Self {
        Self {
            stage: Stage::Resolve,
            source,
        }
    }

    /// The stream could not be opened.
    pub fn connect(source: io::Error) -> Self {
        Self {
            stage: Stage::Connect,
            source,
        }
    }

    /// [`Stage::Resolve`] or [`Stage::Connect`].
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The system's error, with an explanation where the system's own says little.
    pub fn io_error(&self) -> &io::Error {
        &self.source
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::Resolve => "the host name could not be resolved",
            _ => "no connection could be opened",
        })
    }
}

impl error::Error for DialError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.source)
    }
}
