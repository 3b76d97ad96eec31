//! Merges what the layers say of one directory: pure, so that a table can test it.
//!
//! From the lowest layer up: a whiteout removes the name below, an object replaces it, a directory
//! over a directory joins it. A `.wh.` file acts on the layers below only, so that an object beside
//! it stays (OCI image layout; fuse-overlayfs and AUFS differ).

use std::collections::HashMap;

use super::index::Top;
use crate::attr::Kind;
use crate::layer::{LayerId, Listing};
use crate::name::NameBuf;

/// What the merged directory has at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// What is on top.
    pub top: Top,
    /// A layer below the upper shows the name: deleting it takes a whiteout.
    pub covers: bool,
}

/// Merges `listings`, topmost first, each with the layer it comes from. Those below an opaque one
/// must not be passed. `upper` is the layer that may be written, if any.
pub fn merge(
    listings: Vec<(LayerId, Listing)>,
    upper: Option<LayerId>,
) -> HashMap<NameBuf, Merged> {
    let capacity = listings
        .iter()
        .map(|(_, l)| l.entries.len())
        .max()
        .unwrap_or(0);
    let mut view: HashMap<NameBuf, Merged> = HashMap::with_capacity(capacity);
    for (layer, listing) in listings.into_iter().rev() {
        let is_upper = upper == Some(layer);
        let below = |view: &HashMap<NameBuf, Merged>, name: &NameBuf| {
            view.get(name).is_some_and(|m| m.top != Top::Whiteout)
        };
        // Deletions of a lower vanish from the index; those of the upper are remembered.
        let delete = |view: &mut HashMap<NameBuf, Merged>, name: NameBuf| {
            let covers = below(view, &name);
            if is_upper {
                view.insert(
                    name,
                    Merged {
                        top: Top::Whiteout,
                        covers,
                    },
                );
            } else {
                view.remove(&name);
            }
        };
        let mut kept_apart = HashMap::new();
        for name in listing.wh_files {
            let covers = below(&view, &name);
            delete(&mut view, name.clone());
            kept_apart.insert(name, covers);
        }
        for name in listing.whiteouts {
            delete(&mut view, name);
        }
        for entry in listing.entries {
            let covers = is_upper
                && (below(&view, &entry.name)
                    || kept_apart.get(&entry.name).copied().unwrap_or(false));
            let top = match (entry.kind, view.get(&entry.name).map(|m| &m.top)) {
                (Kind::Dir, Some(Top::Dir(lower))) => Top::Dir(
                    std::iter::once(layer)
                        .chain(lower.iter().copied())
                        .collect(),
                ),
                (Kind::Dir, _) => Top::Dir(Box::new([layer])),
                (kind, _) => Top::Leaf { layer, kind },
            };
            view.insert(entry.name, Merged { top, covers });
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::ListEntry;

    /// `a` file, `d/` directory, `!a` whiteout at the name, `.a` `.wh.` file.
    fn listing(text: &str) -> Listing {
        let mut l = Listing::default();
        for word in text.split_whitespace() {
            let name = |s: &str| NameBuf::from(s.as_bytes());
            if let Some(n) = word.strip_prefix('!') {
                l.whiteouts.push(name(n));
            } else if let Some(n) = word.strip_prefix('.') {
                l.wh_files.push(name(n));
            } else if let Some(n) = word.strip_suffix('/') {
                l.entries.push(ListEntry {
                    name: name(n),
                    kind: Kind::Dir,
                });
            } else {
                l.entries.push(ListEntry {
                    name: name(word),
                    kind: Kind::File,
                });
            }
        }
        l
    }

    /// The merged directory as text: `a@1` file from layer 1, `d@1,2` directory of both, `!a`
    /// whiteout in the upper, a trailing `+`: covers something.
    fn check(layers: &[&str], want: &str) {
        let listings = layers
            .iter()
            .enumerate()
            .map(|(i, l)| (i as LayerId, listing(l)))
            .collect();
        let mut got: Vec<String> = merge(listings, Some(0))
            .into_iter()
            .map(|(name, m)| {
                let name = String::from_utf8_lossy(&name).into_owned();
                let text = match m.top {
                    Top::Whiteout => format!("!{name}"),
                    Top::Leaf { layer, .. } => format!("{name}@{layer}"),
                    Top::Dir(layers) => {
                        let layers: Vec<_> = layers.iter().map(ToString::to_string).collect();
                        format!("{name}@{}", layers.join(","))
                    }
                };
                if m.covers { text + "+" } else { text }
            })
            .collect();
        got.sort();
        assert_eq!(got.join(" "), want, "{layers:?}");
    }

    #[test]
    fn whiteouts_and_merges() {
        check(&["", "a", "b"], "a@1 b@2");
        check(&["a", "a", "a"], "a@0+");
        check(&["d/", "d/", "d/"], "d@0,1,2+");
        check(&["!a", "a"], "!a+");
        check(&["!a", ""], "!a");
        check(&["!a", "!a", "a"], "!a");
        check(&["a", "!a", "a"], "a@0");
        check(&["", "!a", "a"], "");
        check(&["", "a", "!a", "a"], "a@1");
        // a whiteout or a file in the middle stops a merge
        check(&["d/", "!d", "d/"], "d@0");
        check(&["", "d/", ".d", "d/"], "d@1");
        check(&["", "d/", "d", "d/"], "d@1");
        check(&["d", "d/", "d/"], "d@0+");
        // same layer: the object stays, what lies below does not
        check(&["", "f .f", "f"], "f@1");
        check(&["", "d/ .d", "d/"], "d@1");
        check(&["", "d/", "d/ .d", "d/"], "d@1,2");
        check(&["f .f", "f"], "f@0+");
        check(&["d/ .d", "d/"], "d@0+");
        check(&[".f", "f"], "!f+");
    }
}
