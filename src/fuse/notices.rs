//! Tells the kernel that a name it knows may be out of date: it asks again at the next use.
//!
//! fuser can only make the kernel drop a name at once, which also unmounts what is mounted below it.

use std::io;
use std::os::fd::OwnedFd;

use crate::error::Errno;
use crate::name::Name;

/// `FUSE_NOTIFY_INVAL_ENTRY` of `enum fuse_notify_code`.
const INVAL_ENTRY: i32 = 3;
/// `FUSE_EXPIRE_ONLY`. Before Linux 6.2 the kernel ignores it, and drops the name.
const EXPIRE_ONLY: u32 = 1;
/// Size of `struct fuse_out_header` with `struct fuse_notify_inval_entry_out`.
const HEAD: usize = 32;

/// The way to the kernel: `/dev/fuse`.
#[derive(Debug)]
pub(super) struct Notices(OwnedFd);

impl Notices {
    pub(super) fn new(device: OwnedFd) -> Notices {
        Notices(device)
    }

    /// `name` in directory `parent` is to be asked for again, whether it was there or missing. May wait
    /// for whoever is at work in that directory, so no thread that answers requests may call it.
    pub(super) fn expire(&self, parent: u64, name: &Name) -> io::Result<()> {
        match rustix::io::write(&self.0, &expiry(parent, name)) {
            // The kernel does not know it.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// The message: `struct fuse_out_header` (length, code, no request), then
/// `struct fuse_notify_inval_entry_out` (parent, length of the name, flags), then the name and a NUL.
fn expiry(parent: u64, name: &Name) -> Vec<u8> {
    let len = HEAD + name.len() + 1;
    let mut message = Vec::with_capacity(len);
    message.extend((len as u32).to_ne_bytes());
    message.extend(INVAL_ENTRY.to_ne_bytes());
    message.extend(0u64.to_ne_bytes());
    message.extend(parent.to_ne_bytes());
    message.extend((name.len() as u32).to_ne_bytes());
    message.extend(EXPIRE_ONLY.to_ne_bytes());
    message.extend_from_slice(name);
    message.push(0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_how_long_it_is() {
        let message = expiry(7, b"name");
        assert_eq!(message.len(), 37);
        assert_eq!(message[..4], 37u32.to_ne_bytes());
        assert_eq!(message[16..24], 7u64.to_ne_bytes());
        assert_eq!(message[24..28], 4u32.to_ne_bytes());
        assert_eq!(&message[32..], b"name\0");
    }
}
