//! Looks for what is wrong with an upper: markers that mean nothing, copies without data, deletions of
//! nothing.
//!
//! It walks the upper as a mount shows it, with the same code: what a mount cannot follow it cannot
//! follow either, and says so.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Union;
use super::lookup::Count;
use crate::attr::Kind;
use crate::error::{Errno, Error, Result, WhileDoing};
use crate::layer::{Place, Traced};
use crate::marker::metacopy::Metacopy;
use crate::marker::nlink::Nlink;
use crate::marker::opaque::{self, Opacity};
use crate::marker::origin::Origin;
use crate::marker::redirect::Redirect;
use crate::marker::xattr::{Marker, Namespace};
use crate::merge::Top;
use crate::name::{Name, NameBuf};
use crate::tree::{Inode, ROOT};
use crate::upper::{SetTime, set_times};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// The object, or what is below it, cannot be looked at.
    Unreadable,
    /// A deletion where there is nothing to delete.
    IdleWhiteout,
    /// `overlay.opaque` has a value that means nothing.
    BadOpaque,
    /// `overlay.origin` is malformed.
    BadOrigin,
    /// `overlay.origin` names what is not there, or not in these lowers.
    LostOrigin,
    /// `overlay.nlink` is malformed.
    BadNlink,
    /// `overlay.redirect` means nothing.
    BadRedirect,
    /// Two directories are to show one and the same.
    SharedRedirect,
    /// `overlay.metacopy` is malformed, or the data cannot be found or is not what it should be.
    NoData,
    /// An entry of the index of hard links that nothing leads to.
    OrphanedLink,
    /// Something in the making that was never finished.
    Leftover,
    /// The last mount was volatile, and did not end in order.
    Volatile,
}

/// How bad that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Nobody is shown anything wrong.
    Note,
    /// What is shown is wrong, or cannot be shown.
    Problem,
}

impl Trouble {
    /// How bad it is.
    pub fn weight(self) -> Weight {
        match self {
            Trouble::LostOrigin
            | Trouble::Leftover
            | Trouble::OrphanedLink
            | Trouble::IdleWhiteout => Weight::Note,
            _ => Weight::Problem,
        }
    }
}

/// Something that is wrong somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Path in the view, or in the workdir.
    pub path: String,
    /// What is wrong.
    pub trouble: Trouble,
    /// What it is, and what can be done.
    pub text: String,
    /// It was mended.
    pub mended: bool,
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// Nothing: nothing at all is written.
    Nothing,
    /// What does not depend on the lowers being the right ones, and all of them.
    Safe,
    /// Deletions of what no lower has, too.
    Prune,
}

/// A walk through an upper.
struct Walk<'a> {
    union: &'a Union,
    mend: Mend,
    found: &'a mut dyn FnMut(Finding),
    /// Objects that were looked at.
    looked: u64,
    /// Directories to read yet, held.
    dirs: Vec<Arc<Inode>>,
    /// How many bad redirects were told.
    told: u64,
    /// Where redirects lead, and the path of the first directory that leads there.
    redirects: HashMap<Vec<u8>, String>,
}

impl Union {
    /// Looks at all objects of the upper and tells what is wrong; how many there are.
    ///
    /// # Errors
    /// There is no upper, or it may not be written and something is to be mended. What is wrong with a
    /// single object is told.
    pub fn check(&self, mend: Mend, found: &mut dyn FnMut(Finding)) -> Result<u64> {
        let upper = self.upper.as_ref().ok_or(Errno::ROFS)?;
        if mend != Mend::Nothing {
            self.upper()?;
        }
        for name in upper.links.rubbish() {
            found(Finding {
                path: format!("index/{}", name.escape_ascii()),
                trouble: Trouble::OrphanedLink,
                text: "an entry that nothing leads to (every mount removes it)".into(),
                mended: mend != Mend::Nothing,
            });
        }
        let root = self.table.get(ROOT).ok_or(Errno::STALE)?;
        let mut walk = Walk {
            union: self,
            mend,
            found,
            looked: 0,
            dirs: vec![root],
            told: 0,
            redirects: HashMap::new(),
        };
        while let Some(dir) = walk.dirs.pop() {
            walk.directory(&dir);
            if dir.ino != ROOT {
                self.reap(dir);
            }
        }
        Ok(walk.looked)
    }

