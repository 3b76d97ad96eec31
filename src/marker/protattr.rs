//! The `protattr` marker (kernel: `ovl_set_protattr`): an `i` for an immutable object, an `a` for one
//! that may only be appended to, in any order. The flags themselves cannot be set on what has yet to be
//! renamed into place, or to get children.

use crate::attr::Protection;

/// The value on disk; `None` for no protection at all.
pub fn encode(protection: Protection) -> Option<Vec<u8>> {
    let letters = [(protection.append_only, b'a'), (protection.immutable, b'i')];
    let value: Vec<u8> = letters
        .iter()
        .filter_map(|(set, letter)| set.then_some(*letter))
        .collect();
    (!value.is_empty()).then_some(value)
}

/// Reads a value; letters that are not known mean nothing.
pub fn decode(value: &[u8]) -> Protection {
    Protection {
        immutable: value.contains(&b'i'),
        append_only: value.contains(&b'a'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for (text, immutable, append_only) in
            [("a", false, true), ("i", true, false), ("ai", true, true)]
        {
            let protection = Protection {
                immutable,
                append_only,
            };
            assert_eq!(encode(protection).as_deref(), Some(text.as_bytes()));
            assert_eq!(decode(text.as_bytes()), protection);
        }
        assert_eq!(encode(Protection::default()), None);
        assert_eq!(decode(b"x"), Protection::default());
    }
}
