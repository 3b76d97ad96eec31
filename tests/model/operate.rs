//! What each operation does to the tree and answers, as POSIX and Linux have it.
//!
//! The process is root, so nothing is ever forbidden by a mode.

use crate::kit::apply::tell;
use crate::kit::operation::{Op, Outcome};
use crate::kit::snapshot::show;
use crate::kit::{Errno, Res};
use crate::tree::{Body, Id, Last, Place, Tree};

/// Times are not part of the model.
pub const NO_TIMES: i64 = i64::MIN;

pub fn fails<T>(errno: i32) -> Res<T> {
    Err(Errno(errno))
}

pub fn has(flags: i32, flag: i32) -> bool {
    flags & flag != 0
}

impl Tree {
    /// Whether POSIX and Linux leave open what this answers, as things are; such steps are left out.
    pub fn leaves_open(&self, op: &Op) -> bool {
        let find = |path: &str| self.find(path, Last::Follow).ok();
        // What reads and writes on fifos and devices do depends on what is at their other end.
        let special = |path: &str| {
            let special = |id: Id| matches!(self.inodes[id].body, Body::Special);
            find(path).is_some_and(special)
        };
        match op {
            // Within one file the answer depends on how much each call copies.
            Op::CopyRange { from, to, .. } => {
                special(from) || special(to) || (find(from).is_some() && find(from) == find(to))
            }
            Op::Create { at, .. }
            | Op::Write { at, .. }
            | Op::Append { at, .. }
            | Op::Rewrite { at, .. }
            | Op::Fallocate { at, .. }
            | Op::Read { at }
            | Op::Open { at, .. } => special(at),
            _ => false,
        }
    }

    pub fn apply(&mut self, op: &Op) -> Outcome {
        let nothing = |()| String::new();
        let zero = |()| "0".to_owned();
        match op {
            Op::Create {
                at,
                mode,
                exclusive,
            } => self.create(at, *mode, *exclusive).map(nothing),
            Op::Mkdir { at, mode } => self.mkdir(at, *mode).map(nothing),
            Op::Mknod { at, mode, device } => self.mknod(at, *mode, *device).map(nothing),
            Op::Symlink { target, at } => {
                let body = Body::Symlink(target.clone());
                let made = self.make_new(at, libc::S_IFLNK | 0o777, body);
                made.map(|_| String::new())
            }
            Op::Link { from, to } => self.link(from, to).map(nothing),
            Op::Unlink { at } => self.unlink(at).map(nothing),
            Op::Rmdir { at } => self.rmdir(at).map(nothing),
            Op::RemoveTree { at } => self.remove_tree(at).map(nothing),
            Op::Rename { from, to, flags } => self.rename(from, to, *flags).map(nothing),
            Op::Truncate { at, size } => self.truncate(at, *size).map(zero),
            Op::Chmod { at, mode } => {
                let id = self.find(at, Last::Follow)?;
                self.chmod(id, *mode);
                Ok("0".to_owned())
            }
            Op::Chown { at, uid, gid } => {
                let id = self.find(at, Last::Keep)?;
                self.chown(id, *uid, *gid);
                Ok("0".to_owned())
            }
            Op::Utimens { at, .. } => self.find(at, Last::Keep).map(|_| "0".to_owned()),
            Op::Stat { at } => {
                let id = self.find(at, Last::Keep)?;
                Ok(tell(&self.stat(id), NO_TIMES))
            }
            Op::Readlink { at } => match &self.inodes[self.find(at, Last::Keep)?].body {
                Body::Symlink(target) => Ok(target.clone()),
                _ => fails(libc::EINVAL),
            },
            Op::List { at } => self.list(at),
            Op::SetXattr { .. }
            | Op::RemoveXattr { .. }
            | Op::GetXattr { .. }
            | Op::ListXattr { .. } => self.use_xattrs(op),
            Op::Write { .. }
            | Op::Append { .. }
            | Op::Rewrite { .. }
            | Op::Fallocate { .. }
            | Op::CopyRange { .. }
            | Op::Read { .. } => self.open_and_use(op),
            _ => self.use_slot(op),
        }
    }

    fn new_place(&self, path: &str) -> Res<Place> {
        let place = self.walk(path, Last::Keep)?;
        if place.found.is_some() {
            return fails(libc::EEXIST);
        }
        self.may_be_named(&place.name)?;
        Ok(place)
    }

    fn may_be_named(&self, name: &str) -> Res<()> {
        if self.rules.dot_wh_is_reserved && name.starts_with(".wh.") {
            return fails(libc::EPERM);
        }
        Ok(())
    }

