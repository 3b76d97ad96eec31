//! Which owner on disk is which in the view, both ways.
//!
//! Engines that keep images with the ids of the image (0, 1, ...) show them to a container whose ids
//! start elsewhere on the host. The spelling and the meaning are those of fuse-overlayfs
//! (`uidmapping=`, `gidmapping=`, `squash_to_root`, `squash_to_uid=`, `squash_to_gid=`).

use std::fmt;

/// Not an id: chown(2) takes it for "leave as it is".
const INVALID: u32 = u32::MAX;

/// Whether it can be anybody's: the last number means "leave it" to chown(2).
pub fn is_valid(id: u32) -> bool {
    id != INVALID
}

/// Consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: u32,
    to: u32,
    len: u32,
}

impl Range {
    fn inverse(self) -> Range {
        let (from, to) = (self.to, self.from);
        Range { from, to, ..self }
    }
}

/// Ranges that do not overlap, by their first id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ranges(Box<[Range]>);

impl Ranges {
    /// None if two of them overlap.
    fn new(mut ranges: Vec<Range>) -> Option<Ranges> {
        ranges.sort_unstable_by_key(|range| range.from);
        let disjoint = |pair: &[Range]| match pair {
            [a, b] => b.from - a.from >= a.len,
            _ => true,
        };
        ranges
            .windows(2)
            .all(disjoint)
            .then(|| Ranges(ranges.into()))
    }

    fn find(&self, id: u32) -> Option<u32> {
        let after = self.0.partition_point(|range| range.from <= id);
        let range = self.0.get(after.checked_sub(1)?)?;
        let offset = id - range.from;
        (offset < range.len).then(|| range.to + offset)
    }
}

/// How ids of one kind, of users or of groups, are shown and stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMap {
    /// From disk to view; empty: all ids are the same.
    shown: Ranges,
    /// From view to disk.
    stored: Ranges,
    /// Everything is shown as this one's.
    squash: Option<u32>,
    /// Stands for ids outside the ranges.
    overflow: u32,
}

/// What is wrong with a list of ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadMap {
    /// This is not a number below 2^32 - 1.
    NotAnId(String),
    /// The number of numbers is no multiple of three, or zero.
    NotTriples(usize),
    /// An empty range.
    Empty,
    /// A range goes past the last id.
    TooLong,
    /// Two ranges share ids on disk or in the view.
    Overlap,
}

impl fmt::Display for BadMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadMap::NotAnId(text) => write!(f, "{text:?} is not an id"),
            BadMap::NotTriples(count) => write!(
                f,
                "DISK:SHOWN:COUNT takes three numbers for each range, not {count} in all"
            ),
            BadMap::Empty => f.write_str("a range is empty"),
            BadMap::TooLong => write!(f, "a range goes past the last id, {}", INVALID - 1),
            BadMap::Overlap => f.write_str("two ranges overlap"),
        }
    }
}

