//! Access control lists as extended attributes: which ids they hold.
//!
//! The format is the kernel's (`linux/posix_acl_xattr.h`): a version in four bytes, then entries of
//! two bytes tag, two bytes permissions, four bytes id, all little-endian.

/// `POSIX_ACL_XATTR_VERSION`
const VERSION: u32 = 2;
/// `ACL_USER`
const USER: u16 = 0x02;
/// `ACL_GROUP`
const GROUP: u16 = 0x08;

/// The list of who may do what with an object.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The one that new objects in a directory inherit.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Replaces the users and groups that a list names. What is no list stays as it is: the filesystem
/// refuses it.
pub fn map_ids(value: &mut [u8], user: impl Fn(u32) -> u32, group: impl Fn(u32) -> u32) {
    let Some((version, entries)) = value.split_first_chunk_mut::<4>() else {
        return;
    };
    if u32::from_le_bytes(*version) != VERSION {
        return;
    }
    let (entries, _) = entries.as_chunks_mut::<8>();
    for [tag0, tag1, _, _, id @ ..] in entries {
        let old = u32::from_le_bytes(*id);
        match u16::from_le_bytes([*tag0, *tag1]) {
            USER => *id = user(old).to_le_bytes(),
            GROUP => *id = group(old).to_le_bytes(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_users_and_groups_are_replaced() {
        let entry = |tag: u16, id: u32| {
            let mut bytes = [0; 8];
            bytes[..2].copy_from_slice(&tag.to_le_bytes());
            bytes[2..4].copy_from_slice(&7_u16.to_le_bytes());
            bytes[4..].copy_from_slice(&id.to_le_bytes());
            bytes
        };
        let list = |ids: [u32; 2]| {
            let entries = [
                entry(0x01, u32::MAX),
                entry(USER, ids[0]),
                entry(0x04, u32::MAX),
                entry(GROUP, ids[1]),
                entry(0x10, u32::MAX),
            ];
            [&VERSION.to_le_bytes()[..], &entries.concat()].concat()
        };
        let mut value = list([5, 5]);
        map_ids(&mut value, |id| id + 100, |id| id + 1000);
        assert_eq!(value, list([105, 1005]));
        for mut odd in [
            vec![],
            vec![2, 0, 0],
            vec![1, 0, 0, 0, 2, 0, 7, 0, 5, 0, 0, 0],
        ] {
            let before = odd.clone();
            map_ids(&mut odd, |_| 9, |_| 9);
            assert_eq!(odd, before);
        }
    }
}