    fn make_new(&mut self, path: &str, mode: u32, body: Body) -> Res<Id> {
        let place = self.new_place(path)?;
        Ok(self.make(&place, mode, body))
    }

    fn create(&mut self, path: &str, mode: u32, exclusive: bool) -> Res<()> {
        let last = if exclusive { Last::Keep } else { Last::Follow };
        let place = self.walk(path, last)?;
        match place.found {
            Some(_) if exclusive => fails(libc::EEXIST),
            Some(_) => self.open_file(path, libc::O_WRONLY).map(drop),
            None => {
                self.may_be_named(&place.name)?;
                self.make(&place, libc::S_IFREG | mode, Body::File(Vec::new()));
                Ok(())
            }
        }
    }

    fn mkdir(&mut self, path: &str, mode: u32) -> Res<()> {
        let mode = libc::S_IFDIR | mode & 0o1777;
        self.make_new(path, mode, Body::Dir(Default::default()))?;
        Ok(())
    }

    fn mknod(&mut self, path: &str, mode: u32, (major, minor): (u32, u32)) -> Res<()> {
        let kind = mode & libc::S_IFMT;
        let place = self.new_place(path)?;
        // SEMANTICS 2: nobody can make a whiteout.
        if kind == libc::S_IFCHR && (major, minor) == (0, 0) {
            return fails(libc::EPERM);
        }
        let is_device = kind == libc::S_IFCHR || kind == libc::S_IFBLK;
        let body = match kind {
            libc::S_IFREG => Body::File(Vec::new()),
            _ => Body::Special,
        };
        let id = self.make(&place, mode, body);
        if is_device {
            self.inode(id).rdev = libc::makedev(major, minor);
        }
        Ok(())
    }

    fn link(&mut self, from: &str, to: &str) -> Res<()> {
        let id = self.find(from, Last::Keep)?;
        let place = self.walk(to, Last::Keep)?;
        if place.found.is_some() {
            return fails(libc::EEXIST);
        }
        if self.is_dir(id) {
            return fails(libc::EPERM);
        }
        self.may_be_named(&place.name)?;
        self.names_mut(place.dir).insert(place.name, id);
        self.inode(id).nlink += 1;
        Ok(())
    }

    fn unlink(&mut self, path: &str) -> Res<()> {
        let place = self.walk(path, Last::Keep)?;
        let id = place.found.ok_or(Errno(libc::ENOENT))?;
        if self.is_dir(id) {
            return fails(libc::EISDIR);
        }
        self.drop_name(place.dir, &place.name);
        Ok(())
    }

    fn rmdir(&mut self, path: &str) -> Res<()> {
        let place = self.walk(path, Last::Keep)?;
        let id = place.found.ok_or(Errno(libc::ENOENT))?;
        if !self.names(id)?.is_empty() {
            return fails(libc::ENOTEMPTY);
        }
        self.drop_name(place.dir, &place.name);
        Ok(())
    }

    /// `rm -r`, which cannot fail half-way for root.
    fn remove_tree(&mut self, path: &str) -> Res<()> {
        let place = self.walk(path, Last::Keep)?;
        let id = place.found.ok_or(Errno(libc::ENOENT))?;
        self.empty(id);
        self.drop_name(place.dir, &place.name);
        Ok(())
    }

    fn empty(&mut self, dir: Id) {
        let names = self.names(dir).cloned().unwrap_or_default();
        for (name, id) in names {
            self.empty(id);
            self.drop_name(dir, &name);
        }
    }

    fn rename(&mut self, from: &str, to: &str, flags: u32) -> Res<()> {
        let (from, to) = (self.walk(from, Last::Keep)?, self.walk(to, Last::Keep)?);
        let old = from.found.ok_or(Errno(libc::ENOENT))?;
        let exchange = flags == libc::RENAME_EXCHANGE;
        if flags == libc::RENAME_NOREPLACE && to.found.is_some() {
            return fails(libc::EEXIST);
        }
        if exchange && to.found.is_none() {
            return fails(libc::ENOENT);
        }
        if self.is_within(to.dir, old) {
            return fails(libc::EINVAL);
        }
        if to.found.is_some_and(|new| self.is_within(from.dir, new)) {
            return fails(if exchange {
                libc::EINVAL
            } else {
                libc::ENOTEMPTY
            });
        }
        if to.found == Some(old) {
            return Ok(());
        }
        match to.found {
            Some(new) if !exchange && self.is_dir(old) && !self.is_dir(new) => {
                return fails(libc::ENOTDIR);
            }
            Some(new) if !exchange && !self.is_dir(old) && self.is_dir(new) => {
                return fails(libc::EISDIR);
            }
            _ => {}
        }
        self.may_be_named(&to.name)?;
        // SEMANTICS 6: without redirects a directory that has a part in a lower is another device.
        let moves = self.rules.lower_dirs_move;
        let stays = |id: Id| !moves && self.is_dir(id) && self.inodes[id].lowers > 0;
        if stays(old) || (exchange && to.found.is_some_and(stays)) {
            return fails(libc::EXDEV);
        }
        if let Some(new) = to.found.filter(|_| !exchange) {
            if self.names(new).is_ok_and(|names| !names.is_empty()) {
                return fails(libc::ENOTEMPTY);
            }
            self.drop_name(to.dir, &to.name);
        }
        self.names_mut(from.dir).remove(&from.name);
        if let Some(new) = to.found.filter(|_| exchange) {
            self.names_mut(from.dir).insert(from.name, new);
        }
        self.names_mut(to.dir).insert(to.name, old);
        Ok(())
    }