impl IdMap {
    /// Reads `DISK:SHOWN:COUNT[:DISK:SHOWN:COUNT...]`; empty fields do not count, for engines write a
    /// leading colon. `overflow` stands for ids outside.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, overflow: u32) -> Result<IdMap, BadMap> {
        let id = |word: &str| match word.parse::<u32>() {
            Ok(id) if id != INVALID => Ok(id),
            _ => Err(BadMap::NotAnId(word.to_owned())),
        };
        let words = text.split(':').filter(|word| !word.is_empty());
        let numbers = words.map(id).collect::<Result<Vec<u32>, BadMap>>()?;
        let (triples, rest) = numbers.as_chunks::<3>();
        if triples.is_empty() || !rest.is_empty() {
            return Err(BadMap::NotTriples(numbers.len()));
        }
        let mut ranges = Vec::new();
        for &[from, to, len] in triples {
            let fits = |first: u32| first.checked_add(len).is_some();
            match (len, fits(from) && fits(to)) {
                (0, _) => return Err(BadMap::Empty),
                (_, false) => return Err(BadMap::TooLong),
                (_, true) => ranges.push(Range { from, to, len }),
            }
        }
        let inverse = ranges.iter().map(|range| range.inverse()).collect();
        Ok(IdMap {
            shown: Ranges::new(ranges).ok_or(BadMap::Overlap)?,
            stored: Ranges::new(inverse).ok_or(BadMap::Overlap)?,
            squash: None,
            overflow,
        })
    }

    /// The same, but everything is shown as `id`'s; what is stored stays as it was.
    #[must_use]
    pub fn squashed_to(self, id: u32) -> IdMap {
        IdMap {
            squash: Some(id),
            ..self
        }
    }

    /// The id in the view of an owner on disk.
    pub fn shown(&self, disk: u32) -> u32 {
        self.squash.unwrap_or_else(|| self.named(disk))
    }

    /// The id in the view of one that an access control list names: by the ranges alone, so that
    /// the right stays with who has it, and a list that is written back is the same.
    pub fn named(&self, disk: u32) -> u32 {
        match self.shown.0.is_empty() {
            true => disk,
            false => self.shown.find(disk).unwrap_or(self.overflow),
        }
    }

    /// The id on disk of one in the view.
    pub fn stored(&self, view: u32) -> u32 {
        match self.stored.0.is_empty() {
            true => view,
            false => self.stored.find(view).unwrap_or(self.overflow),
        }
    }

    /// As [`Self::parse`] reads it, and to whom all are squashed; nothing where there is nothing.
    pub fn describe(&self) -> (Option<String>, Option<u32>) {
        let ranges = self.shown.0.iter();
        let ranges = ranges.map(|r| format!("{}:{}:{}", r.from, r.to, r.len));
        let ranges: Vec<String> = ranges.collect();
        let map = (!ranges.is_empty()).then(|| ranges.join(":"));
        (map, self.squash)
    }

    /// Nothing is translated.
    pub fn is_identity(&self) -> bool {
        self.squash.is_none() && self.shown.0.is_empty()
    }
}

/// How owners are shown and stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMaps {
    /// Of users.
    pub users: IdMap,
    /// Of groups.
    pub groups: IdMap,
}

impl IdMaps {
    /// Nothing is translated.
    pub fn is_identity(&self) -> bool {
        self.users.is_identity() && self.groups.is_identity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_there_and_back() {
        let map = IdMap::parse(":0:100000:1000:5000:7:3", 65534).unwrap();
        for (disk, view) in [(0, 100_000), (999, 100_999), (5000, 7), (5002, 9)] {
            assert_eq!(map.shown(disk), view);
            assert_eq!(map.stored(view), disk);
        }
        for disk in [1000, 4999, 5003, INVALID - 1] {
            assert_eq!(map.shown(disk), 65534);
        }
        for view in [0, 6, 10, 99_999, 101_000] {
            assert_eq!(map.stored(view), 65534);
        }
        assert!(!map.is_identity());
    }

    #[test]
    fn without_ranges_nothing_is_translated() {
        let map = IdMap::default();
        assert!(map.is_identity());
        assert_eq!((map.shown(5), map.stored(5)), (5, 5));
        let squashed = map.squashed_to(0);
        assert!(!squashed.is_identity());
        assert_eq!((squashed.shown(5), squashed.stored(5)), (0, 5));
        let both = IdMap::parse("1:2:3", 9).unwrap().squashed_to(0);
        assert_eq!((both.shown(1), both.named(1), both.stored(2)), (0, 2, 1));
    }

    #[test]
    fn bad_maps_are_refused() {
        let id = |text: &str| BadMap::NotAnId(text.into());
        for (text, bad) in [
            ("", BadMap::NotTriples(0)),
            (":", BadMap::NotTriples(0)),
            ("1:2", BadMap::NotTriples(2)),
            ("0:1:2:3", BadMap::NotTriples(4)),
            ("a:1:2", id("a")),
            ("-1:1:2", id("-1")),
            ("4294967295:1:2", id("4294967295")),
            ("0,1,2", id("0,1,2")),
            ("0:1:0", BadMap::Empty),
            ("4294967290:1:6", BadMap::TooLong),
            ("1:4294967290:6", BadMap::TooLong),
            ("0:10:5:4:100:5", BadMap::Overlap),
            ("0:10:5:100:14:5", BadMap::Overlap),
        ] {
            assert_eq!(IdMap::parse(text, 0), Err(bad), "{text}");
        }
        assert!(IdMap::parse("4294967290:1:5", 0).is_ok());
        assert!(IdMap::parse("0:10:5:5:15:5", 0).is_ok());
    }
}
