//! The names of one inode: nearly always one, which then needs no allocation.

use std::ops::{Deref, DerefMut};

use super::inode::Alias;

/// See the module. Used as the slice that it is.
#[derive(Debug, Default)]
pub struct Names(Few);

#[derive(Debug, Default)]
enum Few {
    #[default]
    None,
    One(Alias),
    /// Any number of them.
    Many(Vec<Alias>),
}

impl Names {
    /// Adds a name behind the others.
    pub fn push(&mut self, alias: Alias) {
        self.0 = match std::mem::take(&mut self.0) {
            Few::None => Few::One(alias),
            Few::One(first) => Few::Many(vec![first, alias]),
            Few::Many(mut names) => {
                names.push(alias);
                Few::Many(names)
            }
        };
    }

    /// Removes the first name for which `is` says so.
    pub fn remove_first(&mut self, is: impl Fn(&Alias) -> bool) -> Option<Alias> {
        match &mut self.0 {
            Few::Many(names) => {
                let at = names.iter().position(is)?;
                Some(names.remove(at))
            }
            Few::One(name) if is(name) => std::mem::take(self).into_vec().pop(),
            Few::None | Few::One(_) => None,
        }
    }

    /// Takes out all names for which `is` does not say so.
    pub fn retain(&mut self, is: impl Fn(&Alias) -> bool) -> Vec<Alias> {
        if self.iter().all(&is) {
            return Vec::new();
        }
        let names = std::mem::take(self).into_vec().into_iter();
        let (keep, out): (Vec<_>, Vec<_>) = names.partition(is);
        self.extend(keep);
        out
    }

    /// All names.
    pub fn into_vec(self) -> Vec<Alias> {
        match self.0 {
            Few::None => Vec::new(),
            Few::One(name) => vec![name],
            Few::Many(names) => names,
        }
    }
}

impl FromIterator<Alias> for Names {
    fn from_iter<I: IntoIterator<Item = Alias>>(aliases: I) -> Names {
        let mut names = Names::default();
        names.extend(aliases);
        names
    }
}

impl Extend<Alias> for Names {
    fn extend<I: IntoIterator<Item = Alias>>(&mut self, aliases: I) {
        aliases.into_iter().for_each(|alias| self.push(alias));
    }
}

impl Deref for Names {
    type Target = [Alias];

    fn deref(&self) -> &[Alias] {
        match &self.0 {
            Few::None => &[],
            Few::One(name) => std::slice::from_ref(name),
            Few::Many(names) => names,
        }
    }
}

impl DerefMut for Names {
    fn deref_mut(&mut self) -> &mut [Alias] {
        match &mut self.0 {
            Few::None => &mut [],
            Few::One(name) => std::slice::from_mut(name),
            Few::Many(names) => names,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::attr::Kind;
    use crate::tree::{Inode, RealId};

    #[test]
    fn any_number_of_names() {
        let id = RealId {
            layer: 0,
            dev: 0,
            ino: 1,
            born: 0,
        };
        let dir = Arc::new(Inode::new(1, Kind::Dir, id, None, None));
        let alias = |n: u8| Alias::new(&dir, &[n], 0);
        let list = |names: &Names| names.iter().map(|a| a.name[0]).collect::<Vec<_>>();
        for count in 0..4 {
            let all: Vec<u8> = (0..count).collect();
            let mut names: Names = all.iter().map(|n| alias(*n)).collect();
            assert_eq!(list(&names), all);
            assert!(names.remove_first(|a| *a.name == [9]).is_none());
            assert!(names.retain(|_| true).is_empty());
            if count > 0 {
                let removed = names.remove_first(|a| *a.name == [0]).unwrap();
                assert_eq!((removed.name[0], names.len()), (0, all.len() - 1));
                names.push(removed);
                assert_eq!(names.retain(|a| *a.name == [0]).len(), all.len() - 1);
                assert_eq!(list(&names), [0]);
                names.iter_mut().for_each(|a| a.layer = 7);
                assert_eq!(names.into_vec()[0].layer, 7);
            }
            assert_eq!(dir.kids.load(std::sync::atomic::Ordering::Relaxed), 0);
        }
    }
}