    fn truncate(&mut self, path: &str, size: u64) -> Res<()> {
        let id = self.find(path, Last::Follow)?;
        match &mut self.inode(id).body {
            Body::File(data) => data.resize(size as usize, 0),
            Body::Dir(_) => return fails(libc::EISDIR),
            _ => return fails(libc::EINVAL),
        }
        Ok(())
    }

    pub fn chmod(&mut self, id: Id, mode: u32) {
        let inode = self.inode(id);
        inode.mode = inode.mode & libc::S_IFMT | mode;
    }

    pub fn chown(&mut self, id: Id, uid: u32, gid: u32) {
        let is_dir = self.is_dir(id);
        let inode = self.inode(id);
        if uid != u32::MAX {
            inode.uid = uid;
        }
        if gid != u32::MAX {
            inode.gid = gid;
        }
        // As Linux does for root too; a setgid bit without group execution means something else.
        if !is_dir {
            inode.mode &= !libc::S_ISUID;
            if inode.mode & libc::S_IXGRP != 0 {
                inode.mode &= !libc::S_ISGID;
            }
        }
    }

    fn list(&self, path: &str) -> Outcome {
        let names = self.names(self.find(path, Last::Follow)?)?;
        let line = |(name, &id): (&String, &Id)| {
            let kind = (self.inodes[id].mode & libc::S_IFMT) >> 12;
            format!("{name} {kind}")
        };
        let mut lines: Vec<String> = names.iter().map(line).collect();
        lines.sort();
        Ok(lines.join(", "))
    }

    fn use_xattrs(&mut self, op: &Op) -> Outcome {
        let (Op::SetXattr { at, .. }
        | Op::RemoveXattr { at, .. }
        | Op::GetXattr { at, .. }
        | Op::ListXattr { at }) = op
        else {
            unreachable!("{op:?}")
        };
        let id = self.find(at, Last::Keep)?;
        match op {
            Op::SetXattr {
                name, value, flags, ..
            } => self.set_xattr(id, name, value, *flags),
            Op::RemoveXattr { name, .. } => {
                self.may_have(id, name)?;
                let removed = self.inode(id).xattrs.remove(*name);
                removed.map(|_| "0".to_owned()).ok_or(Errno(libc::ENODATA))
            }
            Op::GetXattr { name, .. } => {
                let value = self.inodes[id].xattrs.get(*name);
                value.map(|v| show(v)).ok_or(Errno(libc::ENODATA))
            }
            _ => {
                let line = |(name, value): (&String, &Vec<u8>)| format!("{name}={}", show(value));
                let mut lines: Vec<String> = self.inodes[id].xattrs.iter().map(line).collect();
                lines.sort();
                Ok(lines.join(" "))
            }
        }
    }

    pub fn set_xattr(&mut self, id: Id, name: &str, value: &[u8], flags: i32) -> Outcome {
        self.may_have(id, name)?;
        let xattrs = &mut self.inode(id).xattrs;
        if has(flags, libc::XATTR_CREATE) && xattrs.contains_key(name) {
            return fails(libc::EEXIST);
        }
        if has(flags, libc::XATTR_REPLACE) && !xattrs.contains_key(name) {
            return fails(libc::ENODATA);
        }
        xattrs.insert(name.to_owned(), value.to_vec());
        Ok("0".to_owned())
    }

    /// Linux: `user.*` is for files and directories.
    fn may_have(&self, id: Id, name: &str) -> Res<()> {
        match self.inodes[id].body {
            Body::Symlink(_) | Body::Special if name.starts_with("user.") => fails(libc::EPERM),
            _ => Ok(()),
        }
    }
}
