//! The file handles of a layer: they name an object for as long as it exists, whatever its path.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::StatFs;

use super::place::{Place, Stat};
use super::root::Layer;
use crate::error::Errno;
use crate::marker::origin::{HandleFormat, Origin};
use crate::sys::handle::{FileHandle, handle_at, open_by_handle};

/// What is known of the file handles of a layer's filesystem.
#[derive(Debug)]
pub struct Handles {
    /// UUID of the filesystem; zeros if it has none, or none can be had.
    pub uuid: [u8; 16],
    /// Which form they have.
    pub format: HandleFormat,
    /// What tells the layer from others: the marker of its root, and more where that may not do.
    /// Empty where there are no handles.
    pub identity: Vec<u8>,
    /// Another layer lies on another filesystem that has the same UUID, or has none either: a
    /// handle alone does not tell them apart.
    pub shares_uuid: bool,
    /// The same, and not even the identities tell them apart.
    pub has_twin: bool,
    /// The subvolume of the root, where handles name one.
    subvolume: Option<u64>,
    /// By which objects are opened by their handles; `None` where that is not permitted.
    opener: Option<OwnedFd>,
}

/// Where an origin marker leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Traced {
    /// To this object, which exists.
    Object(Stat),
    /// To what has this inode number, if it still exists.
    Number(u64),
    /// Nowhere: the object is gone, or that cannot be told.
    Nowhere,
}

impl Handles {
    /// Of the filesystem of a layer's `root`, open for reading, with its status. With permission to
    /// open by handle they keep the descriptor.
    pub(super) fn of(root: OwnedFd, stat: &Stat, statfs: &StatFs) -> Handles {
        let uuid = crate::sys::ioctl::fs_uuid(root.as_fd());
        let format = match statfs.f_type as u64 {
            0xEF53 => HandleFormat::Ino32,
            0x5846_5342 => HandleFormat::Xfs,
            0x9123_683E => HandleFormat::Btrfs,
            0x0102_1994 => HandleFormat::Tmpfs,
            _ => HandleFormat::Unknown,
        };
        let handle = handle_at(root.as_fd(), b"").ok();
        let opens = |h: &FileHandle| open_by_handle(root.as_fd(), h).is_ok();
        let can_open = handle.as_ref().is_some_and(opens);
        let origin = handle.and_then(|h| origin(uuid, h));
        let mut identity = origin.as_ref().and_then(Origin::encode).unwrap_or_default();
        if !identity.is_empty() && format == HandleFormat::Unknown {
            // An image that was made anew gives the same handles to other objects.
            for number in [statfs.f_blocks, statfs.f_files, stat.attr.ctime.secs as u64] {
                identity.extend(number.to_le_bytes());
            }
        }
        let subvolume = match format {
            HandleFormat::Btrfs => origin.as_ref().and_then(Origin::subvolume),
            _ => None,
        };
        Handles {
            uuid,
            format,
            identity,
            shares_uuid: false,
            has_twin: false,
            subvolume,
            opener: can_open.then_some(root),
        }
    }

    /// What the origin marker of a copy of the object at `place` is, if the layer has handles.
    ///
    /// # Errors
    /// Where the layer fails, which is not to have none: a hard link that was copied up without its
    /// handle would come apart.
    pub fn origin_of(&self, place: &Place) -> Result<Option<Origin>, Errno> {
        let handle = match place {
            Place::At(dir, name) => handle_at(dir.as_fd(), name),
            Place::Fd(fd) | Place::File(fd) => handle_at(fd.as_fd(), b""),
        };
        match handle {
            Ok(handle) => Ok(origin(self.uuid, handle)),
            Err(e @ (Errno::IO | Errno::NOMEM)) => Err(e),
            Err(_) => Ok(None),
        }
    }

    /// Whether a marker of filesystem `uuid` is for these to follow.
    pub fn may_follow(&self, uuid: &[u8; 16], origin: &Origin) -> bool {
        self.uuid == *uuid && (self.opener.is_some() || self.is_of_subvolume(origin))
    }

    /// Where a marker that names this filesystem leads.
    pub fn trace(&self, origin: &Origin) -> Traced {
        if let Some(opener) = &self.opener {
            let handle = FileHandle {
                kind: origin.handle_type.into(),
                bytes: origin.handle.clone(),
            };
            return match open_by_handle(opener.as_fd(), &handle) {
                Ok(fd) => Stat::at(fd.as_fd(), b"").map_or(Traced::Nowhere, Traced::Object),
                Err(_) => Traced::Nowhere,
            };
        }
        self.number_in(origin)
            .map_or(Traced::Nowhere, Traced::Number)
    }

    /// Whether the marker of an object with number `ino` leads to it.
    pub fn leads_to(&self, origin: &Origin, ino: u64) -> bool {
        self.opener.is_some() || self.number_in(origin) == Some(ino)
    }

    fn number_in(&self, origin: &Origin) -> Option<u64> {
        let number = origin.inode_number(self.format)?;
        self.is_of_subvolume(origin).then_some(number)
    }

    fn is_of_subvolume(&self, origin: &Origin) -> bool {
        self.subvolume.is_none() || origin.subvolume() == self.subvolume
    }

    fn is_on_the_filesystem_of(&self, own: u64, other: &Handles, dev: u64) -> bool {
        // Subvolumes of btrfs are devices of their own; two filesystems cannot have one UUID there.
        let btrfs = self.format == HandleFormat::Btrfs && other.format == HandleFormat::Btrfs;
        own == dev || (btrfs && self.uuid == other.uuid && self.uuid != [0; 16])
    }
}

fn origin(uuid: [u8; 16], handle: FileHandle) -> Option<Origin> {
    Some(Origin {
        uuid,
        handle_type: u8::try_from(handle.kind).ok()?,
        handle: handle.bytes,
    })
}

/// Whether two layers lie on one filesystem.
pub fn same_filesystem(a: &Layer, b: &Layer) -> bool {
    a.handles.is_on_the_filesystem_of(a.dev, &b.handles, b.dev)
}

/// Finds out which of the lowers cannot be told apart by what their filesystems say of themselves, and
/// lets go of descriptors that are not needed: one does for a filesystem.
pub fn compare_handles(lowers: &mut [Layer]) {
    for at in 0..lowers.len() {
        let Some((own, before)) = lowers.get_mut(..=at).and_then(|l| l.split_last_mut()) else {
            return;
        };
        for other in before {
            if same_filesystem(own, other) {
                own.handles.opener = None;
                continue;
            }
            let (a, b) = (&mut own.handles, &mut other.handles);
            let mistakable = !a.identity.is_empty() && !b.identity.is_empty() && a.uuid == b.uuid;
            let twins = mistakable && a.identity == b.identity;
            for handles in [a, b] {
                handles.shares_uuid |= mistakable;
                handles.has_twin |= twins;
            }
        }
    }
}
