//! Names of directory entries: bytes, never text.

use std::fmt;
use std::ops::Deref;

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

/// Bytes of a name that fit beside its length in the place of a pointer, a length and a tag.
const INLINE: usize = 22;

/// An owned [`Name`] for memory that holds millions: most names need no allocation of their own.
#[derive(Clone)]
pub struct KeptName(Kept);

#[derive(Clone)]
enum Kept {
    Inline(u8, [u8; INLINE]),
    Boxed(NameBuf),
}

impl KeptName {
    /// Bytes that are allocated for the name outside of it.
    pub fn allocated(&self) -> usize {
        match &self.0 {
            Kept::Inline(..) => 0,
            Kept::Boxed(name) => name.len(),
        }
    }
}

impl From<&Name> for KeptName {
    fn from(name: &Name) -> KeptName {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(name);
                KeptName(Kept::Inline(len, bytes))
            }
            _ => KeptName(Kept::Boxed(name.into())),
        }
    }
}

impl From<&KeptName> for NameBuf {
    fn from(name: &KeptName) -> NameBuf {
        (**name).into()
    }
}

impl Deref for KeptName {
    type Target = Name;

    fn deref(&self) -> &Name {
        match &self.0 {
            Kept::Inline(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Kept::Boxed(name) => name,
        }
    }
}

impl fmt::Debug for KeptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_names_are_small_and_whole() {
        assert_eq!(size_of::<KeptName>(), 24);
        for len in 0..=NAME_MAX {
            let name: Vec<u8> = (1..=len).map(|n| n as u8).collect();
            let kept = KeptName::from(&*name);
            assert_eq!(*kept, *name);
            assert_eq!(*kept.clone(), *name);
            assert_eq!(kept.allocated(), if len <= INLINE { 0 } else { len });
        }
    }
}
