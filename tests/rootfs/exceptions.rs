//! What may differ between two runs of the same work, and why; everything else must be equal.

use crate::kit::Snapshot;

/// Paths (a `*` is any text, also with slashes), and the reason why their content says nothing.
const CONTENT_DIFFERS: &[(&str, &str)] = &[
    ("result/timings", "holds the time of each step"),
    ("var/log/apt/*", "holds the time of each run of apt"),
    ("var/log/dpkg.log", "holds the time of each action"),
    ("var/log/alternatives.log", "holds the time of each change"),
    (
        "var/cache/ldconfig/aux-cache",
        "holds inode numbers and change times",
    ),
    (
        "var/cache/apt/*pkgcache.bin",
        "holds times and addresses of a run",
    ),
    (
        "srv/git/*/index",
        "holds inode numbers and change times; git's own view is in result/git",
    ),
    (
        "srv/data.db",
        "two writers take turns by chance; its dump is in result/sqlite",
    ),
    ("srv/copy.db", "a copy of srv/data.db"),
];

/// Takes the excepted contents (and sizes) out of a tree.
pub fn apply(tree: &mut Snapshot) {
    for (path, entry) in &mut tree.entries {
        let path = String::from_utf8_lossy(path);
        if CONTENT_DIFFERS
            .iter()
            .any(|(pattern, _)| matches(pattern, &path))
        {
            entry.data = "(excepted)".to_owned();
            entry.size = 0;
        }
    }
}

/// Whether the path is what the pattern describes.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((start, end)) => {
            path.len() >= start.len() + end.len() && path.starts_with(start) && path.ends_with(end)
        }
    }
}
