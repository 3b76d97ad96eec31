//! The link count of an indexed hard link: `U+N`, `U-N`, `L+N` or `L-N` (kernel: `ovl_get_nlink`).

/// A union link count, stored relative to a real one so that it stays right when both change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nlink {
    /// Which real count it is relative to.
    pub base: Base,
    /// What to add to it.
    pub difference: i64,
}

/// The real link count that a stored one is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// That of the inode in the upper.
    Upper,
    /// That of the inode in the lower.
    Lower,
}

impl Nlink {
    /// The value on disk.
    pub fn encode(self) -> String {
        let base = match self.base {
            Base::Upper => 'U',
            Base::Lower => 'L',
        };
        format!("{base}{:+}", self.difference)
    }

    /// Reads a value; `None` if it is malformed.
    pub fn decode(value: &[u8]) -> Option<Nlink> {
        let (base, number) = value.split_first()?;
        let base = match base {
            b'U' => Base::Upper,
            b'L' => Base::Lower,
            _ => return None,
        };
        if !matches!(number.first(), Some(b'+' | b'-')) {
            return None;
        }
        let difference = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some(Nlink { base, difference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_malformed() {
        for (text, base, difference) in [
            ("U+0", Base::Upper, 0),
            ("U-1", Base::Upper, -1),
            ("L+12", Base::Lower, 12),
        ] {
            let nlink = Nlink { base, difference };
            assert_eq!(nlink.encode(), text);
            assert_eq!(Nlink::decode(text.as_bytes()), Some(nlink));
        }
        for text in [
            "",
            "U",
            "U1",
            "X+1",
            "U+",
            "U+x",
            "L--1",
            "U+99999999999999999999",
        ] {
            assert_eq!(Nlink::decode(text.as_bytes()), None, "{text}");
        }
    }
}
