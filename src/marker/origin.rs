//! The `origin` marker: which lower object an upper one was copied from.
//!
//! Format: `struct ovl_fb` of the kernel (fs/overlayfs/overlayfs.h): version 0, magic 0xfb, total
//! length, flags, handle type, 16 bytes of filesystem UUID, then the file handle.

use std::fmt::Write as _;

const MAGIC: u8 = 0xfb;
const HEADER: usize = 21;
const FLAG_BIG_ENDIAN: u8 = 1;
const FLAG_ANY_ENDIAN: u8 = 2;
const FLAG_PATH_UPPER: u8 = 4;
const FLAGS_KNOWN: u8 = FLAG_BIG_ENDIAN | FLAG_ANY_ENDIAN | FLAG_PATH_UPPER;

/// Filesystems whose file handles are known to hold the inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandleFormat {
    /// ext2, ext3, ext4 and others that use the generic 32-bit form.
    Ino32,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// tmpfs.
    Tmpfs,
    /// Anything else: the bytes are only compared.
    Unknown,
}

/// A decoded origin marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// UUID of the filesystem; zeros if it has none.
    pub uuid: [u8; 16],
    /// The filesystem's type of handle.
    pub handle_type: u8,
    /// The handle.
    pub handle: Vec<u8>,
}

impl Origin {
    /// The bytes on disk; `None` if the handle does not fit the format.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let length = u8::try_from(HEADER + self.handle.len()).ok()?;
        let endian = if cfg!(target_endian = "big") {
            FLAG_BIG_ENDIAN
        } else {
            0
        };
        let mut bytes = vec![0, MAGIC, length, endian, self.handle_type];
        bytes.extend_from_slice(&self.uuid);
        bytes.extend_from_slice(&self.handle);
        Some(bytes)
    }

    /// Reads a marker. `None`: the origin is unknown (empty, malformed, of a newer version or of
    /// the other byte order), which the kernel treats alike.
    pub fn decode(bytes: &[u8]) -> Option<Origin> {
        let [0, MAGIC, length, flags, handle_type, rest @ ..] = bytes else {
            return None;
        };
        let (length, flags) = (usize::from(*length), *flags);
        if length < HEADER || length > bytes.len() || flags & !FLAGS_KNOWN != 0 {
            return None;
        }
        let same_endian = (flags & FLAG_BIG_ENDIAN != 0) == cfg!(target_endian = "big");
        if !same_endian && flags & FLAG_ANY_ENDIAN == 0 {
            return None;
        }
        let uuid = rest.get(..16)?.try_into().ok()?;
        let handle = bytes.get(HEADER..length)?.to_vec();
        Some(Origin {
            uuid,
            handle_type: *handle_type,
            handle,
        })
    }

    /// The name of its entry in `work/index`: lower-case hex of the marker.
    pub fn index_name(&self) -> Option<String> {
        let bytes = self.encode()?;
        let mut name = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            // Writing to a String cannot fail.
            write!(name, "{byte:02x}").ok()?;
        }
        Some(name)
    }

    /// The marker that is behind the name of an entry of `work/index`; `None` if that is no such name.
    pub fn from_index_name(name: &[u8]) -> Option<Origin> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = name.as_chunks::<2>() else {
            return None;
        };
        let bytes: Option<Vec<u8>> = pairs
            .iter()
            .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
            .collect();
        Origin::decode(&bytes?).filter(|o| o.index_name().is_some_and(|n| n.as_bytes() == name))
    }

    /// The same without the filesystem, as the kernel writes it with `uuid=off`.
    #[must_use]
    pub fn anonymous(&self) -> Origin {
        Origin {
            uuid: [0; 16],
            ..self.clone()
        }
    }

    /// Whether it does not say which filesystem it is of.
    pub fn is_anonymous(&self) -> bool {
        self.uuid == [0; 16]
    }

    /// The id of the subvolume that a handle of btrfs names.
    pub fn subvolume(&self) -> Option<u64> {
        let bytes = self.handle.get(8..16)?.try_into().ok()?;
        Some(u64::from_ne_bytes(bytes))
    }

    /// The inode number inside the handle, if its form is known.
    pub fn inode_number(&self, format: HandleFormat) -> Option<u64> {
        let u32_at = |at: usize| -> Option<u64> {
            let bytes = self.handle.get(at..at + 4)?.try_into().ok()?;
            Some(u64::from(u32::from_ne_bytes(bytes)))
        };
        let u64_at = |at: usize| -> Option<u64> {
            Some(u64::from_ne_bytes(
                self.handle.get(at..at + 8)?.try_into().ok()?,
            ))
        };
        match (format, self.handle_type) {
            (HandleFormat::Ino32 | HandleFormat::Xfs, 1 | 2) => u32_at(0),
            (HandleFormat::Xfs, 0x81 | 0x82) => u64_at(0),
            (HandleFormat::Btrfs, 0x4d..=0x4f) => u64_at(0),
            (HandleFormat::Tmpfs, 1) => Some(u32_at(4)? | (u32_at(8)? << 32)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ext4(ino: u32) -> Origin {
        let mut handle = ino.to_ne_bytes().to_vec();
        handle.extend_from_slice(&7u32.to_ne_bytes());
        Origin {
            uuid: [9; 16],
            handle_type: 1,
            handle,
        }
    }

    #[test]
    fn round_trip() {
        let origin = ext4(4711);
        let bytes = origin.encode().unwrap();
        assert_eq!(bytes.len(), 29);
        assert_eq!(Origin::decode(&bytes), Some(origin.clone()));
        assert_eq!(origin.inode_number(HandleFormat::Ino32), Some(4711));
        assert_eq!(origin.inode_number(HandleFormat::Unknown), None);
        let name = origin.index_name().unwrap();
        assert!(name.starts_with("00fb1d0001"));
        assert_eq!(Origin::from_index_name(name.as_bytes()), Some(origin));
        for other in ["", "0", "#5", "00fb", &name.to_uppercase(), &name[..56]] {
            assert_eq!(Origin::from_index_name(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn malformed_is_unknown() {
        let good = ext4(1).encode().unwrap();
        for (what, at, value) in [
            ("version", 0, 1),
            ("magic", 1, 0),
            ("length", 2, 30),
            ("short", 2, 20),
            ("flag", 3, 8),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Origin::decode(&bad), None, "{what}");
        }
        assert_eq!(Origin::decode(b""), None);
        assert_eq!(Origin::decode(&good[..20]), None);
    }
}
