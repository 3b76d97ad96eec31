//! Access control lists as extended attributes: which ids they hold, what they come to in mode bits.
//!
//! The format is the kernel's (`linux/posix_acl_xattr.h`): a version in four bytes, then entries of
//! two bytes tag, two bytes permissions, four bytes id, all little-endian.

/// `POSIX_ACL_XATTR_VERSION`
const VERSION: u32 = 2;
/// `ACL_USER_OBJ`
const OWNER: u16 = 0x01;
/// `ACL_USER`
const USER: u16 = 0x02;
/// `ACL_GROUP_OBJ`
const OWNING_GROUP: u16 = 0x04;
/// `ACL_GROUP`
const GROUP: u16 = 0x08;
/// `ACL_MASK`
const MASK: u16 = 0x10;
/// `ACL_OTHER`
const OTHER: u16 = 0x20;

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

/// The permission bits of an object with mode bits `perm` and the list `value`, for a kernel that looks
/// at the bits alone: nobody may get a right from them that the list does not give.
///
/// The group bits of an object with a list are its mask, an upper bound for all that is named. So the
/// owning group gets what its own entry has within the mask, less what any named user lacks: he may be
/// one of its members, and his entry comes first. Everybody else gets what is for others, less what
/// anybody named lacks, user or group. Who is named gets no more than others, who may be less than the
/// list gives. The owner's bits hold with a list too. What is no list gives a right to its owner only.
pub fn fold(value: &[u8], perm: u32) -> u32 {
    let owner_only = perm & !0o077;
    let Some((version, entries)) = value.split_first_chunk::<4>() else {
        return owner_only;
    };
    let (entries, []) = entries.as_chunks::<8>() else {
        return owner_only;
    };
    if u32::from_le_bytes(*version) != VERSION {
        return owner_only;
    }
    let entries = || {
        entries.iter().map(|[tag0, tag1, bits0, bits1, ..]| {
            let bits = u16::from_le_bytes([*bits0, *bits1]);
            (u16::from_le_bytes([*tag0, *tag1]), u32::from(bits) & 7)
        })
    };
    let mask = entries()
        .find(|(tag, _)| *tag == MASK)
        .map_or(7, |(_, bits)| bits);
    let (mut group, mut other) = (7, 7);
    for (tag, bits) in entries() {
        match tag {
            OWNER | MASK => {}
            OWNING_GROUP => group &= bits & mask,
            OTHER => other &= bits,
            USER => {
                group &= bits & mask;
                other &= bits & mask;
            }
            GROUP => other &= bits & mask,
            _ => return owner_only,
        }
    }
    owner_only | (perm & (group << 3 | other))
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

    #[test]
    fn nobody_gains_a_right_where_only_mode_bits_count() {
        const OWN: (u16, u16) = (OWNER, 7);
        let list = |entries: &[(u16, u16)]| {
            let entry = |&(tag, bits): &(u16, u16)| {
                let mut bytes = [0; 8];
                bytes[..2].copy_from_slice(&tag.to_le_bytes());
                bytes[2..4].copy_from_slice(&bits.to_le_bytes());
                bytes
            };
            let entries: Vec<u8> = entries.iter().flat_map(entry).collect();
            [&VERSION.to_le_bytes()[..], &entries].concat()
        };
        let (group, other, mask) = (OWNING_GROUP, OTHER, MASK);
        for (what, perm, entries, want) in [
            (
                "no more than a mode",
                0o4754,
                vec![OWN, (group, 5), (other, 4)],
                0o4754,
            ),
            (
                "a mask is no right",
                0o770,
                vec![OWN, (USER, 7), (group, 0), (mask, 7), (other, 0)],
                0o700,
            ),
            (
                "the mask bounds",
                0o744,
                vec![OWN, (USER, 7), (group, 7), (mask, 4), (other, 4)],
                0o744,
            ),
            (
                "a user who is denied",
                0o775,
                vec![OWN, (USER, 0), (group, 7), (mask, 7), (other, 5)],
                0o700,
            ),
            (
                "one of two users",
                0o775,
                vec![OWN, (USER, 7), (USER, 4), (group, 7), (mask, 7), (other, 5)],
                0o744,
            ),
            (
                "a user whom the mask denies",
                0o705,
                vec![OWN, (USER, 7), (group, 7), (mask, 0), (other, 5)],
                0o700,
            ),
            (
                "a group that is denied",
                0o775,
                vec![OWN, (group, 7), (GROUP, 4), (mask, 7), (other, 5)],
                0o774,
            ),
            (
                "never more than the mode",
                0o700,
                vec![OWN, (group, 7), (other, 7)],
                0o700,
            ),
            (
                "an entry of no kind",
                0o777,
                vec![OWN, (group, 7), (0x40, 7), (other, 7)],
                0o700,
            ),
        ] {
            assert_eq!(fold(&list(&entries), perm), want, "{what}");
        }
        for odd in [&b""[..], b"\x02\0\0", b"\x01\0\0\0", b"\x02\0\0\0\x01"] {
            assert_eq!(fold(odd, 0o2777), 0o2700);
        }
    }
}
