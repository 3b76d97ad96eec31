//! link and readlink.

use std::sync::Arc;

use super::copy_up::Want;
use super::create::check_new_name;
use super::metadata_copy::Reach;
use super::protect::{Act, permit};
use super::{Entry, Union};
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing};
use crate::merge::Top;
use crate::name::Name;
use crate::tree::{Alias, Inode};

impl Union {
    /// Gives an object another name, and counts it. It is copied up first.
    ///
    /// # Errors
    /// `EEXIST`, `EPERM` for a directory; the upper's.
    pub fn link(&self, ino: u64, new_parent: u64, new_name: &Name) -> Result<Entry> {
        let upper = self.upper()?;
        let (inode, dir) = (self.inode(ino)?, self.dir(new_parent)?);
        if inode.kind == Kind::Dir {
            return Err(Errno::PERM.into());
        }
        check_new_name(upper, new_name)?;
        permit(&dir, Act::AddName)?;
        permit(&inode, Act::Change)?;
        self.copy_up(&inode, Want::Attributes)?;
        if let Some((parent, name)) = inode.parent() {
            self.point_to_data(upper, &inode, (&parent, &name), Reach::Anywhere)?;
        }
        let dir_fd = self.upper_dir(&dir)?;
        let _change = self.lock_dir(&dir)?;
        let covers = self.free_name(&dir, new_name)?;
        // As the kernel: what has lost its last name cannot get another.
        if self.link_count(&inode)? == 0 {
            return Err(Errno::NOENT.into());
        }
        let place = self.place(&inode)?;
        self.store_nlink(upper, &inode, &place)?;
        if inode.state().has_origin {
            self.note_impure(upper, &dir, &dir_fd);
        }
        upper
            .link(&place, &dir_fd, new_name, covers.is_some())
            .while_doing(|| "link in the upper")?;
        if covers.is_some() && upper.dialect == crate::marker::whiteout::Dialect::File {
            upper.drop_whiteout(&dir_fd, new_name);
        }
        let alias = Alias::new(&dir, new_name, upper.layer);
        {
            let mut state = inode.state_mut();
            state.names.push(alias);
            if state.rare().link.is_some()
                && let Some(link) = &mut state.rare_mut().link
            {
                link.nlink += 1;
            }
        }
        let top = Top::Leaf {
            layer: upper.layer,
            kind: inode.kind,
        };
        let covers = covers.unwrap_or(false);
        self.index_locked(&dir)?
            .write()
            .set(new_name, top, covers, inode.ino);
        self.table.count(&inode);
        let stat = self.stat(&inode)?;
        Ok(Entry {
            attr: self.view_attr(&inode, &stat),
        })
    }

    fn link_count(&self, inode: &Arc<Inode>) -> Result<u32> {
        let stat = self.stat(inode)?;
        Ok(self.view_attr(inode, &stat).nlink)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// Those of readlink(2).
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>> {
        let inode = self.inode(ino)?;
        if inode.kind != Kind::Symlink {
            return Err(Errno::INVAL.into());
        }
        self.read_place(&inode, |place| place.read_link())
            .while_doing(|| "read a symlink")
    }
}
