//! Whether access control lists are in force; where they are not, what they come to in mode bits.

use std::sync::Arc;

use super::{AclMode, Union};
use crate::attr::Kind;
use crate::error::Errno;
use crate::layer::{Layer, supports_acl};
use crate::marker::acl;
use crate::tree::{Inode, XattrFact};
use crate::upper::Upper;

/// What is done with access control lists; decided once, when the union is opened.
#[derive(Debug)]
pub(super) enum Lists {
    /// The kernel asks for them and obeys them.
    InForce,
    /// The kernel looks at mode bits alone. By layer: whether there may be lists, which then take
    /// rights away from those bits.
    Folded(Vec<bool>),
}

impl Lists {
    /// `upper`: the layer that is written, if one is.
    pub(super) fn of(mode: AclMode, upper: Option<&Upper>, layers: &[Layer]) -> Lists {
        let holds = |layer: &Layer| supports_acl(&layer.root_place());
        let in_force = mode == AclMode::Auto
            && match upper {
                Some(upper) => upper.acl,
                None => layers.iter().any(holds),
            };
        match in_force {
            true => Lists::InForce,
            false => Lists::Folded(layers.iter().map(holds).collect()),
        }
    }
}

/// Whether an attribute is an access control list.
pub(super) fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

impl Union {
    /// Whether access control lists are in force: shown, changed, inherited, obeyed.
    pub fn has_acls(&self) -> bool {
        matches!(self.lists, Lists::InForce)
    }

    /// The permission bits to show for an object that has `perm` on disk.
    pub(super) fn shown_perm(&self, inode: &Arc<Inode>, perm: u32) -> u32 {
        let Lists::Folded(holds) = &self.lists else {
            return perm;
        };
        let layer = usize::from(inode.id().layer);
        let none = perm & 0o077 == 0 || inode.kind == Kind::Symlink;
        if none || !holds.get(layer).copied().unwrap_or(true) {
            return perm;
        }
        let seen = inode.xattrs.look();
        if seen.has(XattrFact::NoAcl) || seen.has(XattrFact::None) {
            return perm;
        }
        match self.read_place(inode, |place| place.xattr(acl::ACCESS)) {
            Ok(list) => acl::fold(&list, perm),
            Err(Errno::NODATA) => {
                if self.lasting {
                    inode.xattrs.learn(seen, XattrFact::NoAcl);
                }
                perm
            }
            Err(Errno::OPNOTSUPP) => perm,
            // One that cannot be read may forbid anything.
            Err(e) => {
                tracing::warn!("the access control list of {}: {e}", inode.path());
                perm & !0o077
            }
        }
    }
}
