//! What is said about owners on the command line: ranges of ids, and "all are shown as one".

use std::ffi::OsStr;

use super::failure::Failure;
use crate::ids::{IdMap, IdMaps};

/// The id of owners that cannot be shown, unless the kernel has another one.
const OVERFLOW: u32 = 65534;

/// Everything said so far; the last word about each counts.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    users: Option<IdMap>,
    groups: Option<IdMap>,
    to_root: bool,
    to_user: Option<u32>,
    to_group: Option<u32>,
}

impl Owners {
    /// `uidmapping=`, `--uid-map`.
    pub(crate) fn map_users(&mut self, word: &str, value: &OsStr) -> Result<(), Failure> {
        self.users = Some(map(word, value, overflow("overflowuid"))?);
        Ok(())
    }

    /// `gidmapping=`, `--gid-map`.
    pub(crate) fn map_groups(&mut self, word: &str, value: &OsStr) -> Result<(), Failure> {
        self.groups = Some(map(word, value, overflow("overflowgid"))?);
        Ok(())
    }

    /// `squash_to_root`
    pub(crate) fn squash_to_root(&mut self, on: bool) {
        self.to_root = on;
    }

    /// `squash_to_uid=`
    pub(crate) fn squash_users(&mut self, word: &str, value: &OsStr) -> Result<(), Failure> {
        self.to_user = Some(id(word, value)?);
        Ok(())
    }

    /// `squash_to_gid=`
    pub(crate) fn squash_groups(&mut self, word: &str, value: &OsStr) -> Result<(), Failure> {
        self.to_group = Some(id(word, value)?);
        Ok(())
    }

    /// What all of it amounts to: a user or group beats root, which beats ranges.
    pub(crate) fn finish(self) -> IdMaps {
        let root = self.to_root.then_some(0);
        let squashed = |map: Option<IdMap>, to: Option<u32>| match to.or(root) {
            Some(id) => map.unwrap_or_default().squashed_to(id),
            None => map.unwrap_or_default(),
        };
        IdMaps {
            users: squashed(self.users, self.to_user),
            groups: squashed(self.groups, self.to_group),
        }
    }
}

/// The id that the kernel shows for owners that cannot be shown: the kernel is asked, no layer.
fn overflow(file: &str) -> u32 {
    let text = std::fs::read_to_string(format!("/proc/sys/kernel/{file}"));
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(OVERFLOW)
}

fn map(word: &str, value: &OsStr, overflow: u32) -> Result<IdMap, Failure> {
    IdMap::parse(&value.to_string_lossy(), overflow).map_err(|why| {
        Failure::Usage(format!(
            "bad value {value:?} for {word:?}: {why} (DISK:SHOWN:COUNT[:DISK:SHOWN:COUNT...] is \
             wanted, as in 0:100000:65536)"
        ))
    })
}

fn id(word: &str, value: &OsStr) -> Result<u32, Failure> {
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(id) if id != u32::MAX => Ok(id),
        _ => Err(Failure::Usage(format!(
            "bad value {value:?} for {word:?}: the number of a user or group is wanted"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_before_what() {
        let mut all = Owners::default();
        assert!(Owners::default().finish().is_identity());
        all.map_users("m", OsStr::new(":0:1000:10")).unwrap();
        all.squash_to_root(true);
        all.squash_groups("g", OsStr::new("7")).unwrap();
        let maps = all.finish();
        assert_eq!((maps.users.shown(3), maps.groups.shown(3)), (0, 7));
        assert_eq!((maps.users.stored(1003), maps.groups.stored(7)), (3, 7));
    }

    #[test]
    fn complaints_name_the_option() {
        let mut all = Owners::default();
        for (word, bad) in [
            ("uidmapping", all.map_users("uidmapping", OsStr::new("0:1"))),
            ("--gid-map", all.map_groups("--gid-map", OsStr::new("x"))),
            (
                "squash_to_uid",
                all.squash_users("squash_to_uid", OsStr::new("root")),
            ),
            (
                "squash_to_gid",
                all.squash_groups("squash_to_gid", OsStr::new("4294967295")),
            ),
        ] {
            let said = format!("{:?}", bad.unwrap_err());
            assert!(said.contains(word), "{said}");
        }
    }
}
