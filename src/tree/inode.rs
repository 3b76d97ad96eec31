//! One object of the view: what it is, where it really lies, under which names it is known.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::names::Names;
use crate::attr::{Kind, Protection, Time};
use crate::layer::LayerId;
use crate::merge::Stack;
use crate::name::{KeptName, Name, NameBuf};

/// The real object that an inode stands for. Two real objects are never one inode, whatever their
/// numbers or markers say; aliases exist within one layer only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RealId {
    /// The layer it was found in.
    pub layer: LayerId,
    /// Index of its device.
    pub dev: u16,
    /// Its number there.
    pub ino: u64,
    /// When it was made, in a few bits, so that a number that is used again is another object; 0
    /// where that cannot be known.
    pub born: u32,
}

/// A name of an object in the view. It counts as a child of `parent`, which therefore stays known.
#[derive(Debug)]
pub struct Alias {
    /// The directory.
    pub parent: Arc<Inode>,
    /// The name in it.
    pub name: KeptName,
    /// The layer that has the object at this name; for a copied-up hard link some names are only
    /// in the lower.
    pub layer: LayerId,
}

impl Alias {
    /// A name in `parent`.
    pub fn new(parent: &Arc<Inode>, name: &Name, layer: LayerId) -> Alias {
        // Relaxed: the count is read for removal only under the table's shard lock.
        parent.kids.fetch_add(1, Ordering::Relaxed);
        Alias {
            parent: Arc::clone(parent),
            name: name.into(),
            layer,
        }
    }

    /// Whether this is `name` in `parent`.
    pub fn is(&self, parent: &Inode, name: &Name) -> bool {
        self.parent.ino == parent.ino && *self.name == *name
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        self.parent.kids.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a removed object of the upper is still reached.
#[derive(Debug, Clone)]
pub enum Pin {
    /// By an open descriptor (`O_PATH`).
    Fd(Arc<OwnedFd>),
    /// By a name in the workdir, for descriptors are scarce. Unlinked when forgotten.
    Parked(NameBuf),
}

/// What a hard link to a lower file became when it was copied up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnionLink {
    /// How many names the view has.
    pub nlink: u32,
    /// Its entry in `work/index`; `None` where no file handle could be had (then memory alone
    /// knows, and the inode is never forgotten).
    pub index_name: Option<NameBuf>,
}

/// Where the data of a regular file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataAt {
    /// In the real object itself, unless opening it shows otherwise.
    Unknown,
    /// In the real object itself, where it was brought.
    Here,
    /// In a layer below: the real object is a metadata-only copy (the kernel's metacopy).
    Below,
}

/// The changing part of an inode, under its own lock: a leaf, held for no system call.
#[derive(Debug)]
pub struct State {
    /// The real object.
    pub id: RealId,
    /// Its names in the view. Empty: removed.
    pub names: Names,
    /// The upper object carries an origin marker: a directory that gets it is impure.
    pub has_origin: bool,
    /// Where its data is.
    pub data: DataAt,
    rare: Option<Box<Rare>>,
}

/// What is true of few objects, and so has no room in each: those that were removed while in use,
/// and hard links that were copied up.
#[derive(Debug, Default)]
pub struct Rare {
    /// The lower object this was copied from, if others may still be found through it.
    pub lower_id: Option<RealId>,
    /// Its last name, after it was removed: lower objects are still reached by it.
    pub past: Option<Alias>,
    /// Set before an object of the upper loses its last name.
    pub pin: Option<Pin>,
    /// Access and modification time to show, while data is brought to a metadata-only copy.
    pub held_times: Option<(Time, Time)>,
    /// For a hard link that was copied up.
    pub link: Option<UnionLink>,
}

/// What is true of all others.
static COMMON: Rare = Rare {
    lower_id: None,
    past: None,
    pin: None,
    held_times: None,
    link: None,
};

impl State {
    /// What is true of few objects.
    pub fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&COMMON)
    }

    /// The same for an object that is to become one of the few.
    pub fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Whether this is the real object, or the lower one it was copied from.
    pub fn is(&self, id: RealId) -> bool {
        self.id == id || self.rare().lower_id == Some(id)
    }
}

/// What only directories have.
#[derive(Debug)]
pub struct Dir {
    /// Taken by whoever changes the directory (its names, its index, its stack), over the system
    /// calls of the change. Order: ancestor before descendant, else ascending number.
    pub change: Mutex<()>,
    stack: RwLock<Arc<Stack>>,
}

