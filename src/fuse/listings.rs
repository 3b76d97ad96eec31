//! Which directories the kernel may hold a listing of that is older than a change.
//!
//! The kernel keeps the listing of a directory page by page while somebody reads it. At the start of the
//! next listing it compares versions; but who is in the middle of one goes on in the pages that another
//! process has completed meanwhile, however old they are. A name that this process had made before it
//! began would be missing. So the pages are dropped at each change after which there may be any, and at the
//! end of a listing that was overtaken by a change; the kernel asks again for pages that are not there.

use dashmap::DashMap;

/// What the kernel may hold of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// The start of a listing; whether anything was changed since.
    Part { changed: bool },
    /// All of one.
    Whole,
}

/// By number of the directory; what is not there, the kernel holds nothing of.
#[derive(Debug, Default)]
pub(super) struct Listings(DashMap<u64, Held>);

impl Listings {
    /// A listing is about to be read from its start.
    pub(super) fn begin(&self, dir: u64) {
        let mut held = self.0.entry(dir).or_insert(Held::Whole);
        if *held == Held::Whole {
            *held = Held::Part { changed: false };
        }
    }

    /// The end of a listing is about to be told. Whether the pages are to be dropped before.
    pub(super) fn end(&self, dir: u64) -> bool {
        let Some(mut held) = self.0.get_mut(&dir) else {
            return false;
        };
        let before = std::mem::replace(&mut *held, Held::Whole);
        before == Held::Part { changed: true }
    }

    /// A directory was changed, which nobody was told yet. Whether the pages are to be dropped before.
    pub(super) fn change(&self, dir: u64) -> bool {
        let Some(mut held) = self.0.get_mut(&dir) else {
            return false;
        };
        if *held == Held::Whole {
            drop(held);
            self.0.remove_if(&dir, |_, held| *held == Held::Whole);
        } else {
            *held = Held::Part { changed: true };
        }
        true
    }

    /// The kernel has forgotten a directory, and with it what it held.
    pub(super) fn forget(&self, dir: u64) {
        self.0.remove(&dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_older_than_a_change_are_dropped_once() {
        let listings = Listings::default();
        assert!(!listings.change(1), "nothing was listed");
        listings.begin(1);
        assert!(!listings.end(1), "nothing was changed");
        assert!(listings.change(1), "all of it is held");
        assert!(!listings.change(1), "nothing is held any more");
        listings.begin(1);
        assert!(
            listings.change(1) && listings.change(1),
            "somebody still reads"
        );
        listings.begin(1); // somebody else, too
        assert!(listings.end(1), "what was read last may be from before");
        assert!(listings.change(1));
        listings.begin(1);
        listings.forget(1);
        assert!(!listings.change(1) && !listings.end(1));
    }
}
