//! What goes wrong: an errno for requests, a sentence for whoever mounts.

use std::fmt;

pub use rustix::io::Errno;

/// Result of an operation of the filesystem.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed: the errno its caller sees and, where a system call failed that should
/// not have, what was being done. A plain errno allocates nothing (misses are frequent).
#[derive(Debug)]
pub struct Error {
    errno: Errno,
    context: Option<Box<str>>,
}

impl Error {
    /// The errno that the caller of the system call gets.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// What was being done, if the failure was not an ordinary one.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error {
            errno,
            context: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.context {
            Some(context) => write!(f, "{context}: {}", self.errno),
            None => write!(f, "{}", self.errno),
        }
    }
}

impl std::error::Error for Error {}

/// Says what was being done when a system call failed unexpectedly.
pub trait WhileDoing<T> {
    /// Adds `what` to the error, innermost first.
    fn while_doing<S: AsRef<str>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> WhileDoing<T> for std::result::Result<T, E> {
    fn while_doing<S: AsRef<str>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| {
            let Error { errno, context } = e.into();
            let what = what();
            let context = match context {
                Some(inner) => format!("{}: {inner}", what.as_ref()),
                None => what.as_ref().to_owned(),
            };
            Error {
                errno,
                context: Some(context.into_boxed_str()),
            }
        })
    }
}

/// Reports the failure of a step that the request can do without: logged at debug, never silent.
pub fn best_effort<T, E: fmt::Display>(what: &str, result: std::result::Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) => {
            tracing::debug!("{what}: {e} (continuing)");
            None
        }
    }
}

/// Why a mount could not be set up, in one line for a person: what, which path, why, what to do.
#[derive(Debug)]
pub struct SetupError {
    message: String,
}

impl SetupError {
    /// A set-up failure with its whole message.
    pub fn new(message: impl Into<String>) -> Self {
        SetupError {
            message: message.into(),
        }
    }

    /// `cannot VERB "PATH": REASON`.
    pub fn at(verb: &str, path: &std::path::Path, reason: impl fmt::Display) -> Self {
        SetupError {
            message: format!("cannot {verb} {path:?}: {reason}"),
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SetupError {}
