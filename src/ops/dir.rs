//! readdir and readdirplus: a position is a cookie, so no listing belongs to an open directory.

use std::sync::Arc;

use super::Union;
use super::lookup::Count;
use crate::attr::{Attr, Kind, Time};
use crate::error::{Errno, Result};
use crate::merge::{COOKIE_FIRST, Top};
use crate::name::{Name, NameBuf};
use crate::tree::{Inode, ROOT};

/// Cookies of `.` and `..`.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
/// Names that are copied out of an index at a time.
const BATCH: usize = 128;

/// One entry of a listing.
#[derive(Debug, Clone, Copy)]
pub struct DirItem<'a> {
    /// The name.
    pub name: &'a Name,
    /// Where to go on behind it.
    pub cookie: u64,
    /// Its attributes.
    pub attr: Attr,
    /// The attributes are only a stand-in (the object cannot be looked at): not to be cached.
    pub unknown: bool,
}

impl Union {
    /// Lists directory `ino` behind `cookie` (0: from the start). `add` takes an entry, or says
    /// that it had no room. If `plus`, every entry that was taken counts as looked up, but for `.`
    /// and `..` and those unknown.
    ///
    /// # Errors
    /// Those of the layers on reading the directory. An entry that cannot be looked at is listed
    /// all the same: its own lookup will tell why.
    pub fn read_dir(
        &self,
        ino: u64,
        cookie: u64,
        plus: bool,
        add: &mut dyn FnMut(&DirItem<'_>) -> bool,
    ) -> Result<()> {
        let dir = self.dir(ino)?;
        let mut cookie = cookie;
        if cookie < DOT_DOT && !self.add_dots(&dir, cookie, add)? {
            return Ok(());
        }
        cookie = cookie.max(COOKIE_FIRST - 1);
        if dir.is_removed() {
            return Ok(());
        }
        let index = self.index(&dir)?;
        loop {
            let batch: Vec<(u64, NameBuf, Top)> = index
                .read()
                .after(cookie)
                .take(BATCH)
                .map(|(c, e)| (c, e.name().into(), e.top.clone()))
                .collect();
            let Some((last, ..)) = batch.last() else {
                return Ok(());
            };
            let last = *last;
            for (at, name, top) in &batch {
                if !self.add_entry(&dir, *at, name, top, plus, add)? {
                    return Ok(());
                }
            }
            cookie = last;
        }
    }

    fn add_dots(
        &self,
        dir: &Arc<Inode>,
        cookie: u64,
        add: &mut dyn FnMut(&DirItem<'_>) -> bool,
    ) -> Result<bool> {
        let stat = self.stat(dir)?;
        let attr = self.view_attr(dir, &stat);
        let parent = dir.parent().map_or(ROOT, |(parent, _)| parent.ino);
        let dot_dot = Attr {
            ino: parent,
            ..attr
        };
        for (at, name, attr) in [(DOT, &b"."[..], attr), (DOT_DOT, b"..", dot_dot)] {
            let item = DirItem {
                name,
                cookie: at,
                attr,
                unknown: false,
            };
            if at > cookie && !add(&item) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds one entry; false if there was no room.
    fn add_entry(
        &self,
        dir: &Arc<Inode>,
        cookie: u64,
        name: &Name,
        top: &Top,
        plus: bool,
        add: &mut dyn FnMut(&DirItem<'_>) -> bool,
    ) -> Result<bool> {
        let count = if plus { Count::Yes } else { Count::Held };
        let (inode, stat) = match self.child(dir, name, count) {
            Ok(found) => found,
            Err(e) if e.errno() == Errno::NOENT => return Ok(true), // gone meanwhile
            Err(e) => {
                tracing::debug!("{}/{}: {e}", dir.path(), name.escape_ascii());
                let attr = stand_in(self.table.devices().synthetic(), top);
                return Ok(add(&DirItem {
                    name,
                    cookie,
                    attr,
                    unknown: true,
                }));
            }
        };
        let attr = self.shown_attr(&inode, &stat);
        let added = add(&DirItem {
            name,
            cookie,
            attr,
            unknown: false,
        });
        match (plus, added) {
            (true, false) => self.forget(inode.ino, 1),
            (true, true) => {}
            (false, _) => self.reap(inode),
        }
        Ok(added)
    }
}

/// Attributes of an object that cannot be looked at.
fn stand_in(ino: u64, top: &Top) -> Attr {
    let kind = match top {
        Top::Dir(_) => Kind::Dir,
        Top::Leaf { kind, .. } => *kind,
        Top::Whiteout => Kind::File,
    };
    let never = Time::default();
    Attr {
        ino,
        kind,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        blksize: 4096,
        atime: never,
        mtime: never,
        ctime: never,
    }
}
