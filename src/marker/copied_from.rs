//! Ours: where a copied-up hard link came from, beside what its origin marker says.
//!
//! Format: the link count of the lower inode as 4 bytes, low one first, then bytes that name the layer.

/// Value of [`super::xattr::Marker::Layer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedFrom {
    /// How many names the lower inode had: what a stored link count may be relative to.
    pub nlink: u32,
    /// What tells the layer from others.
    pub layer: Vec<u8>,
}

impl CopiedFrom {
    /// The bytes on disk.
    pub fn encode(&self) -> Vec<u8> {
        [&self.nlink.to_le_bytes(), &*self.layer].concat()
    }

    /// Reads a value; `None` if it is malformed.
    pub fn decode(value: &[u8]) -> Option<CopiedFrom> {
        let (nlink, layer) = value.split_first_chunk()?;
        Some(CopiedFrom {
            nlink: u32::from_le_bytes(*nlink),
            layer: layer.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let from = CopiedFrom {
            nlink: 3,
            layer: b"layer".into(),
        };
        assert_eq!(from.encode(), b"\x03\0\0\0layer");
        assert_eq!(CopiedFrom::decode(&from.encode()), Some(from));
        assert_eq!(CopiedFrom::decode(b"\x03\0\0"), None);
    }
}
