//! The `metacopy` marker: a regular file that has attributes of its own, and its data in a lower.
//!
//! Format: `struct ovl_metacopy` of the kernel (fs/overlayfs/overlayfs.h): version 0, total length,
//! flags, fs-verity hash algorithm, then the fs-verity digest of the data. Nothing at all means no
//! digest.

/// Bytes before the digest.
const HEADER: usize = 4;

/// fs-verity's digest of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// `FS_VERITY_HASH_ALG_*`: 1 is SHA-256, 2 is SHA-512.
    pub algorithm: u8,
    /// The digest itself.
    pub bytes: Vec<u8>,
}

/// A decoded marker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metacopy {
    /// What the data must be, if the marker says so.
    pub digest: Option<Digest>,
}

impl Metacopy {
    /// Reads a marker. `None`: malformed, or of a newer version; the kernel answers `EIO`.
    pub fn decode(bytes: &[u8]) -> Option<Metacopy> {
        match bytes {
            [] => Some(Metacopy::default()),
            [0, length, _flags, algorithm, digest @ ..] if usize::from(*length) == bytes.len() => {
                let digest = (*algorithm != 0).then(|| Digest {
                    algorithm: *algorithm,
                    bytes: digest.to_vec(),
                });
                Some(Metacopy { digest })
            }
            _ => None,
        }
    }

    /// The bytes on disk; nothing without a digest, as the kernel has it.
    pub fn encode(&self) -> Vec<u8> {
        let Some(digest) = &self.digest else {
            return Vec::new();
        };
        let Ok(length) = u8::try_from(HEADER + digest.bytes.len()) else {
            return Vec::new();
        };
        let mut bytes = vec![0, length, 0, digest.algorithm];
        bytes.extend_from_slice(&digest.bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let digest = Digest {
            algorithm: 1,
            bytes: vec![7; 32],
        };
        for marker in [
            Metacopy::default(),
            Metacopy {
                digest: Some(digest),
            },
        ] {
            assert_eq!(Metacopy::decode(&marker.encode()), Some(marker));
        }
        assert_eq!(Metacopy::decode(&[0, 4, 0, 0]), Some(Metacopy::default()));
    }

    #[test]
    fn malformed_is_refused() {
        for bad in [
            &[0][..],
            &[0, 3, 0],
            &[1, 4, 0, 0],
            &[0, 5, 0, 0],
            &[0, 4, 0, 1, 9],
        ] {
            assert_eq!(Metacopy::decode(bad), None, "{bad:?}");
        }
    }
}