/// What is known of the extended attributes of an object, so that nobody need ask for what is not
/// there. Learnt from answers of the layer; a change of an attribute makes all of it doubtful.
#[derive(Debug, Default)]
pub struct XattrFacts(AtomicU16);

/// A look at the facts, to be handed back with what was learnt.
#[derive(Debug, Clone, Copy)]
pub struct FactsSeen(u16);

/// One fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum XattrFact {
    /// It has no attribute at all.
    None = 1,
    /// It has no `security.capability`.
    NoCapability = 2,
    /// It has no access control list.
    NoAcl = 4,
    /// It has some attribute.
    Some = 8,
}

impl XattrFacts {
    /// Facts, and the number of changes so far in the bits above.
    const MASK: u16 = 15;

    /// What is known now.
    pub fn look(&self) -> FactsSeen {
        FactsSeen(self.0.load(Ordering::Acquire))
    }

    /// Adds what was learnt since `seen`, unless an attribute was changed meanwhile.
    pub fn learn(&self, seen: FactsSeen, fact: XattrFact) {
        let new = seen.0 | fact as u16;
        // Failing is fine: it is only not remembered.
        self.0
            .compare_exchange(seen.0, new, Ordering::AcqRel, Ordering::Relaxed)
            .ok();
    }

    /// An attribute is about to change, or has just changed: call it before and after.
    pub fn doubt(&self) {
        let next = |word: u16| Some((word & !Self::MASK).wrapping_add(Self::MASK + 1));
        // Never fails: there always is a next.
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .ok();
    }
}

impl FactsSeen {
    /// Whether a fact is known.
    pub fn has(self, fact: XattrFact) -> bool {
        self.0 & fact as u16 != 0
    }
}

/// The errno of a write that nobody was told yet; 0 for none.
#[derive(Debug, Default)]
pub struct WriteError(AtomicU16);

impl WriteError {
    /// Notes one.
    pub fn set(&self, error: rustix::io::Errno) {
        let errno = u16::try_from(error.raw_os_error()).unwrap_or_default();
        self.0.store(errno, Ordering::Release);
    }

    /// The one noted, which is forgotten.
    pub fn take(&self) -> Option<rustix::io::Errno> {
        match self.0.swap(0, Ordering::AcqRel) {
            0 => None,
            errno => Some(rustix::io::Errno::from_raw_os_error(errno.into())),
        }
    }
}

/// What may be done to an object, as far as is known.
#[derive(Debug, Default)]
pub struct Protected(AtomicU8);

impl Protected {
    /// What is known.
    pub fn get(&self) -> Protection {
        // Relaxed: a flag that is just being set holds from the next change on.
        let bits = self.0.load(Ordering::Relaxed);
        Protection {
            immutable: bits & 1 != 0,
            append_only: bits & 2 != 0,
        }
    }

