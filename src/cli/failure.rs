//! How the program fails: one line on stderr and an exit status.

use std::fmt;

use crate::error::SetupError;

/// Why the program ends without having done its job.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense: exit status 2.
    Usage(String),
    /// Anything else: exit status 1.
    Failed(String),
}

impl Failure {
    /// A failure that is not a matter of usage.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure::Failed(message.into())
    }

    /// The exit status that goes with it.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) | Failure::Failed(message) => f.write_str(message),
        }
    }
}

impl From<SetupError> for Failure {
    fn from(e: SetupError) -> Failure {
        Failure::Failed(e.to_string())
    }
}

/// The reason of a system error without its number: what `strerror` says, in lower case.
pub(crate) fn reason(e: impl Into<std::io::Error>) -> String {
    let e: std::io::Error = e.into();
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => "unknown error".to_owned(),
    }
}