    /// Removes the whiteout of `name` from the upper directory of `dir`, whose times stay.
    fn remove_idle_whiteout(&self, dir: &Arc<Inode>, name: &Name) -> Result<()> {
        let upper = self.upper()?;
        let fd = self.upper_dir(dir)?;
        let _change = self.lock_dir(dir)?;
        let index = self.index_locked(dir)?;
        let found = index.read().find(name);
        if !found.is_some_and(|found| found.top == Top::Whiteout && !found.covers) {
            return Err(Errno::STALE.into());
        }
        let place = Place::Fd(Arc::clone(&fd));
        let _times = dir.times.lock();
        let before = place.stat()?.attr;
        upper
            .remove_whiteout(&fd, name)
            .while_doing(|| "remove a whiteout")?;
        index.write().remove(name);
        set_times(&place, SetTime::To(before.atime), SetTime::To(before.mtime))
            .while_doing(|| "restore the times of a directory")
    }
}

impl Walk<'_> {
    fn tell(&mut self, path: String, trouble: Trouble, text: String) {
        let mended = false;
        self.told += u64::from(trouble == Trouble::BadRedirect);
        (self.found)(Finding {
            path,
            trouble,
            text,
            mended,
        });
    }

    /// Tells it, after having tried to mend it where that is wanted; else `how` to have it mended.
    fn tell_mended(
        &mut self,
        path: String,
        trouble: Trouble,
        (text, how): (&str, &str),
        mend: Option<impl FnOnce() -> Result<()>>,
    ) {
        let (mended, text) = match mend.map(|mend| mend()) {
            None => (false, format!("{text} ({how})")),
            Some(Ok(())) => (true, text.to_owned()),
            Some(Err(e)) => (false, format!("{text} (it cannot be removed: {e})")),
        };
        (self.found)(Finding {
            path,
            trouble,
            text,
            mended,
        });
    }

    fn unreadable(&mut self, path: String, e: &Error) {
        let text = format!("cannot be looked at: {e}");
        self.tell(path, Trouble::Unreadable, text);
    }

    /// Reads a directory of the upper.
    fn directory(&mut self, dir: &Arc<Inode>) {
        let union = self.union;
        let told = self.told;
        self.examine(dir);
        let index = match union.index(dir) {
            Ok(index) => index,
            // Its redirect is what is wrong.
            Err(_) if self.told > told => return,
            Err(e) => return self.unreadable(dir.path(), &e),
        };
        let copy =
            |(name, top, covers): (&Name, &Top, bool)| (NameBuf::from(name), top.clone(), covers);
        let entries: Vec<_> = index.read().all().map(copy).collect();
        let mine = union.upper_id();
        for (name, top, covers) in entries {
            let top_layer = match &top {
                Top::Whiteout if covers => None,
                Top::Whiteout => {
                    self.idle_whiteout(dir, &name);
                    None
                }
                Top::Leaf { layer, .. } => Some(*layer),
                Top::Dir(layers) => layers.first().copied(),
            };
            if top_layer.is_some() && top_layer == mine {
                self.object(dir, &name);
            }
        }
    }

    fn idle_whiteout(&mut self, dir: &Arc<Inode>, name: &Name) {
        self.looked += 1;
        let union = self.union;
        let remove = || union.remove_idle_whiteout(dir, name);
        self.tell_mended(
            below(dir, name),
            Trouble::IdleWhiteout,
            (
                "a deletion of what no lower has",
                "--repair --prune removes it",
            ),
            (self.mend == Mend::Prune).then_some(remove),
        );
    }

    fn object(&mut self, dir: &Arc<Inode>, name: &Name) {
        self.looked += 1;
        match self.union.child(dir, name, Count::Held) {
            Ok((inode, _)) if inode.kind == Kind::Dir => self.dirs.push(inode),
            Ok((inode, _)) => {
                self.examine(&inode);
                self.union.reap(inode);
            }
            Err(e) if e.errno() == Errno::NOENT => {}
            Err(e) => self.unreadable(below(dir, name), &e),
        }
    }

    /// Reads the markers of an object.
    fn examine(&mut self, inode: &Arc<Inode>) {
        let union = self.union;
        let names = match union.read_place(inode, Place::list_xattrs) {
            Ok(names) => names,
            // What its owner may not read, where we are no more than that.
            Err(Errno::ACCESS) => return,
            Err(e) => return self.unreadable(inode.path(), &e.into()),
        };
        for namespace in Namespace::ALL {
            for marker in [
                Marker::Opaque,
                Marker::Origin,
                Marker::Nlink,
                Marker::Redirect,
                Marker::Metacopy,
            ] {
                let name = namespace.name(marker);
                if !names.iter().any(|listed| **listed == *name.as_bytes()) {
                    continue;
                }
                match union.read_place(inode, |place| place.xattr(name.as_bytes())) {
                    Ok(value) => self.marker(inode, namespace, marker, &value),
                    Err(Errno::NODATA) => {}
                    Err(e) => self.unreadable(inode.path(), &e.into()),
                }
            }
        }
    }

    fn marker(&mut self, inode: &Arc<Inode>, namespace: Namespace, marker: Marker, value: &[u8]) {
        let path = || inode.path();
        let shown = || format!("{} is \"{}\"", namespace.name(marker), value.escape_ascii());
        match marker {
            Marker::Opaque
                if inode.kind == Kind::Dir && opaque::decode(value) == Opacity::Clear =>
            {
                let text = format!(
                    "{}, which means nothing: set it to y, or remove it",
                    shown()
                );
                self.tell(path(), Trouble::BadOpaque, text);
            }
            Marker::Origin => self.origin(inode, namespace, value),
            Marker::Nlink if Nlink::decode(value).is_none() => {
                let text = format!(
                    "{}, which is no count: the links on disk are shown",
                    shown()
                );
                self.tell(path(), Trouble::BadNlink, text);
            }
            Marker::Redirect => self.redirect(inode, value, &shown()),
            Marker::Metacopy if inode.kind == Kind::File => self.metacopy(inode, value, &shown()),
            _ => {}
        }
    }

    fn origin(&mut self, inode: &Arc<Inode>, namespace: Namespace, value: &[u8]) {
        let union = self.union;
        let Some(origin) = Origin::decode(value) else {
            // Nothing at all: the kernel found no handle.
            if !value.is_empty() {
                let text = "overlay.origin is malformed: the inode number may change";
                let remove = || {
                    let upper = union.upper()?;
                    union
                        .place(inode)
                        .map_err(Error::from)
                        .and_then(|place| upper.remove_marker(&place, namespace, Marker::Origin))
                };
                let wanted = self.mend != Mend::Nothing;
                let text = (text, "--repair removes it");
                self.tell_mended(
                    inode.path(),
                    Trouble::BadOrigin,
                    text,
                    wanted.then_some(remove),
                );
            }
            return;
        };
        let leads = union
            .origin_layer(&origin)
            .is_some_and(|layer| layer.handles.trace(&origin) != Traced::Nowhere);
        if !leads {
            let text =
                "comes from what is gone, or not in these lowers: its inode number may change";
            self.tell(inode.path(), Trouble::LostOrigin, text.to_owned());
        }
    }

    fn redirect(&mut self, inode: &Arc<Inode>, value: &[u8], shown: &str) {
        let target = match Redirect::decode(value) {
            Ok(target) => target,
            Err(e) => {
                let text =
                    format!("{shown}, which leads nowhere ({e}): its lower part is not shown");
                return self.tell(inode.path(), Trouble::BadRedirect, text);
            }
        };
        if inode.kind != Kind::Dir {
            return;
        }
        let key = match (&target, inode.parent()) {
            (Redirect::Name(name), Some((parent, _))) => below(&parent, name).into_bytes(),
            _ => target.encode(),
        };
        let path = inode.path();
        if let Some(other) = self.redirects.insert(key, path.clone()) {
            let text = format!(
                "{shown}, which is shown in {other} too: changes of one are not seen in the other"
            );
            self.tell(path, Trouble::SharedRedirect, text);
        }
    }

    fn metacopy(&mut self, inode: &Arc<Inode>, value: &[u8], shown: &str) {
        if Metacopy::decode(value).is_none() {
            let text =
                format!("{shown}, which is malformed or of a newer version: it cannot be read");
            return self.tell(inode.path(), Trouble::NoData, text);
        }
        if let Err(e) = self.union.read_fd(inode) {
            let text = format!("its data is not found in these lowers: {e}");
            self.tell(inode.path(), Trouble::NoData, text);
        }
    }
}

fn below(dir: &Inode, name: &Name) -> String {
    match &*dir.path() {
        "/" => format!("/{}", name.escape_ascii()),
        path => format!("{path}/{}", name.escape_ascii()),
    }
}