    /// Notes what holds from now on.
    pub fn set(&self, protection: Protection) {
        let bits = u8::from(protection.immutable) | u8::from(protection.append_only) << 1;
        self.0.store(bits, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Inode {
    /// Its number, for life.
    pub ino: u64,
    /// Its kind, for life.
    pub kind: Kind,
    /// How often the kernel was told of it and has not forgotten.
    pub lookups: AtomicU64,
    /// How many aliases of other inodes have it as parent, plus one for each other reason to stay.
    pub kids: AtomicU32,
    /// Held while the object is copied up; outermost of all locks.
    pub copying: Mutex<()>,
    /// Held while the modification time of the real file is set, or put back after a write that must
    /// not change it.
    pub times: Mutex<()>,
    /// It was seen with more than one name.
    pub linked: AtomicBool,
    /// It may have setuid or setgid: a write has to look.
    pub setid: AtomicBool,
    /// What may be done to it.
    pub protection: Protected,
    /// What it is known not to have.
    pub xattrs: XattrFacts,
    /// It had writes that were not synced when their descriptor was closed; holds the errno of
    /// the sync that closing made, for the next fsync to report.
    pub write_error: WriteError,
    state: RwLock<State>,
    dir: Option<Box<Dir>>,
}

impl Inode {
    /// An inode with one name, or the root with none. `stack`: for a directory.
    pub fn new(
        ino: u64,
        kind: Kind,
        id: RealId,
        name: Option<Alias>,
        stack: Option<Stack>,
    ) -> Inode {
        let dir = stack.map(|stack| {
            Box::new(Dir {
                change: Mutex::new(()),
                stack: RwLock::new(Arc::new(stack)),
            })
        });
        Inode {
            ino,
            kind,
            lookups: AtomicU64::new(0),
            kids: AtomicU32::new(0),
            copying: Mutex::new(()),
            times: Mutex::new(()),
            linked: AtomicBool::new(false),
            setid: AtomicBool::new(false),
            protection: Protected::default(),
            xattrs: XattrFacts::default(),
            write_error: WriteError::default(),
            state: RwLock::new(State {
                id,
                names: name.into_iter().collect(),
                has_origin: false,
                data: DataAt::Unknown,
                rare: None,
            }),
            dir,
        }
    }

    /// The changing part, for reading.
    pub fn state(&self) -> parking_lot::RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// The changing part, for changing.
    pub fn state_mut(&self) -> parking_lot::RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    /// What only directories have.
    pub fn dir(&self) -> Option<&Dir> {
        self.dir.as_deref()
    }

    /// The real object.
    pub fn id(&self) -> RealId {
        self.state.read().id
    }

    /// Whether it lost its last name. The root has no name and is never removed.
    pub fn is_removed(&self) -> bool {
        self.ino != super::ROOT && self.state.read().names.is_empty()
    }

    /// Whether `name` in `parent` is one of its names.
    pub fn has_name(&self, parent: &Inode, name: &Name) -> bool {
        self.state.read().names.iter().any(|a| a.is(parent, name))
    }

    /// The parent and name of a directory (one of them for anything else); `None` for the root and
    /// for what was removed.
    pub fn parent(&self) -> Option<(Arc<Inode>, NameBuf)> {
        self.state
            .read()
            .names
            .first()
            .map(|a| (Arc::clone(&a.parent), NameBuf::from(&a.name)))
    }

    /// The same, of what was removed as well: its last name.
    pub fn last_name(&self) -> Option<(Arc<Inode>, NameBuf)> {
        let state = self.state.read();
        let alias = state.names.first().or(state.rare().past.as_ref())?;
        Some((Arc::clone(&alias.parent), NameBuf::from(&alias.name)))
    }

    /// How many directories lie above it.
    pub fn depth(&self) -> usize {
        let above = std::iter::successors(self.parent(), |(parent, _)| parent.parent());
        above.count()
    }

    /// Whether it is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Inode) -> bool {
        let mut at = self.parent();
        if self.ino == ancestor.ino {
            return true;
        }
        while let Some((parent, _)) = at {
            if parent.ino == ancestor.ino {
                return true;
            }
            at = parent.parent();
        }
        false
    }

    /// The path in the view, for a person.
    pub fn path(&self) -> String {
        let mut parts = Vec::new();
        let mut at = self.parent();
        while let Some((parent, name)) = at {
            parts.push(name.escape_ascii().to_string());
            at = parent.parent();
        }
        parts.reverse();
        match (parts.is_empty(), self.is_removed()) {
            (_, true) => format!("(removed, inode {})", self.ino),
            _ => format!("/{}", parts.join("/")),
        }
    }
}

impl Dir {
    /// The layers it is made of.
    pub fn stack(&self) -> Arc<Stack> {
        Arc::clone(&self.stack.read())
    }

    /// Replaces the layers it is made of; the caller holds `change`.
    pub fn set_stack(&self, stack: Stack) {
        *self.stack.write() = Arc::new(stack);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_from_before_a_change_is_not_believed() {
        let facts = XattrFacts::default();
        let seen = facts.look();
        facts.doubt();
        facts.learn(seen, XattrFact::None);
        assert!(!facts.look().has(XattrFact::None));
        facts.learn(facts.look(), XattrFact::NoCapability);
        assert!(facts.look().has(XattrFact::NoCapability));
        assert!(!facts.look().has(XattrFact::None));
        facts.doubt();
        assert!(!facts.look().has(XattrFact::NoCapability));
    }

    /// With the two counts of its `Arc` it takes 136 bytes, which is what glibc gives for 144.
    #[test]
    fn an_inode_is_small() {
        assert_eq!(size_of::<Alias>(), 40);
        assert_eq!(size_of::<Names>(), 40);
        assert!(size_of::<Inode>() <= 120, "{}", size_of::<Inode>());
    }
}
