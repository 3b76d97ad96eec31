//! Redirects: the lower part of an object lies at another path (kernel: fs/overlayfs, `redirect`).
//!
//! A plain name stands for another name in the same directory; what begins with a slash is a path
//! from the root of the union of all layers below.

use crate::error::Errno;
use crate::name::{Name, NameBuf};

/// The longest path that is written (the kernel's `redirect_max`).
pub const MAX: usize = 256;

/// What is looked for in the layers below an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// This name in the directory that holds the object.
    Name(NameBuf),
    /// This path from the root; never empty.
    Path(Vec<NameBuf>),
}

impl Redirect {
    /// Reads a marker.
    ///
    /// # Errors
    /// As the kernel: `EINVAL` for a value of no meaning (empty, a relative path, empty components),
    /// `EACCES` for `.` and `..`.
    pub fn decode(value: &[u8]) -> Result<Redirect, Errno> {
        if value.contains(&0) {
            return Err(Errno::INVAL);
        }
        match value.strip_prefix(b"/") {
            None => Ok(Redirect::Name(component(value)?)),
            Some(path) => {
                let names = path.split(|b| *b == b'/').map(component);
                Ok(Redirect::Path(names.collect::<Result<_, _>>()?))
            }
        }
    }

    /// The value on disk.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Redirect::Name(name) => name.to_vec(),
            Redirect::Path(names) => names.iter().fold(Vec::new(), |mut path, name| {
                path.push(b'/');
                path.extend_from_slice(name);
                path
            }),
        }
    }

    /// What is looked for further down when what was looked for so far (`self`) led to an object
    /// with the redirect `met`; `behind` components of the path come behind that object.
    pub fn turned(&self, met: Redirect, behind: usize) -> Redirect {
        let Redirect::Path(so_far) = self else {
            return met;
        };
        let at = so_far.len().saturating_sub(behind);
        let rest = so_far.iter().skip(at).cloned();
        let start: Vec<NameBuf> = match met {
            Redirect::Path(path) => path,
            Redirect::Name(name) => {
                let before = so_far.iter().take(at.saturating_sub(1)).cloned();
                before.chain(std::iter::once(name)).collect()
            }
        };
        Redirect::Path(start.into_iter().chain(rest).collect())
    }
}

fn component(name: &Name) -> Result<NameBuf, Errno> {
    match name {
        b"" => Err(Errno::INVAL),
        b"." | b".." => Err(Errno::ACCESS),
        name if name.contains(&b'/') => Err(Errno::INVAL),
        name => Ok(name.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_kernel_reads_them() {
        for good in ["a", "/a", "/a/b", "a b", "...", "/a/.b"] {
            let redirect = Redirect::decode(good.as_bytes());
            assert_eq!(redirect.unwrap().encode(), good.as_bytes());
        }
        for bad in ["", "/", "//", "a/b", "a/", "/a/", "/a//b", "//a", "a\0b"] {
            let redirect = Redirect::decode(bad.as_bytes());
            assert_eq!(redirect, Err(Errno::INVAL), "{bad:?}");
        }
        for bad in [".", "..", "/..", "/a/../b", "/."] {
            let redirect = Redirect::decode(bad.as_bytes());
            assert_eq!(redirect, Err(Errno::ACCESS), "{bad:?}");
        }
    }

    #[test]
    fn a_redirect_on_the_way_rewrites_the_path_up_to_it() {
        let read = |text: &str| Redirect::decode(text.as_bytes()).unwrap();
        for (so_far, met, behind, want) in [
            ("a", "b", 0, "b"),
            ("a", "/x/y", 0, "/x/y"),
            ("/a", "b", 0, "/b"),
            ("/a/b/c", "x", 0, "/a/b/x"),
            ("/a/b/c", "x", 1, "/a/x/c"),
            ("/a/b/c", "x", 2, "/x/b/c"),
            ("/a/b/c", "/x/y", 2, "/x/y/b/c"),
            ("/a/b/c", "/x", 0, "/x"),
        ] {
            assert_eq!(
                read(so_far).turned(read(met), behind),
                read(want),
                "{so_far} {met} {behind}"
            );
        }
    }
}
