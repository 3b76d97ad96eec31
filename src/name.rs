//! Names of directory entries: bytes, never text.

use std::fmt;

/// One path component as it lies on disk: any bytes but `/` and NUL, at most 255 of them.
pub type Name = [u8];

/// An owned [`Name`].
pub type NameBuf = Box<[u8]>;

/// The longest name Linux filesystems take, in bytes.
pub const NAME_MAX: usize = 255;

/// Prints a name for a log line, escaping what is not printable.
pub struct Show<'a>(pub &'a Name);

impl fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}
